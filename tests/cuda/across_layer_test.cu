// The layer across ranks on a device, over NCCL in software: the bits of one process, for any number of ranks.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "support/device_across.hpp"
#include "support/nccl_ranks.hpp"

namespace shunt::test {
namespace across_layer_test {

template <class T> using ranks_of = std::vector<std::unique_ptr<device_rank_of_layer<T>>>;

template <class T>
ranks_of<T> run_ranks(layer_setup<T> const& s, placed const& p, std::vector<int> const& tokens,
                      layer_options<activation> const& o, call_form form = call_form::whole,
                      arithmetic products = arithmetic::best, bool train = true) {
  int const ranks = p.ranks();
  ranks_of<T> parts;
  for (int r = 0; r < ranks; ++r) {
    parts.push_back(std::make_unique<device_rank_of_layer<T>>(s, p, tokens, r));
  }
  on_nccl(ranks, 7, [&](over_nccl& x, cudaStream_t stream) {
    parts[std::size_t(x.rank())]->run_on_device(x, {stream, products}, o, form, train);
  });
  return parts;
}

/// Blocks of tokens by rank. With a balance loss they are those of the router's sums, 32 tokens.
std::vector<int> blocks_of_tokens(layer_case const& c, int ranks, std::uint64_t seed) {
  if (c.f.balance == 0.0) return tokens_by_rank(ranks, c.f.tokens, false, seed);
  std::vector<int> count = tokens_by_rank(ranks, c.f.tokens / 32, false, seed);
  for (int& n : count) n *= 32;
  count.back() += c.f.tokens % 32;
  return count;
}

template <class T>
void expect_same(layer_case c, int ranks, memory_mode memory, int copies, std::uint64_t seed,
                 call_form form = call_form::whole) {
  SCOPED_TRACE(std::string(c.name) + " on " + std::to_string(ranks));
  if (c.taken > 0) return;  // experts choose: refused
  c.f.tokens = c.f.balance > 0 ? 83 : c.f.tokens > 1 ? 29 : 1;
  layer_setup<T> const s(c);
  auto o = s.options();
  o.memory = memory;
  guarded<index_t> counts(std::size_t(c.f.experts)), wanted(std::size_t(s.is.f.local())),
      kept(std::size_t(s.is.f.local())), total(1);
  guarded<float> loss(2), importance(std::size_t(c.f.experts));
  moe_outputs<T> out;
  out.route.counts = counts.as(c.f.experts);
  out.route.tokens = total.as(1);
  out.route.importance = importance.as(c.f.experts);
  out.plan.wanted = wanted.as(s.is.f.local());
  out.plan.kept = kept.as(s.is.f.local());
  out.loss = loss.as(2);
  layer_run<T> whole(on_host{.threads = 1}, s, o, true, out);
  ASSERT_TRUE(whole.backward.ok()) << whole.forward.message() << whole.backward.message();
  placed const p = ranks == 1    ? placed_evenly(1, s.is.f.local())
                   : copies >= 0 ? placed_at_random(ranks, s.is.f.local(), copies, ++seed)
                                 : placed_evenly(ranks, s.is.f.local());
  auto const parts = run_ranks(s, p, blocks_of_tokens(c, ranks, seed), o, form, arithmetic::exact);
  for (int r = 0; r < ranks; ++r) {
    auto& part = *parts[std::size_t(r)];
    EXPECT_EQ(part.difference(whole), "") << "rank " << r;
    EXPECT_TRUE(same_bits(part.counts, counts)) << "rank " << r;
    EXPECT_EQ(part.total[0], total[0]) << "rank " << r;
    for (std::size_t i = 0; i < part.own_experts().size(); ++i) {
      auto const e = std::size_t(part.own_experts()[i]);
      EXPECT_EQ(part.wanted[i], wanted[e]);
      if (part.copies_of(part.own_experts()[i]) == 1) { EXPECT_EQ(part.kept[i], kept[e]); }
    }
    if (c.f.balance > 0) {
      EXPECT_TRUE(same_bits(part.importance, importance)) << "rank " << r;
      EXPECT_EQ(std::memcmp(&part.loss[0], &loss[0], sizeof(float)), 0);
    }
    if (c.f.z > 0) { EXPECT_NEAR(part.loss[1], loss[1], 1e-5f * loss[1]); }
  }
}

TEST(CudaAcross, Battery01_EveryFamilyHasTheBitsOfOneProcess) {
  std::uint64_t seed = 3;
  for (char const* name : {"switch", "gshard", "olmoe", "qwen_shared_gate", "deepseek_v3",
                           "gpt_oss", "llama4", "longcat", "kimi_k3", "deepseek_v4_hash"}) {
    ++seed;
    expect_same<float>(family(name), 2 + static_cast<int>(seed % 2), memory_mode::save, -1, seed);
  }
  expect_same<float>(family("deepseek_v3"), 1, memory_mode::save, -1, 1);
}

TEST(CudaAcross, Battery12_CopiesAndRecomputingDoNotChangeABit) {
  for (char const* name : {"gshard", "llama4", "kimi_k3", "gpt_oss"}) {
    expect_same<float>(family(name), 3, memory_mode::recompute, 4, 50);
  }
}

// Nothing waits on the host but the caller, between begin and finish.
TEST(CudaAcross, Battery10_TheWaitMayBeTheCallersOwn) {
  for (char const* name : {"switch", "longcat"}) {
    expect_same<float>(family(name), 3, memory_mode::save, 2, 80, call_form::parts);
  }
}

TEST(CudaAcross, HalvesHaveTheBitsOfOneProcessToo) {
  expect_same<bf16>(family("gpt_oss"), 2, memory_mode::save, -1, 40);
  // On tensor cores, beside one rank on tensor cores.
  layer_case c = family("deepseek_v3");
  c.f.tokens = 90;
  layer_setup<bf16> const s(c);
  std::vector<int> const all{90}, tokens{13, 0, 77};
  placed const one = placed_evenly(1, s.is.f.local()),
               p = placed_at_random(3, s.is.f.local(), 0, 4);
  auto const whole = run_ranks(s, one, all, s.options());
  auto const parts = run_ranks(s, p, tokens, s.options());
  ASSERT_TRUE(whole[0]->backward.ok()) << whole[0]->backward.message();
  for (auto const& part : parts) {
    ASSERT_TRUE(part->backward.ok()) << part->forward.message() << part->backward.message();
    std::size_t const at = std::size_t(part->first_token() * s.is.f.width);
    auto const same = [](auto const& mine, auto const& theirs, std::size_t from) {
      return mine.size() == 0 ||
             std::memcmp(mine.data(), theirs.data() + from, mine.size() * sizeof(mine[0])) == 0;
    };
    EXPECT_TRUE(same(part->y, whole[0]->y, at));
    EXPECT_TRUE(same(part->d_x, whole[0]->d_x, at));
    std::size_t const L = part->own_experts().size();
    for (std::size_t i = 0; i < L; ++i) {
      std::size_t const each = part->up.size() / L, e = std::size_t(part->own_experts()[i]);
      EXPECT_EQ(std::memcmp(part->up.data() + i * each, whole[0]->up.data() + e * each,
                            each * sizeof(float)),
                0)
          << "expert " << e;
    }
  }
}

// Counts of more experts than fit beside the header come in a second gather.
TEST(CudaAcross, MoreExpertsThanFitBesideTheHeader) {
  layer_case c = family("mixtral");
  c.f.experts = 430;
  expect_same<float>(c, 2, memory_mode::save, -1, 9);
}

TEST(CudaAcross, InferenceKeepsNothingAndGivesTheSameBits) {
  layer_case c = family("kimi_k3");
  c.f.tokens = 21;
  layer_setup<float> const s(c);
  layer_run<float> whole(on_host{.threads = 1}, s, s.options(), false);
  auto const parts = run_ranks(s, placed_at_random(3, s.is.f.local(), 2, 5), {9, 0, 12},
                               s.options(), call_form::whole, arithmetic::best, false);
  for (auto const& part : parts) {
    ASSERT_TRUE(part->forward.ok()) << part->forward.message();
    EXPECT_EQ(std::memcmp(part->y.data(), whole.y.data() + part->first_token() * s.is.f.width,
                          part->y.size() * sizeof(float)),
              0);
  }
}

TEST(CudaAcross, BytesOnTheWireAreTheFormulas) {
  layer_case c = family("mixtral");
  c.f.tokens = 40;
  layer_setup<bf16> const s(c);
  placed const p = placed_evenly(3, s.is.f.local());
  std::vector<int> const tokens{20, 5, 15};
  auto const parts = run_ranks(s, p, tokens, s.options());
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
  offset_t const H = s.is.f.hidden;
  EXPECT_GT(away, 0);
  EXPECT_EQ(sent, away * (2 * H * 2 + H * (2 + 4) + 8));
  EXPECT_EQ(received, sent);
}

// One rank's error is the same sentence on all, after one round, and nothing is written.
TEST(CudaAcross, AWrongArgumentOfOneRankIsTheSameSentenceOnAll) {
  layer_case c = family("mixtral");
  c.f.tokens = 12;
  layer_setup<float> const s(c);
  placed const p = placed_evenly(3, s.is.f.local());
  std::vector<int> const tokens{4, 4, 4};
  auto const expect = [&](char const* sentence, auto const& change, bool no_memory = false) {
    SCOPED_TRACE(sentence);
    std::string said[3];
    on_nccl(3, 21, [&](over_nccl& x, cudaStream_t stream) {
      device_rank_of_layer<float> part(s, p, tokens, x.rank());
      auto o = s.options();
      if (x.rank() == 1) change(o);
      on_cuda const on{stream};
      part.without_memory = no_memory && x.rank() == 1;
      part.run_on_device(x, on, o);
      said[x.rank()] = part.forward.message();
      EXPECT_EQ(part.traffic.rounds, 1);
      EXPECT_EQ(part.traffic.rows_sent, 0);
      EXPECT_TRUE(part.untouched_on_device);
    });
    for (std::string const& one : said) {
      EXPECT_EQ(one.substr(0, std::strlen(sentence)), sentence);
      EXPECT_EQ(one, said[1]);
    }
  };
  expect("moe_layer_across.options.top_k: rank 1 has 1 and rank 0 2; all ranks must have the same",
         [](auto& o) { o.top_k = 1; });
  expect(
      "rank 1: moe_layer_across.options: first_expert is 2 and zero_experts_here true; they must "
      "be 0 and true: the placement says what lives where",
      [](auto& o) { o.first_expert = 2; });
  expect("rank 1: moe_layer_across.work: the arena has 0 bytes; it must have ", [](auto&) {}, true);
}

}  // namespace across_layer_test
}  // namespace shunt::test
