// The whole layer on a device, forward and backward: the host's bits for every published family; and
// captured once, replayed with tokens that choose otherwise.
#include <gtest/gtest.h>

#include <optional>

#include "shunt/layer.cuh"
#include "support/device_graph.hpp"
#include "support/device_mirror.hpp"
#include "support/halves_apart.hpp"
#include "support/layer_cases.hpp"

namespace shunt::test {
namespace layer_test {

/// Forward and backward on a device beside a run of the host's, in as many bytes as asked for.
template <class T> class device_layer {
 public:
  device_layer(layer_setup<T> const& s, layer_run<T>& host)
      : device_layer(s, host, s.weights(), host.d.views(s.is.f, s.layout())) {}
  device_layer(layer_setup<T> const& s, layer_run<T>& host, moe_weights<T> const& weights,
               moe_gradients<> const& gradients)
      : f_(s.is.f), tokens_(static_cast<index_t>(f_.tokens)) {
    auto const matrix = [&](auto const& x) { return view<T const, 2>(x.as(f_.tokens, f_.width)); };
    if (s.is.table > 0) table_ = s.table.as(s.is.table, f_.top_k);
    x_ = mirror_.in(matrix(s.x));
    d_y_ = mirror_.in(matrix(s.d_y));
    weights_ = mirror_.in(weights);
    gradients_ = mirror_.out(gradients);
    y_ = mirror_.out("y", host.y.as(f_.tokens, f_.width));
    d_x_ = mirror_.out("d_x", host.d_x.as(f_.tokens, f_.width));
  }
  template <class A> status run(on_cuda const& on, layer_options<A> const& options) {
    return enqueue(on, prepare(on, options));
  }
  /// The options on the device, and memory for a run with them.
  template <class A>
  layer_options<A, space::device> prepare(on_cuda const& on, layer_options<A> const& options) {
    auto o = mirror_.in(options);
    if (table_) o.ids = mirror_.in(table_);
    forward_.emplace(
        static_cast<offset_t>(moe_layer_scratch_bytes(on, tokens_, weights_, o, true)));
    saved_bytes_.emplace(static_cast<offset_t>(moe_saved_bytes(tokens_, weights_, o)));
    backward_.emplace(
        static_cast<offset_t>(moe_layer_backward_scratch_bytes(on, tokens_, weights_, o)));
    return o;
  }
  template <class A> status enqueue(on_cuda const& on, layer_options<A, space::device> const& o) {
    auto keep = all_of(saved_bytes_);
    auto const saved = carve_moe_saved(keep, tokens_, weights_, o);
    status const done = moe_layer(on, x_, weights_, y_, {.saved = &saved}, all_of(forward_), o);
    if (!done.ok()) return done;
    return moe_layer_backward(on, x_, weights_, d_y_, saved, d_x_, gradients_, all_of(backward_),
                              o);
  }
  void expect_same() const { mirror_.expect_same(); }
  void give_weights(device_layer const& from) { weights_ = from.weights_; }
  /// The same where `host`, which the comparison reads, has been run again in `again`'s memory.
  void expect_same_as(layer_run<T>& again, layer_run<T>& host) const {
    copy(again.y, host.y);
    copy(again.d_x, host.d_x);
    std::vector<guarded<float>*> to;
    host.d.each_weight([&](char const*, guarded<float>& g) { to.push_back(&g); });
    std::size_t i = 0;
    again.d.each_weight([&](char const*, guarded<float>& g) { copy(g, *to[i++]); });
    mirror_.expect_same();
  }
  void expect_untouched() const {
    for (T v : read(y_)) EXPECT_TRUE(std::isnan(to_float(v)));
  }
  std::vector<T> y() const { return read(y_); }
  std::vector<T> d_x() const { return read(d_x_); }
  void give(layer_setup<T> const& s) {
    EXPECT_EQ(cudaMemcpy(const_cast<T*>(x_.data()), s.x.data(), s.x.size() * sizeof(T),
                         cudaMemcpyHostToDevice),
              cudaSuccess);
  }

 private:
  static std::vector<T> read(view<T, 2, space::device> from) {
    std::vector<T> to(static_cast<std::size_t>(from.size()));
    EXPECT_EQ(cudaMemcpy(to.data(), from.data(), to.size() * sizeof(T), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return to;
  }
  /// Into the memory that is there: the comparison holds its address.
  template <class U> static void copy(guarded<U> const& from, guarded<U>& to) {
    for (std::size_t i = 0; i < from.size(); ++i) to[i] = from[i];
  }
  static arena<space::device> all_of(std::optional<on_device<std::byte>> const& bytes) {
    return {bytes->data(), bytes->size()};
  }
  layer_formula f_;
  index_t tokens_;
  device_mirror mirror_;
  view<T const, 2, space::device> x_, d_y_;
  view<T, 2, space::device> y_, d_x_;
  moe_weights<T, T, space::device> weights_;
  moe_gradients<space::device> gradients_;
  view<index_t const, 2> table_;
  std::optional<on_device<std::byte>> forward_, saved_bytes_, backward_;
};

template <class T, class A>
void same_as_host(layer_setup<T> const& s, layer_options<A> const& o, on_cuda const& on = {}) {
  layer_run<T> host(on_host{}, s, o);
  ASSERT_TRUE(host.forward.ok()) << host.forward.message();
  ASSERT_TRUE(host.backward.ok()) << host.backward.message();
  device_layer<T> device(s, host);
  status const done = device.run(on, o);
  ASSERT_TRUE(done.ok()) << done.message();
  device.expect_same();
}

TEST(CudaLayer, EveryFamilyHasTheHostsBits) {
  for (layer_case c : layer_families()) {
    SCOPED_TRACE(c.name);
    if (c.f.tokens > 1) c.f.tokens = 35;
    layer_setup<float> s(c);
    auto o = s.options();
    same_as_host(s, o);
    if (c.f.tokens == 1) continue;
    // Padding, and nothing kept but the choice.
    std::vector<std::uint8_t> valid(static_cast<std::size_t>(c.f.tokens), 1);
    for (std::size_t t = 3; t < valid.size(); t += 4) valid[t] = 0;
    s.set_valid(valid);
    o = s.options();
    o.memory = memory_mode::recompute;
    same_as_host(s, o);
  }
}

/// Root of the summed squares of the difference over that of what is expected.
template <class T> double distance(std::vector<T> const& got, guarded<T> const& want) {
  double off = 0.0, all = 0.0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    double const w = static_cast<double>(to_float(want[i]));
    double const d = static_cast<double>(to_float(got[i])) - w;
    off += d * d;
    all += w * w;
  }
  return std::sqrt(off / (all > 0.0 ? all : 1.0));
}

// bf16: the host's bits on CUDA cores; on tensor cores, whose sums have another order, as near as two
// roundings of bf16 are, and a token's bits are the same whatever stands beside it.
TEST(CudaLayer, Battery16_HalfPrecisionWithTheHostsBitsOrOnTensorCores) {
  for (char const* name : {"mixtral", "deepseek_v3", "gpt_oss", "nemotron"}) {
    SCOPED_TRACE(name);
    layer_case c = family(name);
    c.f.tokens = 70;
    c.f.width = c.f.latent ? 40 : 32;
    c.f.intermediate = 24;
    layer_setup<bf16> const s(c);
    auto const o = s.options();
    same_as_host(s, o, {.products = arithmetic::exact});
    layer_run<bf16> host(on_host{}, s, o);
    device_layer<bf16> device(s, host);
    ASSERT_TRUE(device.run(on_cuda{}, o).ok());
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    auto const whole = device.y();
    EXPECT_LT(distance(whole, host.y), 0.01);
    EXPECT_LT(distance(device.d_x(), host.d_x), 0.03);

    c.f.tokens = 9;  // the same weights; the tokens are the last of the whole batch
    layer_setup<bf16> part(c);
    std::size_t const count = part.x.size(), from = s.x.size() - count;
    for (std::size_t i = 0; i < count; ++i) part.x[i] = s.x[from + i];
    layer_run<bf16> small(on_host{}, part, o);
    device_layer<bf16> alone(part, small);
    alone.give_weights(device);
    ASSERT_TRUE(alone.run(on_cuda{}, o).ok());
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    std::vector<bf16> const want(whole.begin() + static_cast<std::ptrdiff_t>(from), whole.end());
    EXPECT_TRUE(same_values(alone.y(), want));
  }
}

TEST(CudaLayer, Battery23_HalvesApart) {
  layer_setup<float> const s(family("qwen_shared_gate"));
  layer_formula const& f = s.is.f;
  layer_run<float> host(on_host{}, s, s.options());
  int const L = f.local(), I = f.intermediate, H = f.hidden;
  halves_apart<float> const up(s.up, L, I, H, 2), shared(s.shared_up, 1, f.shared, f.width);
  moe_weights<float> w = s.weights();
  w.up = up.weights();
  w.shared_up = shared.weights();
  // Gradients of the same kind, which must be the host's.
  halves_apart<float> const d_up(host.d.up, L, I, H),
      d_shared(host.d.shared_up, 1, f.shared, f.width, 2);
  moe_gradients<> d = host.d.views(f, s.layout());
  d.up = d_up.gradients();
  d.shared_up = d_shared.gradients();
  device_layer<float> device(s, host, w, d);
  status const done = device.run(on_cuda{}, s.options());
  ASSERT_TRUE(done.ok()) << done.message();
  device.expect_same();
}

TEST(CudaLayer, TwoStreamsAtOnce) {
  layer_setup<float> const a(family("deepseek_v3"), 1), b(family("gpt_oss"), 2);
  layer_run<float> host_a(on_host{}, a, a.options()), host_b(on_host{}, b, b.options());
  device_layer<float> device_a(a, host_a), device_b(b, host_b);
  cudaStream_t one, two;
  ASSERT_EQ(cudaStreamCreateWithFlags(&one, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaStreamCreateWithFlags(&two, cudaStreamNonBlocking), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(),
            cudaSuccess);  // what the buffers begin with is on neither stream
  ASSERT_TRUE(device_a.run(on_cuda{one}, a.options()).ok());
  ASSERT_TRUE(device_b.run(on_cuda{two}, b.options()).ok());
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  device_a.expect_same();
  device_b.expect_same();
  ASSERT_EQ(cudaStreamDestroy(one), cudaSuccess);
  ASSERT_EQ(cudaStreamDestroy(two), cudaSuccess);
}

TEST(CudaLayer, NoTokensIsNoError) {
  layer_case c = family("olmoe");
  c.f.tokens = 0;
  layer_setup<float> const s(c);
  same_as_host(s, s.options());
}

// One capture of forward and backward; each replay has other tokens, which choose other experts.
TEST(CudaLayer, Battery18_CapturedOnceAndReplayedWithOtherTokens) {
  for (char const* name : {"deepseek_v3", "gpt_oss", "nemotron"}) {
    SCOPED_TRACE(name);
    layer_case c = family(name);
    c.f.tokens = 40;
    layer_setup<float> s(c);
    layer_run<float> host(on_host{}, s, s.options());
    device_layer<float> device(s, host);
    auto const o = device.prepare(on_cuda{}, s.options());
    captured graph([&](on_cuda on) { return device.enqueue(on, o); });
    for (std::uint64_t seed : {1u, 2u, 3u}) {
      auto const x = normal_values<float>(s.x.size(), 100 + seed);
      // The last time all tokens are one, so that few experts get all rows.
      for (std::size_t i = 0; i < s.x.size(); ++i) {
        s.x[i] = x[seed == 3 ? i % static_cast<std::size_t>(c.f.width) : i];
      }
      device.give(s);
      graph.replay();
      layer_run<float> again(on_host{}, s, s.options());
      device.expect_same_as(again, host);
    }
  }
}

TEST(CudaLayer, BadArgumentsAreSaidBeforeAnythingIsEnqueued) {
  layer_setup<float> const s(family("olmoe"));
  layer_run<float> host(on_host{}, s, s.options());
  device_layer<float> device(s, host);
  auto o = s.options();
  o.top_k = 100;
  status const bad = device.run(on_cuda{}, o);
  EXPECT_FALSE(bad.ok());
  EXPECT_NE(std::string(bad.message()).find("top_k"), std::string::npos) << bad.message();
  device.expect_untouched();
}

}  // namespace layer_test
}  // namespace shunt::test
