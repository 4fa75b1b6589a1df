#include "shunt/stats.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "support/expect_error.hpp"
#include "support/guarded.hpp"
#include "support/host_configs.hpp"
#include "support/oracle_stats.hpp"
#include "support/plan_fixture.hpp"
#include "support/random.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace stats_test {

using loads = std::vector<std::int64_t>;

template <class Count>
load_figures figures_of(on_host const& on, guarded<Count> const& counts,
                        load_events<> const& events = {}) {
  guarded<load_figures> out(1);
  guarded<float> share(counts.size());
  status const done = load_stats(on, counts.as(counts.size()),
                                 {.figures = out.as(1), .share = share.as(counts.size())}, events);
  EXPECT_TRUE(done.ok()) << done.message();
  double total = 0;
  for (float p : share) total += double(p);
  if (!share.as(share.size()).empty()) { EXPECT_NEAR(total, 1.0, 1e-5); }
  return out[0];
}

void expect_close(load_figures const& f, oracle::load_answer const& want, double experts) {
  double const unit = 0x1p-24;
  EXPECT_EQ(f.slots, want.slots);
  EXPECT_EQ(f.experts, experts);
  EXPECT_NEAR(f.utilization, want.utilization, unit * want.utilization);
  EXPECT_NEAR(f.active_fraction, want.active_fraction, unit);
  EXPECT_NEAR(f.max_violation, want.max_violation, 4 * unit * want.max_violation + 1e-15);
  // Sums of terms of one sign: a handful of roundings a term, and the depth of the summation.
  double const roundings = 8 + experts / 32 + 5;
  EXPECT_NEAR(f.entropy, want.entropy, roundings * unit * (want.entropy + 1e-3));
  EXPECT_NEAR(f.jsd, want.jsd, roundings * unit * want.jsd + 1e-12);
}

/// The same bits on every instruction set, close to the oracle.
void expect_load(loads const& count) {
  oracle::load_answer const want = oracle::load(count);
  guarded<std::int64_t> const wide(count);
  load_figures const first = figures_of(on_host{.instructions = isa::portable}, wide);
  expect_close(first, want, static_cast<double>(count.size()));
  for (on_host const& on : host_configs()) {
    load_figures const f = figures_of(on, wide);
    EXPECT_EQ(std::memcmp(&f, &first, sizeof f), 0) << name_of(on);
  }
}

loads random_load(index_t experts, double spread, std::uint64_t seed) {
  rng d(seed);
  loads count;
  for (index_t e = 0; e < experts; ++e) {
    count.push_back(static_cast<std::int64_t>(std::exp(spread * d.normal()) * 50.0));
  }
  return count;
}

TEST(Stats, Battery19_EveryExpertCountAndSpread) {
  for (index_t experts : expert_counts) {
    for (double spread : {0.01, 0.3, 1.0, 4.0}) {
      SCOPED_TRACE("E " + std::to_string(experts) + " spread " + std::to_string(spread));
      expect_load(random_load(experts, spread, 1));
    }
  }
}

TEST(Stats, UniformLoadIsPerfect) {
  for (std::size_t experts : {1u, 3u, 32u, 60u, 128u}) {
    load_figures const f =
        figures_of(on_host{}, guarded<index_t>(std::vector<index_t>(experts, 7)));
    EXPECT_EQ(f.utilization, 1.0f);
    EXPECT_EQ(f.active_fraction, 1.0f);
    EXPECT_EQ(f.max_violation, 0.0f);
    EXPECT_EQ(f.jsd, 0.0f);
    EXPECT_NEAR(f.entropy, std::log2(double(experts)), 1e-5);
  }
}

TEST(Stats, OneHotExpertIsTheWorst) {
  std::vector<index_t> count(8, 0);
  count[5] = 1000;
  load_figures const f = figures_of(on_host{}, guarded<index_t>(count));
  EXPECT_EQ(f.utilization, 0.125f);
  EXPECT_EQ(f.active_fraction, 0.125f);
  EXPECT_EQ(f.max_violation, 7.0f);
  EXPECT_EQ(f.entropy, 0.0f);
  EXPECT_GT(f.jsd, 0.7f);
  expect_load({0, 0, 0, 0, 0, 1000, 0, 0});
}

TEST(Stats, Battery01_NoTokensCountAsUniform) {
  for (std::size_t experts : {0u, 1u, 5u, 33u}) {
    load_figures const f =
        figures_of(on_host{}, guarded<index_t>(std::vector<index_t>(experts, 0)));
    EXPECT_EQ(f.slots, 0);
    EXPECT_EQ(f.utilization, 1.0f);
    EXPECT_EQ(f.active_fraction, 1.0f);
    EXPECT_EQ(f.max_violation, 0.0f);
    EXPECT_EQ(f.jsd, 0.0f);
    EXPECT_TRUE(std::isfinite(f.entropy));
  }
}

TEST(Stats, NearlyUniformLoadKeepsItsDivergence) {
  // p and u differ by 1e-6: the terms of the textbook formula cancel, its float sum has no digit left.
  loads count(64, 1000000);
  count[0] = 1000001;
  count[1] = 999999;
  oracle::load_answer const want = oracle::load(count);
  ASSERT_GT(want.jsd, 0);
  load_figures const f = figures_of(on_host{}, guarded<std::int64_t>(count));
  double const exact = 2 * 1e-12 / 64 / 8 / std::log(2.0);  // δ²/8 of each of two experts, in bits
  EXPECT_NEAR(f.jsd, exact, 1e-3 * exact);
}

