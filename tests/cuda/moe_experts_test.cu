// The experts for given ids and gates on a device, forward and backward: the host's bits; and captured
// once, replayed with other ids and gates.
#include <gtest/gtest.h>

#include <optional>

#include "shunt/moe_experts.cuh"
#include "support/device_graph.hpp"
#include "support/device_mirror.hpp"
#include "support/moe_experts_case.hpp"

namespace shunt::test {
namespace moe_experts_test {

/// The arrays of a case on the device, and what a run there writes beside what the host wrote.
template <class T> class device_experts_call {
 public:
  device_experts_call(experts_numbers<T> const& in, experts_run<T>& host) : f_(in.f) {
    experts_formula const& f = in.f;
    auto const plain = in.weights();
    x_ = mirror_.in(in.x.as(f.tokens, f.hidden));
    d_y_ = mirror_.in(in.d_y.as(f.tokens, f.hidden));
    expert_ = mirror_.in(in.expert.as(f.tokens, f.top_k));
    gate_ = mirror_.in(in.gate.as(f.tokens, f.top_k));
    w_.up = mirror_.in(plain.up);
    w_.down = mirror_.in(plain.down);
    w_.up_bias = mirror_.in(plain.up_bias);
    w_.down_bias = mirror_.in(plain.down_bias);
    y_ = mirror_.out("y", host.y.as(f.tokens, f.hidden));
    d_x_ = mirror_.out("d_x", host.d_x.as(f.tokens, f.hidden));
    g_.gate = mirror_.out("d_gate", host.d_gate.as(f.tokens, f.top_k));
    expert_gradient<> up = host.d_up.as(f.experts, f.up_rows(), f.hidden);
    if (is_gated(f.activation)) up = up.in_pairs({});
    g_.up = mirror_.out("d_up", up);
    g_.down = mirror_.out("d_down",
                          expert_gradient<>(host.d_down.as(f.experts, f.hidden, f.intermediate)));
    if (f.biases) {
      g_.up_bias = mirror_.out("d_up_bias", host.d_up_bias.as(f.experts, f.up_rows()));
      g_.down_bias = mirror_.out("d_down_bias", host.d_down_bias.as(f.experts, f.hidden));
    }
    o_.act = f.act();
    o_.gate_on_input = f.gate_on_input;
    if (!f.valid.empty()) o_.valid = mirror_.in(in.valid.as(f.tokens));
    on_cuda const on{};
    kept_.emplace(static_cast<offset_t>(moe_experts_saved_bytes(f.tokens, f.top_k, w_, o_)));
    forward_.emplace(
        static_cast<offset_t>(moe_experts_scratch_bytes<T>(on, f.tokens, f.top_k, w_, o_, true)));
    backward_.emplace(
        static_cast<offset_t>(moe_experts_backward_scratch_bytes(on, f.tokens, f.top_k, w_, o_)));
  }
  status enqueue(on_cuda const& on) {
    auto from = all_of(kept_);
    auto const saved = carve_moe_experts_saved(from, f_.tokens, f_.top_k, w_, o_);
    status const done =
        moe_experts(on, x_, expert_, gate_, w_, y_, {.saved = &saved}, all_of(forward_), o_);
    if (!done.ok()) return done;
    return moe_experts_backward(on, x_, gate_, w_, d_y_, saved, d_x_, g_, all_of(backward_), o_);
  }
  void expect_same() const { mirror_.expect_same(); }
  /// Other ids and gates, where the first ones lie.
  void give(experts_numbers<T> const& in) {
    EXPECT_EQ(cudaMemcpy(const_cast<index_t*>(expert_.data()), in.expert.data(),
                         in.expert.size() * sizeof(index_t), cudaMemcpyHostToDevice),
              cudaSuccess);
    EXPECT_EQ(cudaMemcpy(const_cast<float*>(gate_.data()), in.gate.data(),
                         in.gate.size() * sizeof(float), cudaMemcpyHostToDevice),
              cudaSuccess);
  }

 private:
  static arena<space::device> all_of(std::optional<on_device<std::byte>> const& bytes) {
    return {bytes->data(), bytes->size()};
  }
  experts_formula f_;
  device_mirror mirror_;
  view<T const, 2, space::device> x_, d_y_;
  view<index_t const, 2, space::device> expert_;
  view<float const, 2, space::device> gate_;
  moe_experts_weights<T, space::device> w_;
  moe_experts_gradients<space::device> g_;
  view<T, 2, space::device> y_;
  view<float, 2, space::device> d_x_;
  moe_experts_options<activation, space::device> o_;
  std::optional<on_device<std::byte>> kept_, forward_, backward_;
};

TEST(CudaMoeExperts, HaveTheHostsBits) {
  for (experts_formula const& f : experts_formulas()) {
    SCOPED_TRACE(f.name);
    experts_numbers<float> const in(f);
    experts_run<float> host(on_host{}, in, in.options());
    ASSERT_TRUE(host.backward.ok()) << host.backward.message();
    device_experts_call<float> device(in, host);
    status const done = device.enqueue({});
    ASSERT_TRUE(done.ok()) << done.message();
    device.expect_same();
  }
}

TEST(CudaMoeExperts, ACapturedCallReadsIdsAndGatesWhenItRuns) {
  experts_numbers<float> const first(experts_formulas().front());
  experts_numbers<float> other = first;
  for (index_t& id : other.expert) id = (id + 2) % other.f.experts;
  for (float& g : other.gate) g = 1.5f - g;
  experts_run<float> host(on_host{}, other, other.options());
  device_experts_call<float> device(first, host);
  captured graph([&](on_cuda const& on) { return device.enqueue(on); });
  graph.replay();
  device.give(other);
  graph.replay();
  device.expect_same();
}

}  // namespace moe_experts_test
}  // namespace shunt::test
