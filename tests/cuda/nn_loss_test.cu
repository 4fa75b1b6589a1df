// The output head and its loss on a device: the host's bits, with every part that may be left out, and
// a captured graph that is replayed with other targets.
#include <gtest/gtest.h>

#include <limits>

#include "shunt/nn/cross_entropy.cuh"
#include "support/device_graph.hpp"
#include "support/device_plan.hpp"
#include "support/expect_error.hpp"

namespace shunt::test {
namespace nn_loss_test {

struct head {
  offset_t tokens, vocabulary, width;
};

/// One problem on both sides; some targets are ignored, on the device by an id that is none.
struct fixture {
  head s;
  std::vector<float> x, weight, mean{7.0f}, loss, d_x, d_weight;
  std::vector<index_t> target;
  on_device<float> g_x, g_weight, g_mean{1}, g_loss, g_d_x, g_d_weight;
  on_device<index_t> g_target;
  on_device<std::byte> work;

  explicit fixture(head const& is)
      : s(is),
        x(values<float>(s.tokens * s.width, 1)),
        weight(values<float>(s.vocabulary * s.width, 2)),
        loss(static_cast<std::size_t>(s.tokens)),
        d_x(x.size()),
        d_weight(values<float>(s.vocabulary * s.width, 3)),
        target(static_cast<std::size_t>(s.tokens)),
        g_x(x),
        g_weight(weight),
        g_loss(s.tokens),
        g_d_x(s.tokens * s.width),
        g_d_weight(d_weight),
        g_target(s.tokens),
        work(static_cast<offset_t>(nn::cross_entropy_scratch_bytes(s.tokens, s.vocabulary))) {
    choose(4);
  }
  void choose(std::uint64_t seed) {
    rng die(seed);
    for (index_t& t : target) t = static_cast<index_t>(die.bits() % s.vocabulary);
    for (std::size_t t = 1; t < target.size(); t += 5) target[t] = -1;
    auto strange = target;
    for (std::size_t t = 1; t < target.size(); t += 10) {
      strange[t] = static_cast<index_t>(s.vocabulary);
    }
    g_target.fill(strange);
  }
  /// Bit 0: losses are wanted, 1: d_x, 2: d_weight.
  template <space S, class V> nn::cross_entropy_out<float, S> parts(int form, V const& of) const {
    nn::cross_entropy_out<float, S> out;
    out.mean = of(0).slice(0, 1);
    if (form & 1) out.loss = of(1);
    if (form & 2) out.d_x = {of(2).data(), {{s.tokens, s.width}}};
    if (form & 4) out.d_weight = {of(3).data(), {{s.vocabulary, s.width}}};
    return out;
  }
  status host(int form, nn::cross_entropy_options const& o) {
    std::vector<float>* const all[] = {&mean, &loss, &d_x, &d_weight};
    std::vector<std::byte> bytes(nn::cross_entropy_scratch_bytes(s.tokens, s.vocabulary));
    return nn::cross_entropy(
        on_host{}, view<float, 2>(x.data(), {{s.tokens, s.width}}),
        view<float, 2>(weight.data(), {{s.vocabulary, s.width}}), target,
        parts<space::host>(form, [&](int i) { return view<float, 1>(*all[i]); }), bytes, o);
  }
  status device(int form, nn::cross_entropy_options const& o, on_cuda const& on = {}) const {
    on_device<float> const* const all[] = {&g_mean, &g_loss, &g_d_x, &g_d_weight};
    return nn::cross_entropy(
        on, g_x.as(s.tokens, s.width), g_weight.as(s.vocabulary, s.width), g_target.as(s.tokens),
        parts<space::device>(form, [&](int i) { return all[i]->as(all[i]->size()); }),
        {work.data(), work.size()}, o);
  }
  void expect_same(int form) const {
    EXPECT_TRUE(same_values(g_mean.host(), mean));
    if (form & 1) { EXPECT_TRUE(same_values(g_loss.host(), loss)); }
    if (form & 2) { EXPECT_TRUE(same_values(g_d_x.host(), d_x)); }
    EXPECT_TRUE(same_values(g_d_weight.host(), d_weight));
  }
};

TEST(CudaLoss, EveryFormHasTheHostsBits) {
  for (head const& s : {head{0, 9, 4}, {1, 1, 1}, {7, 37, 5}, {300, 256, 12}, {3, 3000, 8}}) {
    fixture q(s);
    for (int form = 0; form < 8; ++form) {
      SCOPED_TRACE(std::to_string(s.tokens) + " x " + std::to_string(s.vocabulary) + " form " +
                   std::to_string(form));
      nn::cross_entropy_options const o{.accumulate = form == 5,
                                        .scale = form == 6 ? 0.5f : 1.0f,
                                        .divisor = form == 4 ? 1000 : 0};
      ASSERT_TRUE(q.host(form, o).ok());
      status const done = q.device(form, o);
      ASSERT_TRUE(done.ok()) << done.message();
      q.expect_same(form);
    }
  }
}

TEST(CudaLoss, LogitsThatAreNotFiniteAreTheHosts) {
  fixture q({5, 70, 3});
  q.weight[4] = std::numeric_limits<float>::infinity();
  q.weight[100] = std::numeric_limits<float>::quiet_NaN();
  q.g_weight.fill(q.weight);
  ASSERT_TRUE(q.host(7, {}).ok());
  ASSERT_TRUE(q.device(7, {}).ok());
  q.expect_same(7);
}

TEST(CudaLoss, CapturedAndReplayedWithOtherTargets) {
  fixture q({270, 50, 6});
  captured graph([&](on_cuda const& on) { return q.device(7, {}, on); });
  for (std::uint64_t seed : {11, 12}) {
    q.choose(seed);
    graph.replay();
    ASSERT_TRUE(q.host(7, {}).ok());
    q.expect_same(7);
  }
}

TEST(CudaLoss, RefusalsAreSentencesAndEnqueueNothing) {
  fixture const q({4, 6, 3});
  expect_error(
      nn::cross_entropy(on_cuda{}, q.g_x.as(4, 3), q.g_weight.as(6, 3), q.g_target.as(4),
                        {.mean = q.g_mean.as(1)}, {}),
      error::arena_too_small,
      "cross_entropy: the arena has 0 bytes; it must have 320 (ask an arena that is measuring)");
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(q.g_d_weight.host(), q.d_weight);
}

}  // namespace nn_loss_test
}  // namespace shunt::test