TEST(Stats, DivergenceHoldsUpToTheEndOfItsSeriesAndBehindIt) {
  for (std::int64_t more = 1; more < 100; ++more) {  // |x| to 0.25 by both signs, and beyond
    loads count;
    for (int e = 0; e < 16; ++e) count.insert(count.end(), {100 + more, 100 - more});
    oracle::load_answer const want = oracle::load(count);
    load_figures const f = figures_of(on_host{}, guarded<std::int64_t>(count));
    EXPECT_NEAR(f.jsd, want.jsd, 6 * 0x1p-24 * want.jsd) << more;
  }
}

TEST(Stats, Battery20_LoadsBeyond32Bits) {
  expect_load({std::int64_t{5} << 33, 1, std::int64_t{1} << 34, 0, 12345678901});
}

TEST(Stats, HalfTheUniformLoadIsBusyExactly) {
  EXPECT_EQ(figures_of(on_host{}, guarded<index_t>(std::vector<index_t>{1, 3})).active_fraction,
            1.0f);
  EXPECT_EQ(figures_of(on_host{}, guarded<index_t>(std::vector<index_t>{1, 4})).active_fraction,
            0.5f);
}

TEST(Stats, PlanCountsRowsWithoutPadding) {
  constexpr shape s{.tokens = 101, .hidden = 1, .experts = 9, .top_k = 3};
  std::vector<index_t> const ids = chosen_experts(s, skew::zipf, 2);
  guarded<index_t> kept(9);
  guarded<plan_counts> totals(1);
  plan_fixture const p = plan_of({}, s, ids,
                                 {.capacity = 40,
                                  .segment_multiple = 16,
                                  .report = {.kept = kept.as(9), .totals = totals.as(1)}},
                                 5);
  guarded<std::int64_t> route(static_cast<std::size_t>(route_events));
  route[static_cast<std::size_t>(route_event::non_finite_logits)] = 12;
  guarded<load_figures> out(1);
  guarded<float> share(9);
  load_events<> const events{.plan = totals.as(1), .route = route.as(route.size())};
  ASSERT_TRUE(
      load_stats(on_host{}, p.plan, {.figures = out.as(1), .share = share.as(9)}, events).ok());
  load_figures const direct = figures_of(on_host{}, kept, events);
  EXPECT_EQ(std::memcmp(&direct, &out[0], sizeof direct), 0);
  EXPECT_EQ(out[0].slots, totals[0].rows);
  EXPECT_GT(totals[0].dropped, 0);
  EXPECT_EQ(out[0].dropped, totals[0].dropped);
  EXPECT_EQ(out[0].non_finite, 12);
}

TEST(Stats, LoadGathersOverBatches) {
  guarded<index_t> const a(std::vector<index_t>{1, 2, std::numeric_limits<index_t>::max()});
  guarded<std::int64_t> total(loads{0, 0, 0});
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(add_load(on_host{}, a.as(3), total.as(3)).ok());
  EXPECT_EQ(total[0], 3);
  EXPECT_EQ(total[1], 6);
  EXPECT_EQ(total[2], 3 * std::int64_t{std::numeric_limits<index_t>::max()});
}

TEST(Stats, BadInputHasItsSentence) {
  guarded<index_t> counts(std::vector<index_t>{1, 2, 3});
  guarded<load_figures> out(1);
  guarded<float> share(4);
  expect_error(load_stats(on_host{}, counts.as(3), {}),
               "load_stats.out.figures: extent 0 is 0; it must be 1 (one load_figures)");
  expect_error(load_stats(on_host{}, counts.as(3), {.figures = out.as(1), .share = share.as(4)}),
               "load_stats.out.share: extent 0 is 4; it must be 3 (experts)");
  expect_error(
      load_stats(on_host{}, view<index_t const, 1>(nullptr, {{3}}), {.figures = out.as(1)}),
      "load_stats.counts: the pointer is null; it must point to 3 elements");
  guarded<std::int64_t> route(2), total(2);
  expect_error(load_stats(on_host{}, counts.as(3), {.figures = out.as(1)}, {.route = route.as(2)}),
               "load_stats.events.route: extent 0 is 2; it must be " +
                   std::to_string(route_events) + " (route_events)");
  expect_error(load_stats(on_host{}, dispatch_plan<>{}, {.figures = out.as(1)}),
               "load_stats.plan.offset: extent 0 is 0; it must be 1 or more (experts + 1)");
  expect_error(add_load(on_host{}, counts.as(3), total.as(2)),
               "add_load.total: extent 0 is 2; it must be 3 (experts)");
  expect_error(load_stats(on_host{.threads = -1}, counts.as(3), {.figures = out.as(1)}),
               "on_host.threads is -1; it must be 0 or more");
  EXPECT_TRUE(same_bits(out, guarded<load_figures>(1))) << "written";
}

}  // namespace stats_test
}  // namespace shunt::test
