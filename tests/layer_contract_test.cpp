// What the layer promises beside its formulas, on every instruction set and thread count.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

#include "shunt/layer.hpp"
#include "support/layer_cases.hpp"

namespace shunt::test {
namespace layer_contract_test {

using setup = layer_setup<float>;
using run = layer_run<float>;
on_host const one{.threads = 1};

TEST(LayerContract, SameBitsInEveryWorld) {
  for (layer_case c : layer_families()) {
    SCOPED_TRACE(c.name);
    if (c.f.tokens > 1) c.f.tokens = small_scale() ? 33 : 131;
    setup const s(c);
    run first(one, s, s.options());
    for (on_host const& on : host_configs()) {
      SCOPED_TRACE(name_of(on));
      run again(on, s, s.options());
      EXPECT_TRUE(same_results(first, again));
    }
  }
}

TEST(LayerContract, Battery15_SameBitsOnEveryRun) {
  setup const s(larger("deepseek_v3", 200));
  run first(on_host{.threads = 7}, s, s.options());
  for (int i = 0; i < 5; ++i) {
    run again(on_host{.threads = 7}, s, s.options());
    ASSERT_TRUE(same_results(first, again));
  }
}

TEST(LayerContract, Battery16_ATokensBitsDoNotDependOnTheBatch) {
  for (char const* name : {"olmoe", "deepseek_v3", "gpt_oss", "kimi_k3", "longcat", "llama4"}) {
    SCOPED_TRACE(name);
    layer_case c = larger(name, 257);
    c.f.balance = c.f.z = 0.0;  // whose gradient is the batch's
    setup const all(c);
    run whole(on_host{.threads = 2}, all, all.options());
    ASSERT_TRUE(whole.backward.ok()) << whole.backward.message();
    for (int tokens : {1, 4, 16, 64}) {
      SCOPED_TRACE(tokens);
      c.f.tokens = tokens;
      setup part(c);  // the same weights; the tokens are the last of the whole batch
      std::size_t const count = part.x.size(), from = all.x.size() - count;
      std::memcpy(part.x.data(), all.x.data() + from, count * sizeof(float));
      std::memcpy(part.d_y.data(), all.d_y.data() + from, count * sizeof(float));
      run alone(
          one, part,
          [&] {
            auto o = part.options();
            return o;
          }(),
          all.weights(), true);
      ASSERT_TRUE(alone.backward.ok()) << alone.backward.message();
      EXPECT_EQ(0, std::memcmp(alone.y.data(), whole.y.data() + from, count * sizeof(float)));
      EXPECT_EQ(0, std::memcmp(alone.d_x.data(), whole.d_x.data() + from, count * sizeof(float)));
    }
  }
}

TEST(LayerContract, Battery10_RecomputingGivesTheSameBitsAndCountsTheLoadOnce) {
  for (layer_case const& c : layer_families()) {
    SCOPED_TRACE(c.name);
    setup const s(c);
    auto o = s.options();
    run kept(one, s, o);
    guarded<index_t> counts(std::vector<index_t>(static_cast<std::size_t>(c.f.experts), 0));
    guarded<float> importance(static_cast<std::size_t>(c.f.experts));
    guarded<index_t> tokens(std::vector<index_t>{0});
    std::fill(importance.begin(), importance.end(), 0.0f);
    o.memory = memory_mode::recompute;
    moe_outputs<float> outputs;
    if (c.taken == 0) {
      o.route.accumulate = true;
      outputs.route.counts = counts.as(c.f.experts);
      outputs.route.importance = importance.as(c.f.experts);
      outputs.route.tokens = tokens.as(1);
    }
    run again(one, s, o, true, outputs);
    EXPECT_TRUE(same_results(kept, again));
    EXPECT_FALSE(again.saved.pre);
    if (c.taken > 0) continue;
    index_t load = 0, chosen = 0;
    for (index_t n : counts) load += n;
    for (int t = 0; t < c.f.tokens; ++t) {
      for (int k = 0; k < c.f.top_k; ++k) chosen += again.saved.choice.expert(t, k) >= 0 ? 1 : 0;
    }
    EXPECT_EQ(load, chosen);
    EXPECT_EQ(tokens[0], c.f.tokens);
  }
}

TEST(LayerContract, NothingSavedNothingChanged) {
  for (layer_case const& c : layer_families()) {
    SCOPED_TRACE(c.name);
    setup const s(c);
    run training(one, s, s.options()), inference(one, s, s.options(), false);
    ASSERT_TRUE(inference.forward.ok()) << inference.forward.message();
    EXPECT_TRUE(same_bits(training.y, inference.y));
  }
}

TEST(LayerContract, Battery24_TheBytesAskedForSufficeAndOneFewerIsRefused) {
  setup const s(family("kimi_k3"));
  layer_formula const& f = s.is.f;
  auto const o = s.options();
  auto const w = s.weights();
  guarded<float> y(s.x.size());
  for (bool training : {false, true}) {
    std::size_t const bytes = moe_layer_scratch_bytes(one, f.tokens, w, o, training);
    guarded<std::byte> keep(moe_saved_bytes(f.tokens, w, o)), work(bytes), less(bytes - 64 - 1);
    arena<> from(keep);
    auto const saved = carve_moe_saved(from, f.tokens, w, o);
    ASSERT_TRUE(from.fits());
    moe_outputs<float> const given{.saved = training ? &saved : nullptr};
    y.wipe();
    status const refused = moe_layer(one, s.x.as(f.tokens, f.width), w, y.as(f.tokens, f.width),
                                     given, arena<>(less), o);
    EXPECT_EQ(refused.code(), error::arena_too_small);
    EXPECT_NE(std::strstr(refused.message(), "moe_layer.work"), nullptr) << refused.message();
    EXPECT_TRUE(std::isnan(y[0])) << "written before it was refused";
    status const good = moe_layer(one, s.x.as(f.tokens, f.width), w, y.as(f.tokens, f.width), given,
                                  arena<>(work), o);
    EXPECT_TRUE(good.ok()) << good.message();
  }
}

TEST(LayerContract, Battery18_WhatIsLeftInScratchDoesNotMatter) {
  layer_case c = family("gpt_oss");
  guarded<std::byte> work(1 << 22), keep(1 << 22);
  for (int tokens : {64, 5, 33}) {
    c.f.tokens = tokens;
    setup const s(c);
    run fresh(one, s, s.options());
    layer_formula const& f = s.is.f;
    auto const w = s.weights();
    auto const o = s.options();
    guarded<float> y(s.x.size()), d_x(s.x.size());
    gradient_buffers d(s);
    arena<> from(keep);
    auto const saved = carve_moe_saved(from, f.tokens, w, o);
    ASSERT_TRUE(moe_layer(one, s.x.as(f.tokens, f.width), w, y.as(f.tokens, f.width),
                          {.saved = &saved}, arena<>(work), o)
                    .ok());
    ASSERT_TRUE(moe_layer_backward(one, s.x.as(f.tokens, f.width), w, s.d_y.as(f.tokens, f.width),
                                   saved, d_x.as(f.tokens, f.width), d.views(f, s.layout()),
                                   arena<>(work), o)
                    .ok());
    EXPECT_TRUE(same_bits(y, fresh.y));
    EXPECT_TRUE(same_bits(d_x, fresh.d_x));
    EXPECT_TRUE(same_bits(d.up, fresh.d.up));
  }
}

TEST(LayerContract, AddsToYOnRequest) {
  for (char const* name : {"olmoe", "kimi_k3", "qwen_shared_gate"}) {
    SCOPED_TRACE(name);
    setup const s(family(name));
    layer_formula const& f = s.is.f;
    run plain(one, s, s.options(), false);
    auto o = s.options();
    o.add_to_y = true;
    auto y = normal_values<float>(s.x.size(), 5);
    auto const before = y;
    guarded<std::byte> work(moe_layer_scratch_bytes(one, f.tokens, s.weights(), o));
    status const done = moe_layer(one, s.x.as(f.tokens, f.width), s.weights(),
                                  y.as(f.tokens, f.width), arena<>(work), o);
    ASSERT_TRUE(done.ok()) << done.message();
    for (std::size_t i = 0; i < y.size(); ++i) ASSERT_EQ(y[i], plain.y[i] + before[i]);
  }
}

TEST(LayerContract, SavesTheBytesThatItsPageSays) {
  // docs/stages/layer.md: per token 4E + 8K (choice) + 8K (plan) + K·2I·size (pre-activations),
  // and 4(L+1) once; each array rounded up to 64 bytes.
  layer_case c = family("olmoe");
  c.f.tokens = 64;
  c.f.balance = c.f.z = 0.0;
  setup const s(c);
  auto o = s.options();
  auto const up = [](std::size_t bytes) { return (bytes + 63) / 64 * 64; };
  std::size_t const T = 64, E = 7, K = 3, I = 9;
  std::size_t const choice = up(4 * T * E) + 2 * up(4 * T * K);
  std::size_t const plan = up(4 * (E + 1)) + 2 * up(4 * T * K);
  std::size_t const pre = up(T * K * 2 * I * sizeof(float));
  EXPECT_EQ(moe_saved_bytes(64, s.weights(), o), choice + plan + pre + 64);
  o.memory = memory_mode::recompute;
  EXPECT_EQ(moe_saved_bytes(64, s.weights(), o), choice + plan + 64);
}

TEST(LayerContract, StagesAreNamedInOrder) {
  setup const s(family("kimi_k3"));
  auto o = s.options();
  std::vector<std::string> seen;
  o.hook = {&seen, [](void* self, char const* stage) {
              auto& names = *static_cast<std::vector<std::string>*>(self);
              if (names.empty() || names.back() != stage) names.emplace_back(stage);
            }};
  run r(one, s, o);
  ASSERT_TRUE(r.backward.ok());
  std::vector<std::string> const expected{"gate",
                                          "route",
                                          "plan",
                                          "latent",
                                          "experts",
                                          "shared",
                                          "combine",
                                          "latent",
                                          "combine",
                                          "gate_backward",
                                          "latent_backward",
                                          "experts_backward",
                                          "dispatch_backward",
                                          "combine_backward",
                                          "latent_backward",
                                          "route_backward",
                                          "gate_backward",
                                          "shared_backward"};
  EXPECT_EQ(seen, expected);
}

TEST(LayerContract, ReportsTheLoad) {
  setup const s(family("gshard"));
  load_figures figures;
  plan_counts totals;
  run r(one, s, s.options(), true,
        {.load = {.figures = view(&figures, 1)}, .plan = {.totals = view(&totals, 1)}});
  ASSERT_TRUE(r.forward.ok()) << r.forward.message();
  EXPECT_EQ(figures.slots, r.saved.plan.offset[7]);
  EXPECT_EQ(totals.rows + totals.dropped, 26);
  EXPECT_GT(totals.dropped, 0);
}

TEST(LayerContract, Battery05_RowsBeyondTwoToTheThirtyOneElements) {
  // Three tokens, 2^30 elements apart: the last one's offset does not fit 31 bits.
  setup s(larger("deepseek_v3", 3));
  layer_formula const& f = s.is.f;
  offset_t const stride = offset_t{1} << 30;
  std::size_t const bytes = (2 * static_cast<std::size_t>(stride) + 4096) * sizeof(float);
  auto const map = [&] {
    void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? nullptr : static_cast<float*>(at);
  };
  float* const far[4] = {map(), map(), map(), map()};
  for (float* p : far) {
    if (p == nullptr) GTEST_SKIP() << "no address space";
  }
  auto const as = [&](float* p) { return view<float, 2>(p, {{f.tokens, f.width}}, {{stride, 1}}); };
  auto const x = as(far[0]), y = as(far[1]), d_y = as(far[2]), d_x = as(far[3]);
  for (int t = 0; t < f.tokens; ++t) {
    for (int h = 0; h < f.width; ++h) {
      x(t, h) = s.x[static_cast<std::size_t>(t * f.width + h)];
      d_y(t, h) = s.d_y[static_cast<std::size_t>(t * f.width + h)];
    }
  }
  run near(one, s, s.options());
  auto const w = s.weights();
  auto const o = s.options();
  guarded<std::byte> work(std::max(moe_layer_scratch_bytes(one, 3, w, o, true),
                                   moe_layer_backward_scratch_bytes(one, 3, w, o)));
  guarded<std::byte> keep(moe_saved_bytes(3, w, o));
  arena<> from(keep);
  auto const saved = carve_moe_saved(from, 3, w, o);
  ASSERT_TRUE(moe_layer(one, x, w, y, {.saved = &saved}, arena<>(work), o).ok());
  ASSERT_TRUE(moe_layer_backward(one, x, w, d_y, saved, d_x, {}, arena<>(work), o).ok());
  for (int t = 0; t < f.tokens; ++t) {
    for (int h = 0; h < f.width; ++h) {
      ASSERT_EQ(y(t, h), near.y[static_cast<std::size_t>(t * f.width + h)]);
      ASSERT_EQ(d_x(t, h), near.d_x[static_cast<std::size_t>(t * f.width + h)]);
    }
  }
  for (float* p : far) munmap(p, bytes);
}

}  // namespace layer_contract_test
}  // namespace shunt::test
