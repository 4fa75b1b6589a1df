// The layer across ranks has the bits of one process: outputs, gradients, ids, gates, counts.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/across_layer.hpp"
#include "support/ranks.hpp"

namespace shunt::test {
namespace across_layer_test {

on_host const one{.threads = 1};

/// Blocks of tokens by rank. With a balance loss they are those of the router's sums, 32 tokens.
std::vector<int> blocks_of_tokens(layer_case const& c, int ranks, std::uint64_t seed) {
  if (c.f.balance == 0.0) return tokens_by_rank(ranks, c.f.tokens, false, seed);
  std::vector<int> count = tokens_by_rank(ranks, c.f.tokens / 32, false, seed);
  for (int& n : count) n *= 32;
  count.back() += c.f.tokens % 32;
  return count;
}

template <class T>
void expect_same(layer_case c, std::vector<int> const& ranks_tried, memory_mode memory, int copies,
                 std::uint64_t seed) {
  SCOPED_TRACE(c.name);
  if (c.taken > 0) return;  // experts choose: refused
  c.f.tokens = c.f.balance > 0 ? 83 : c.f.tokens > 1 ? 29 : 1;
  layer_setup<T> const s(c);
  auto options = s.options();
  options.memory = memory;
  guarded<index_t> counts(std::size_t(c.f.experts)), wanted(std::size_t(s.is.f.local()));
  guarded<float> loss(2), importance(std::size_t(c.f.experts));
  moe_outputs<T> out;
  out.route.counts = counts.as(c.f.experts);
  out.route.importance = importance.as(c.f.experts);
  out.plan.wanted = wanted.as(s.is.f.local());
  out.loss = loss.as(2);
  layer_run<T> whole(one, s, options, true, out);
  ASSERT_TRUE(whole.backward.ok()) << whole.forward.message() << whole.backward.message();
  for (int const ranks : ranks_tried) {
    SCOPED_TRACE("ranks " + std::to_string(ranks));
    placed const p = ranks == 1    ? placed_evenly(1, s.is.f.local())
                     : copies >= 0 ? placed_at_random(ranks, s.is.f.local(), copies, ++seed)
                                   : placed_evenly(ranks, s.is.f.local());
    std::vector<int> const tokens = blocks_of_tokens(c, ranks, seed);
    std::vector<std::unique_ptr<rank_of_layer<T>>> parts;
    for (int r = 0; r < ranks; ++r) {
      parts.push_back(std::make_unique<rank_of_layer<T>>(s, p, tokens, r));
    }
    on_threads(ranks, [&](rank_threads& x) { parts[std::size_t(x.rank())]->run(x, one, options); });
    for (int r = 0; r < ranks; ++r) {
      rank_of_layer<T>& part = *parts[std::size_t(r)];
      EXPECT_EQ(part.difference(whole), "") << "rank " << r;
      EXPECT_TRUE(same_bits(part.counts, counts)) << "rank " << r;
      for (std::size_t i = 0; i < part.own_experts().size(); ++i) {
        EXPECT_EQ(part.wanted[i], wanted[std::size_t(part.own_experts()[i])]);
      }
      if (c.f.balance > 0) {
        EXPECT_TRUE(same_bits(part.importance, importance)) << "rank " << r;
        EXPECT_EQ(std::memcmp(&part.loss[0], &loss[0], sizeof(float)), 0);
      }
      if (c.f.z > 0) { EXPECT_NEAR(part.loss[1], loss[1], 1e-5f * loss[1]); }
    }
  }
}

TEST(Across, Battery01_EveryFamilyHasTheBitsOfOneProcessOnAnyNumberOfRanks) {
  std::vector<int> const ranks =
      small_scale() ? std::vector<int>{3} : std::vector<int>{1, 2, 3, 5, 8};
  for (layer_case const& c : layer_families())
    expect_same<float>(c, ranks, memory_mode::save, 0, 7);
}

TEST(Across, Battery12_CopiesAndRecomputingDoNotChangeABit) {
  std::vector<int> const ranks = small_scale() ? std::vector<int>{2} : std::vector<int>{2, 3, 4};
  for (layer_case const& c : layer_families()) {
    expect_same<float>(c, ranks, memory_mode::recompute, 5, 100);
  }
}

TEST(Across, HalvesHaveTheBitsOfOneProcessToo) {
  for (char const* name : {"olmoe", "gpt_oss", "llama4", "longcat", "kimi_k3", "gshard"}) {
    expect_same<bf16>(family(name), {2, 4}, memory_mode::save, -1, 40);
    if (!small_scale()) expect_same<fp16>(family(name), {3}, memory_mode::recompute, 1, 50);
  }
}

TEST(Across, ThreadsAndInstructionsOfARankDoNotShow) {
  layer_case c = family("deepseek_v3");
  c.f.tokens = 40;
  layer_setup<float> const s(c);
  layer_run<float> whole(one, s, s.options());
  placed const p = placed_evenly(2, s.is.f.local());
  std::vector<int> const tokens{23, 17};
  for (on_host const& on : host_configs()) {
    rank_of_layer<float> a(s, p, tokens, 0), b(s, p, tokens, 1);
    on_threads(2, [&](rank_threads& x) {
      (x.rank() == 0 ? a : b).run(x, x.rank() == 0 ? on : one, s.options());
    });
    EXPECT_EQ(a.difference(whole) + b.difference(whole), "") << name_of(on);
  }
}

TEST(Across, BytesOnTheWireAreTheFormulas) {
  for (char const* name : {"mixtral", "llama4", "kimi_k3"}) {
    SCOPED_TRACE(name);
    layer_case c = family(name);
    c.f.tokens = 40;
    layer_setup<bf16> const s(c);
    placed const p = placed_evenly(3, s.is.f.local());
    std::vector<int> const tokens{20, 5, 15};
    for (memory_mode const memory : {memory_mode::save, memory_mode::recompute}) {
      auto o = s.options();
      o.memory = memory;
      std::vector<std::unique_ptr<rank_of_layer<bf16>>> parts;
      for (int r = 0; r < 3; ++r) {
        parts.push_back(std::make_unique<rank_of_layer<bf16>>(s, p, tokens, r));
      }
      on_threads(3, [&](rank_threads& x) { parts[std::size_t(x.rank())]->run(x, one, o); });
      offset_t sent = 0, received = 0, away = 0;
      for (int r = 0; r < 3; ++r) {
        auto& part = *parts[std::size_t(r)];
        ASSERT_TRUE(part.backward.ok()) << part.backward.message();
        sent += part.traffic.bytes_sent;
        received += part.traffic.bytes_received;
        auto const local = p.of(r);
        for (int i = 0; i < tokens[std::size_t(r)] * s.is.f.top_k; ++i) {
          index_t const id = part.saved.layer.choice.expert.data()[i];
          if (std::find(local.begin(), local.end(), id) == local.end()) ++away;
        }
      }
      offset_t const H = s.is.f.hidden, forward = 2 * H * 2,
                     again = memory == memory_mode::recompute ? H * 2 : 0,
                     backward = s.is.f.gate_on_input ? 2 * H * 2 : H * (2 + 4) + 8;
      EXPECT_GT(away, 0);
      EXPECT_EQ(sent, away * (forward + backward + again));
      EXPECT_EQ(received, sent);
    }
  }
}

TEST(Across, Battery06_ExpertsWithoutTokensGetZeroGradientsAndRanksWithoutTokensTakePart) {
  layer_case c = family("gpt_oss");
  c.f.tokens = 6;
  layer_setup<float> const s(c);
  std::vector<index_t> ids;
  for (int t = 0; t < 6; ++t) ids.insert(ids.end(), {5, 2, 3});
  guarded<index_t> const forced(ids);
  auto o = s.options();
  o.ids = forced.as(6, 3);
  layer_run<float> whole(one, s, o);
  placed const p = placed_evenly(3, 7);  // rank 2 has experts 5 and 6
  std::vector<int> const tokens{0, 6, 0};
  std::vector<std::unique_ptr<rank_of_layer<float>>> parts;
  for (int r = 0; r < 3; ++r) {
    parts.push_back(std::make_unique<rank_of_layer<float>>(s, p, tokens, r));
  }
  on_threads(3, [&](rank_threads& x) { parts[std::size_t(x.rank())]->run(x, one, o); });
  for (auto& part : parts) EXPECT_EQ(part->difference(whole), "");
  std::size_t const matrix = parts[2]->up.size() / 2;
  for (std::size_t i = 0; i < matrix; ++i) EXPECT_EQ(parts[2]->up[matrix + i], 0.0f);
}

TEST(Across, Battery02_GradientsOfCopiesAddUpToTheExperts) {
  layer_case c = family("mixtral");
  c.f.tokens = 40;
  layer_setup<float> const s(c);
  layer_run<float> whole(one, s, s.options());
  placed const p{.start = {0, 5, 10}, .expert = {0, 1, 2, 3, 4, 2, 3, 4, 5, 6}, .experts = 7};
  std::vector<int> const tokens{20, 20};
  rank_of_layer<float> a(s, p, tokens, 0), b(s, p, tokens, 1);
  on_threads(2, [&](rank_threads& x) { (x.rank() == 0 ? a : b).run(x, one, s.options()); });
  EXPECT_EQ(a.difference(whole) + b.difference(whole), "");
  std::size_t const matrix = a.down.size() / 5;
  double largest = 0.0, worst = 0.0;
  for (std::size_t i = 0; i < matrix; ++i) {  // expert 2: place 2 of rank 0, place 0 of rank 1
    double const sum = double(a.down[2 * matrix + i]) + double(b.down[i]);
    largest = std::max(largest, std::abs(sum));
    worst = std::max(worst, std::abs(sum - double(whole.d.down[2 * matrix + i])));
  }
  EXPECT_GT(largest, 0.1);
  EXPECT_LT(worst, 1e-5 * largest);
}

/// The largest difference of a sum over ranks from one process's gradient, in units of its largest value.
double distance(std::vector<double> const& sum, guarded<float> const& whole) {
  double largest = 0.0, worst = 0.0;
  for (std::size_t i = 0; i < sum.size(); ++i) {
    largest = std::max(largest, std::abs(double(whole[i])));
    worst = std::max(worst, std::abs(sum[i] - double(whole[i])));
  }
  EXPECT_GT(largest, 1e-2);
  return worst / largest;
}

TEST(Across, Battery03_TheRoutersGradientIsTheSumOfTheRanks) {
  for (char const* name : {"olmoe", "deepseek_v3", "llama4"}) {
    SCOPED_TRACE(name);
    layer_case c = family(name);
    c.f.tokens = 96;
    layer_setup<float> const s(c);
    layer_run<float> whole(one, s, s.options());
    placed const p = placed_evenly(3, s.is.f.local());
    std::vector<int> const tokens{32, 0, 64};
    std::vector<std::unique_ptr<rank_of_layer<float>>> parts;
    for (int r = 0; r < 3; ++r) {
      parts.push_back(std::make_unique<rank_of_layer<float>>(s, p, tokens, r));
    }
    on_threads(3, [&](rank_threads& x) { parts[std::size_t(x.rank())]->run(x, one, s.options()); });
    std::vector<double> gate(whole.d.gate.size(), 0.0);
    for (auto const& part : parts) {
      for (std::size_t i = 0; i < gate.size(); ++i) gate[i] += double(part->gate[i]);
    }
    EXPECT_LT(distance(gate, whole.d.gate), 2e-6);
  }
}

TEST(Across, Battery04_PaddingWithNanGoesNowhere) {
  layer_case c = family("gpt_oss");
  c.f.tokens = 24;
  layer_setup<float> s(c);
  std::vector<std::uint8_t> mask(24, 1);
  for (std::size_t t = 0; t < 24; t += 3) {
    mask[t] = 0;
    for (std::size_t h = 0; h < std::size_t(c.f.width); ++h) {
      s.x[t * std::size_t(c.f.width) + h] = s.d_y[t * std::size_t(c.f.width) + h] =
          untouched<float>();
    }
  }
  s.set_valid(mask);
  layer_run<float> whole(one, s, s.options());
  ASSERT_TRUE(whole.backward.ok()) << whole.backward.message();
  placed const p = placed_at_random(3, 7, 2, 9);
  std::vector<int> const tokens{1, 11, 12};  // rank 0 has padding alone
  on_threads(3, [&](rank_threads& x) {
    rank_of_layer<float> part(s, p, tokens, x.rank());
    part.run(x, one, s.options());
    EXPECT_EQ(part.difference(whole), "");
    for (float v : part.y) EXPECT_FALSE(std::isnan(v));
    for (float v : part.up) EXPECT_FALSE(std::isnan(v));
  });
}

TEST(Across, InferenceKeepsNothingAndGivesTheSameBits) {
  layer_case c = family("kimi_k3");
  c.f.tokens = 21;
  layer_setup<float> const s(c);
  layer_run<float> whole(one, s, s.options(), false);
  placed const p = placed_at_random(3, s.is.f.local(), 2, 5);
  std::vector<int> const tokens{9, 0, 12};
  on_threads(3, [&](rank_threads& x) {
    rank_of_layer<float> part(s, p, tokens, x.rank());
    part.run(x, one, s.options(), false);
    ASSERT_TRUE(part.forward.ok()) << part.forward.message();
    EXPECT_EQ(std::memcmp(part.y.data(), whole.y.data() + part.first_token() * s.is.f.width,
                          part.y.size() * sizeof(float)),
              0);
  });
}

TEST(Across, ALoadGathersOverMicroBatches) {
  layer_case c = family("olmoe");
  c.f.tokens = 64;
  layer_setup<float> const s(c);
  auto o = s.options();
  o.route.accumulate = true;
  guarded<index_t> counts(std::vector<index_t>(7, 0)), total(std::vector<index_t>(1, 0));
  guarded<float> importance(std::vector<float>(7, 0.0f));
  moe_outputs<float> out;
  out.route.counts = counts.as(7);
  out.route.importance = importance.as(7);
  out.route.tokens = total.as(1);
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(layer_run<float>(one, s, o, true, out).forward.ok());
  placed const p = placed_evenly(2, 7);
  std::vector<int> const tokens{32, 32};
  on_threads(2, [&](rank_threads& x) {
    rank_of_layer<float> part(s, p, tokens, x.rank());
    std::fill(part.counts.begin(), part.counts.end(), 0);
    std::fill(part.importance.begin(), part.importance.end(), 0.0f);
    part.total[0] = 0;
    for (int i = 0; i < 2; ++i) part.run(x, one, o, true, true);
    ASSERT_TRUE(part.backward.ok()) << part.forward.message() << part.backward.message();
    EXPECT_TRUE(same_bits(part.counts, counts));
    EXPECT_TRUE(same_bits(part.importance, importance));
    EXPECT_EQ(part.total[0], 128);
  });
}

}  // namespace across_layer_test
}  // namespace shunt::test
