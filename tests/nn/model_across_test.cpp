// A model on ranks against the same model in one process: losses, counts, norms, gradients, moments and weights,
// bit by bit; and what all ranks refuse together.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "support/expect_error.hpp"
#include "support/model_ranks.hpp"

namespace shunt::test {
namespace nn_model_across_test {

using namespace model_ranks;

template <class T> void expect_same(task const& t, placed const& where, blocks const& sequences) {
  on_host const on{.threads = 1};
  auto const want = in_one_process<T>(on, t);
  // The oracle is not flat: gradients are clipped, and the weights moved.
  ASSERT_GT(want.norms[0], 0.5f);
  auto const from = first_weights(t);
  ASSERT_NE(std::memcmp(want.weights.data(), from.data(), from.size() * sizeof(float)), 0);
  on_threads(where.ranks(), [&](rank_threads& x) {
    auto const got = on_rank<T>(x, on, t, where.view_of(), sequences);
    EXPECT_EQ(difference(want, got, t, where.view_of(), x.rank()), "") << "rank " << x.rank();
  });
}

TEST(ModelAcross, EveryVariantHasTheBitsOfOneProcess) {
  for (auto const& [name, config] : model_case::variants()) {
    for (int const ranks : config.layers == 1 ? std::vector{1, 2} : std::vector{3}) {
      SCOPED_TRACE(std::string(name) + " on " + std::to_string(ranks));
      task const t{.config = config, .bias = ranks == 3 && !config.tied_head};
      expect_same<float>(t, placed_evenly(ranks, config.experts), even_blocks(ranks, t.batch));
    }
  }
}

TEST(ModelAcross, HalfTypes) {
  auto config = model_case::small(false);
  config.shared_intermediate = 5;
  task const t{.config = config, .steps = 2};
  expect_same<bf16>(t, placed_evenly(2, config.experts), even_blocks(2, t.batch));
  expect_same<fp16>(t, placed_evenly(2, config.experts), even_blocks(2, t.batch));
}

// More than one piece of the norm and of the head, ranks without tokens or experts, micro-batches.
TEST(ModelAcross, UnevenRanksRandomPlacementsAndMicroBatches) {
  auto config = model_case::small(false);
  config.intermediate = 32;
  config.experts = 9;
  config.top_k = 3;
  config.vocabulary = 40;
  task const t{.config = config, .batch = 7, .length = 48, .steps = 2, .micro = 2};
  expect_same<float>(t, placed_at_random(3, 9, 0, 1), {0, 1, 7, 7});
  expect_same<float>(t, placed_at_random(4, 9, 0, 2), {0, 0, 3, 4, 7});
  placed last = placed_evenly(2, 9);
  last.start = {0, 0, 9};
  expect_same<float>(t, last, {0, 6, 7});
}

TEST(ModelAcross, InitialWeightsAreThoseOfOneProcess) {
  auto config = model_case::small(false);
  auto const count = static_cast<std::size_t>(nn::parameter_count(config));
  guarded<float> whole(count);
  ASSERT_TRUE(nn::model_init(on_host{}, config, whole.as(count), 9).ok());
  placed const p = placed_at_random(3, config.experts, 0, 4);
  on_threads(3, [&](rank_threads& x) {
    among_ranks<rank_threads> const among{.transport = x, .placement = p.view_of()};
    auto const own = static_cast<std::size_t>(
        nn::parameter_count(nn::config_of_rank(config, p.view_of(), x.rank())));
    guarded<float> part(own);
    status const done = nn::model_init_across(on_host{}, among, config, part.as(own), 9);
    ASSERT_TRUE(done.ok()) << done.message();
    offset_t seen = 0;
    nn::for_each_run(config, p.view_of(), x.rank(), [&](nn::rank_run const& run) {
      if (run.owner >= 0 && run.owner != x.rank()) return;
      seen += run.count;
      for (offset_t i = 0; i < run.count; ++i) {
        ASSERT_EQ(part[std::size_t(run.here + i)], whole[std::size_t(run.in_whole + i)])
            << run.whole.name << " " << i;
      }
    });
    EXPECT_EQ(seen, offset_t(own));
  });
}

/// What the ranks return where `spoil` has its way with one of them.
template <class Spoil> std::vector<std::string> refusals(Spoil const& spoil) {
  task const t{.config = model_case::small(false), .batch = 3};
  placed const p = placed_evenly(3, t.config.experts);
  std::vector<std::string> said(3);
  on_threads(3, [&](rank_threads& x) {
    on_host const on{.threads = 1};
    task mine = t;
    among_ranks<rank_threads> among{
        .transport = x, .placement = p.view_of(), .most_tokens = t.length};
    auto const count = static_cast<std::size_t>(
        nn::parameter_count(nn::config_of_rank(t.config, p.view_of(), x.rank())));
    model_memory<float> m(t, count);
    std::fill(m.weights.begin(), m.weights.end(), 0.25f);
    m.round();
    std::size_t bytes =
        nn::model_train_across_scratch_bytes<float>(on, among, t.config, 1, t.length);
    guarded<index_t> tokens = tokens_of_call(t, 0);
    if (x.rank() == 1) spoil(mine, among, tokens, bytes);
    guarded<std::byte> work(bytes);
    index_t const batch = x.rank() == 1 && mine.batch == 2 ? 2 : 1;
    status const s = nn::model_train_across<float>(
        on, among, mine.config, m.used(t),
        view<index_t const, 2>(tokens.data(), {{batch, t.length + 1}}), m.gradients.as(count),
        m.report(t), arena<>(work));
    said[std::size_t(x.rank())] = s.message();
    EXPECT_TRUE(std::isnan(m.loss[0]));
    EXPECT_TRUE(std::isnan(m.gradients[0]));
  });
  return said;
}

TEST(ModelAcross, AllRanksRefuseTogether) {
  auto const expect = [](std::vector<std::string> const& said, std::string const& part) {
    for (std::string const& s : said) {
      EXPECT_NE(s.find(part), std::string::npos) << s;
      EXPECT_EQ(s, said[0]);
    }
  };
  using among_type = among_ranks<rank_threads>;
  expect(
      refusals([](task&, among_type&, guarded<index_t>& tokens, std::size_t&) { tokens[2] = 13; }),
      "rank 1: model_train_across.tokens: entry 0, 2 is 13; it must be below 13");
  expect(
      refusals([](task& t, among_type&, guarded<index_t>&, std::size_t&) { t.config.z_loss = 0; }),
      "model_train_across.model_config (as one number): rank 1 has ");
  expect(refusals([](task&, among_type&, guarded<index_t>&, std::size_t& bytes) { bytes = 8000; }),
         "rank 1: model_train_across.work: the arena has 8000 bytes; it must have ");
  expect(refusals([](task&, among_type& a, guarded<index_t>&, std::size_t&) { a.placement = {}; }),
         "rank 1: model_train_across.placement.start: extent 0 is 0; it must be 4 (ranks + 1)");
  expect(refusals([](task& t, among_type&, guarded<index_t>&, std::size_t& bytes) {
           t.batch = 2;
           bytes = 1 << 20;
         }),
         "model_train_across: a rank has 16 tokens; rank 0 has memory for 8 of each");
}

TEST(ModelAcross, OneProcessRefusesPartsOfAModel) {
  auto config = model_case::small(false);
  config.experts_here = 2;
  auto const count = static_cast<std::size_t>(nn::parameter_count(config));
  guarded<float> w(count);
  expect_error(nn::model_init(on_host{}, config, w.as(count), 1), error::bad_argument,
               "model_init: model_config.experts_here is 2; it must be -1 or 5 (experts): see "
               "nn/model_across.hpp");
}

}  // namespace nn_model_across_test
}  // namespace shunt::test
