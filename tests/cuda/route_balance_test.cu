// Losses, bias steps and the statistics of the load on a device: the host's bits.
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "shunt/route.cuh"
#include "shunt/stats.cuh"
#include "support/device_graph.hpp"
#include "support/device_plan.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace route_balance_test {

constexpr float inf = std::numeric_limits<float>::infinity(),
                nan = std::numeric_limits<float>::quiet_NaN();

/// Counts below `most`, a fifth of them 0.
std::vector<index_t> counts_of(offset_t n, std::uint64_t seed, std::int64_t most = 5000) {
  rng d(seed);
  std::vector<index_t> v(static_cast<std::size_t>(n));
  for (index_t& x : v) x = d.below(5) == 0 ? 0 : static_cast<index_t>(d.below(most));
  return v;
}
std::vector<float> shares_of(offset_t n, std::uint64_t seed) {
  rng d(seed);
  std::vector<float> v(static_cast<std::size_t>(n));
  for (float& x : v) x = static_cast<float>(d.uniform(0.0, 90.0));
  return v;
}

/// What route() would have summed over N sequences of some tokens, and what losses write.
struct load_case {
  offset_t sequences, experts;
  twin<index_t> counts, tokens;
  twin<float> importance, loss, d;

  load_case(offset_t n, offset_t e, std::uint64_t seed)
      : sequences(n),
        experts(e),
        counts(counts_of(n * e, seed)),
        tokens(counts_of(n, seed + 1)),
        importance(shares_of(n * e, seed + 2)),
        loss({0.25f}),
        d(values<float>(n * e, seed + 3)) {}

  template <execution P> routing<P::memory> load(P const& on) {
    routing<P::memory> r;
    if (sequences == 1) {
      r.counts = counts.of(on, experts);
      r.importance = importance.of(on, experts);
      r.tokens = tokens.of(on, 1);
    }
    r.sequence_counts = counts.of(on, sequences, experts);
    r.sequence_importance = importance.of(on, sequences, experts);
    r.sequence_tokens = tokens.of(on, sequences);
    return r;
  }
  void expect_same(char const* what) {
    EXPECT_TRUE(loss.same()) << what;
    EXPECT_TRUE(d.same()) << what << "'s gradient";
  }
  template <execution P> status sequence_loss(P const& on, loss_options const& o) {
    return sequence_balance_loss(on, load(on), loss.of(on, 1), d.of(on, sequences, experts), o);
  }
  void every_loss() {
    for (bool accumulate : {false, true}) {
      on_both_policies([&](auto on) {
        return sequence_loss(on, {.coefficient = 0.3f, .accumulate = accumulate});
      });
      expect_same("sequence_balance_loss");
      if (sequences != 1) continue;
      on_both_policies([&](auto on) {
        return balance_loss(on, load(on), loss.of(on, 1), d.of(on, experts),
                            {.coefficient = 0.7f, .accumulate = accumulate});
      });
      expect_same("balance_loss");
      for (auto by : {band_load::probability, band_load::counts}) {
        on_both_policies([&](auto on) {
          return band_loss(on, load(on), loss.of(on, 1), d.of(on, experts),
                           {.low = 0.8f, .high = 1.1f, .load = by, .accumulate = accumulate});
        });
        expect_same("band_loss");
      }
    }
  }
};

TEST(CudaRouteLosses, Battery19_AnyExpertsAndSequences) {
  for (index_t experts : expert_counts) {
    SCOPED_TRACE(experts);
    load_case(1, experts, 1).every_loss();
  }
  for (offset_t sequences : {2, 31, 32, 33, 1100}) {
    SCOPED_TRACE(sequences);
    load_case(sequences, 12, 5).every_loss();
  }
}

TEST(CudaRouteLosses, Battery01_NoTokensAndNoSlots) {
  for (bool tokens : {false, true}) {
    load_case q(1, 40, 1);
    q.tokens.fill({tokens ? 9 : 0});
    q.counts.fill(std::vector<index_t>(40, 0));
    q.every_loss();
  }
  load_case q(3, 7, 2);
  q.tokens.fill({0, 0, 0});
  q.every_loss();
}

TEST(CudaRouteLosses, ZOfAnyBatch) {
  for (offset_t tokens : {0, 1, 31, 33, 1000, 4099}) {
    for (index_t counted : {0, 900}) {
      twin<float> z(values<float>(tokens, 3)), loss({0.5f}), d(values<float>(tokens, 4));
      twin<index_t> total({counted});
      for (bool accumulate : {false, true}) {
        on_both_policies([&](auto on) {
          routing<decltype(on)::memory> load;
          load.z = z.of(on, tokens);
          load.tokens = total.of(on, 1);
          return z_loss(on, load, loss.of(on, 1), d.of(on, tokens),
                        {.coefficient = 0.01f, .accumulate = accumulate});
        });
        EXPECT_TRUE(loss.same()) << tokens;
        EXPECT_TRUE(d.same()) << tokens;
      }
    }
  }
}

TEST(CudaRouteBias, SignSteps) {
  for (index_t experts : expert_counts) {
    twin<index_t> counts(counts_of(experts, 1, std::int64_t{1} << 31));
    twin<float> bias(values<float>(experts, 2));
    on_both_policies([&](auto on) {
      return sign_step(on, counts.of(on, experts), bias.of(on, experts), 0.01f);
    });
    EXPECT_TRUE(bias.same()) << experts;
  }
  twin<index_t> even(std::vector<index_t>(6, 5));
  twin<float> bias(values<float>(6, 2));
  on_both_policies([&](auto on) { return sign_step(on, even.of(on, 6), bias.of(on, 6)); });
  EXPECT_TRUE(same_values(bias.host, values<float>(6, 2)));
  EXPECT_TRUE(bias.same());
}

TEST(CudaRouteBias, QuantileSteps) {
  for (auto [experts, bins, top_k] : {std::array<offset_t, 3>{1, 1, 1},
                                      {5, 1, 2},
                                      {8, 1000, 2},
                                      {33, 31, 33},
                                      {70, 100, 1},
                                      {130, 65, 8}}) {
    SCOPED_TRACE(experts);
    auto entries = counts_of(experts * bins, 7, 40);
    std::fill(entries.begin(), entries.begin() + bins, 0);  // an expert without entries
    twin<index_t> histogram(std::move(entries));
    auto b = values<float>(experts, 8);
    if (experts > 4) b[1] = inf, b[2] = -inf, b[3] = nan;
    twin<float> bias(b);
    on_both_policies([&](auto on) {
      return quantile_step(on, histogram.of(on, experts, bins), bias.of(on, experts),
                           static_cast<index_t>(top_k));
    });
    EXPECT_TRUE(bias.same());
    for (float& x : b) x = nan;
    bias.fill(b);
    on_both_policies([&](auto on) {
      return quantile_step(on, histogram.of(on, experts, bins), bias.of(on, experts), 1);
    });
    EXPECT_TRUE(bias.same());
  }
}

/// A step of balancing, replayed with other loads.
TEST(CudaRouteBias, CapturedWithTheLossesAndReplayed) {
  load_case q(1, 60, 1);
  twin<index_t> histogram(counts_of(60 * 50, 2));
  twin<float> bias(values<float>(60, 3)), z(values<float>(200, 4)), d_z(values<float>(200, 5));
  twin<load_figures> figures(std::vector<load_figures>(1));
  twin<std::int64_t> total(std::vector<std::int64_t>(60, 7));
  auto const enqueue = [&](auto on) {
    auto load = q.load(on);
    load.z = z.of(on, 200);
    status done = balance_loss(on, load, q.loss.of(on, 1), q.d.of(on, 60));
    if (done.ok()) {
      done = band_loss(on, load, q.loss.of(on, 1), q.d.of(on, 60), {.accumulate = true});
    }
    if (done.ok()) done = z_loss(on, load, q.loss.of(on, 1), d_z.of(on, 200), {.accumulate = true});
    if (done.ok()) done = sign_step(on, load.counts, bias.of(on, 60));
    if (done.ok()) done = quantile_step(on, histogram.of(on, 60, 50), bias.of(on, 60), 6);
    if (done.ok()) done = load_stats(on, load.counts, {.figures = figures.of(on, 1)});
    return done.ok() ? add_load(on, load.counts, total.of(on, 60)) : done;
  };
  captured graph(enqueue);
  for (std::uint64_t seed : {11, 12}) {
    q.counts.fill(counts_of(60, seed));
    q.tokens.fill({static_cast<index_t>(seed)});
    z.fill(values<float>(200, seed));
    histogram.fill(counts_of(60 * 50, seed + 1));
    graph.replay();
    ASSERT_TRUE(enqueue(on_host{}).ok());
    q.expect_same("the losses together");
    EXPECT_TRUE(d_z.same());
    EXPECT_TRUE(bias.same());
    EXPECT_TRUE(figures.same());
    EXPECT_TRUE(total.same());
  }
}

TEST(CudaRouteBias, RefusesBeforeAnythingIsEnqueued) {
  on_device<index_t> const counts(std::vector<index_t>(6, 1));
  on_device<float> const bias(std::vector<float>(6, 0.5f));
  on_cuda const on;
  EXPECT_EQ(sign_step(on, counts.as(6), bias.as(5)).code(), error::bad_shape);
  EXPECT_EQ(sign_step(on, counts.as(6), bias.as(6), nan).code(), error::bad_argument);
  EXPECT_EQ(quantile_step(on, counts.as(3, 2), bias.as(3), 4).code(), error::bad_argument);
  routing<space::device> load;
  load.counts = counts.as(6);
  EXPECT_EQ(balance_loss(on, load, bias.as(1), bias.as(6)).code(), error::null_pointer);
  EXPECT_EQ(load_stats(on, counts.as(6), {}).code(), error::bad_shape);
  EXPECT_TRUE(same_values(bias.host(), std::vector<float>(6, 0.5f)));
}

/// Figures and shares of one load.
template <class Count> struct figures_case {
  offset_t experts;
  twin<Count> counts;
  twin<load_figures> figures;
  twin<float> share;
  explicit figures_case(std::vector<Count> from)
      : experts(static_cast<offset_t>(from.size())),
        counts(std::move(from)),
        figures(std::vector<load_figures>(1)),
        share(values<float>(experts, 2)) {}
  void expect_same() {
    on_both_policies([&](auto on) {
      return load_stats(on, counts.of(on, experts),
                        {.figures = figures.of(on, 1), .share = share.of(on, experts)});
    });
    EXPECT_TRUE(figures.same());
    EXPECT_TRUE(share.same());
    on_both_policies([&](auto on) {
      return load_stats(on, counts.of(on, experts), {.figures = figures.of(on, 1)});
    });
    EXPECT_TRUE(figures.same());
  }
};

TEST(CudaStats, Battery19And20_EveryExpertCountAndSpread) {
  for (index_t experts : expert_counts) {
    SCOPED_TRACE(experts);
    figures_case(counts_of(experts, 3)).expect_same();
    for (double spread : {0.01, 1.0, 8.0}) {
      rng d(4);
      std::vector<std::int64_t> wide;
      for (index_t e = 0; e < experts; ++e) {
        wide.push_back(static_cast<std::int64_t>(std::exp(spread * d.normal()) * 5e6));
      }
      figures_case(wide).expect_same();
    }
  }
  figures_case(std::vector<index_t>{3, -5, 7}).expect_same();
  figures_case(std::vector<index_t>{0, 0, 0, 1000}).expect_same();
  figures_case(std::vector<std::int64_t>{std::int64_t{5} << 33, 1, std::int64_t{1} << 34, 0})
      .expect_same();
}

TEST(CudaStats, Battery01_NoLoadIsUniform) {
  for (std::size_t experts : {0u, 1u, 5u, 33u}) {
    figures_case(std::vector<index_t>(experts, 0)).expect_same();
  }
}

TEST(CudaStats, PlansAndReports) {
  constexpr shape s{.tokens = 101, .hidden = 1, .experts = 40, .top_k = 3};
  twin<plan_counts> totals(std::vector<plan_counts>(1));
  twin<std::int64_t> events(values<std::int64_t>(route_events, 5));
  plan_fixture host = plan_of(
      {}, s, chosen_experts(s, skew::zipf, 2),
      {.capacity = 40, .segment_multiple = 16, .report = {.totals = totals.of(on_host{}, 1)}}, 5);
  totals.device.fill(totals.host);
  device_plan_fixture const device(s, host);
  twin<load_figures> figures(std::vector<load_figures>(1));
  twin<float> share(values<float>(40, 6));
  auto const plan = [&](auto on) {
    if constexpr (decltype(on)::memory == space::host) {
      return host.plan;
    } else {
      return device.plan;
    }
  };
  on_both_policies([&](auto on) {
    return load_stats(on, plan(on), {.figures = figures.of(on, 1), .share = share.of(on, 40)},
                      {.plan = totals.of(on, 1), .route = events.of(on, route_events)});
  });
  EXPECT_GT(figures.host[0].dropped, 0);
  EXPECT_TRUE(figures.same());
  EXPECT_TRUE(share.same());
}

TEST(CudaStats, LoadGathersOverBatches) {
  twin<index_t> counts(counts_of(700, 3, std::numeric_limits<index_t>::max()));
  twin<std::int64_t> total(values<std::int64_t>(700, 4));
  for (std::int64_t& n : total.host) n >>= 2;
  total.device.fill(total.host);
  for (int i = 0; i < 3; ++i) {
    on_both_policies([&](auto on) { return add_load(on, counts.of(on, 700), total.of(on, 700)); });
  }
  EXPECT_TRUE(total.same());
}

}  // namespace route_balance_test
}  // namespace shunt::test
