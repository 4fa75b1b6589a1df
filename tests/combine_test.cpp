#include "shunt/combine.hpp"

#include <gtest/gtest.h>

#include <string>

#include "shunt/dispatch.hpp"
#include "support/combine_case.hpp"
#include "support/compare.hpp"
#include "support/host_configs.hpp"

namespace shunt::test {
namespace combine_test {

using namespace combine_case;

template <class Pair> class CombineOf : public testing::Test {};
template <class R, class Y> struct pair {
  using row = R;
  using token = Y;
};
using pairs = testing::Types<pair<float, float>, pair<bf16, bf16>, pair<fp16, fp16>,
                             pair<float, bf16>, pair<bf16, float>, pair<fp16, float>>;
TYPED_TEST_SUITE(CombineOf, pairs);

TYPED_TEST(CombineOf, MatchesTheOracleInEveryForm) {
  using R = typename TypeParam::row;
  using Y = typename TypeParam::token;
  for (auto const& named : battery) {
    for (skew how : {skew::uniform, skew::one_hot}) {
      fixture<R, Y> const in(named.is, how, 1);
      shape const& s = named.is;
      for (what w : {what::plain, what::weighted, what::everything}) {
        SCOPED_TRACE(std::string(named.name) + " form " + std::to_string(static_cast<int>(w)));
        auto const want = oracle::combine(in.inputs(w));
        EXPECT_TRUE(s.tokens < 2 || not_flat(want));
        guarded<Y> first(0);
        for (on_host const& on : host_configs()) {
          guarded<Y> y(want.size());
          status const done = combine(on, in.rows.as(in.p.rows(), s.hidden), in.p.plan, in.gates(w),
                                      y.as(s.tokens, s.hidden), in.options(w));
          ASSERT_TRUE(done.ok()) << done.message();
          EXPECT_TRUE(close(y, want, s.top_k + 2)) << name_of(on);
          if (first.size() == 0) first = y;
          EXPECT_TRUE(same_bits(y, first)) << name_of(on);
        }
      }
    }
  }
}

TYPED_TEST(CombineOf, Battery13_EachGradientOnEachInstructionSet) {
  using R = typename TypeParam::row;
  using Y = typename TypeParam::token;
  for (auto const& named : battery) {
    fixture<R, Y> const in(named.is, skew::zipf, 2);
    shape const& s = named.is;
    auto const d_y = normal_values<Y>(size_of(s.tokens, s.hidden), 3);
    for (what w : {what::plain, what::weighted, what::everything}) {
      SCOPED_TRACE(std::string(named.name) + " form " + std::to_string(static_cast<int>(w)));
      bool const all = w == what::everything;
      auto const used = in.p.used() * static_cast<std::size_t>(s.hidden);
      auto want = oracle::combine_backward(in.inputs(w), in_double(d_y), in.p.used());
      EXPECT_TRUE(not_flat(want.d_rows));
      guarded<R> first(0);
      for (on_host const& on : host_configs()) {
        guarded<R> d_rows(in.rows.size());
        guarded<float> d_gate(in.gate.size()), d_shared_gate(in.shared_gate.size());
        guarded<Y> d_shared(d_y.size()), d_residual(d_y.size()), d_x(d_y.size());
        combine_gradients<Y> o{.d_gate = d_gate.as(s.tokens, s.top_k)};
        if (all) {
          auto const given = in.options(w);
          o.shared = given.shared;
          o.shared_gate = given.shared_gate;
          o.zero = given.zero;
          o.valid = given.valid;
          o.d_shared = d_shared.as(s.tokens, s.hidden);
          o.d_shared_gate = d_shared_gate.as(s.tokens);
          o.d_residual = d_residual.as(s.tokens, s.hidden);
          o.d_x = d_x.as(s.tokens, s.hidden);
        }
        status const done = combine_backward(on, d_y.as(s.tokens, s.hidden), in.p.plan, in.gates(w),
                                             in.rows.as(in.p.rows(), s.hidden),
                                             d_rows.as(in.p.rows(), s.hidden), o);
        ASSERT_TRUE(done.ok()) << done.message();
        guarded<R> in_use(used);
        std::copy(d_rows.begin(), d_rows.begin() + used, in_use.begin());
        double const dots = s.hidden / 32.0 + 7;
        EXPECT_TRUE(close(in_use, want.d_rows, 1));
        EXPECT_TRUE(close(d_gate, want.d_gate, dots));
        for (std::size_t i = used; i < d_rows.size(); ++i) {
          EXPECT_TRUE(std::isnan(to_float(d_rows[i])))
              << "a row behind the last segment was written";
        }
        if (all) {
          EXPECT_TRUE(close(d_shared, want.d_shared, 1));
          EXPECT_TRUE(close(d_shared_gate, want.d_shared_gate, dots));
          EXPECT_TRUE(close(d_residual, want.d_residual, 0));
          EXPECT_TRUE(close(d_x, want.d_x, s.top_k + 1));
        }
        if (first.size() == 0) first = d_rows;
        EXPECT_TRUE(same_bits(d_rows, first)) << name_of(on);
      }
    }
  }
}

TEST(Combine, ChainIsFmaInSlotOrderThenSharedThenResidual) {
  constexpr shape s{.tokens = 21, .hidden = 43, .experts = 6, .top_k = 5};
  fixture<float, float> const in(s, skew::uniform, 4);
  guarded<float> want(size_of(s.tokens, s.hidden));
  auto const rows = in.rows.as(in.p.rows(), s.hidden);
  for (offset_t t = 0; t < s.tokens; ++t) {
    for (offset_t c = 0; c < s.hidden; ++c) {
      float y = 0.0f;
      for (offset_t k = 0; k < s.top_k; ++k) {
        auto const slot = static_cast<std::size_t>(t * s.top_k + k);
        index_t const row = in.p.slot_row[slot];
        if (row >= 0) y = std::fma(in.gate[slot], rows(row, c), y);
        if (in.ids[slot] >= s.experts)
          y = std::fma(in.gate[slot], in.x.as(s.tokens, s.hidden)(t, c), y);
      }
      y = std::fma(in.shared_gate[static_cast<std::size_t>(t)],
                   in.shared.as(s.tokens, s.hidden)(t, c), y);
      y = y + in.residual.as(s.tokens, s.hidden)(t, c);
      want.as(s.tokens, s.hidden)(t, c) = in.valid[static_cast<std::size_t>(t)] != 0 ? y : 0.0f;
    }
  }
  for (on_host const& on : host_configs()) {
    guarded<float> y(want.size());
    ASSERT_TRUE(combine(on, rows, in.p.plan, in.gates(what::everything), y.as(s.tokens, s.hidden),
                        in.options(what::everything))
                    .ok());
    EXPECT_TRUE(same_bits(y, want)) << name_of(on);
  }
}

/// More rows a token than a pass holds (64): the chain goes on in panels, with the same bits.
TEST(Combine, ManyChoicesKeepTheChain) {
  for (index_t top_k : {63, 64, 65, 128, 129, 300}) {
    shape const s{.tokens = 3, .hidden = 2051, .experts = 300, .top_k = top_k};
    fixture<float, bf16> const in(s, skew::uniform, 5);
    auto const rows = in.rows.as(in.p.rows(), s.hidden);
    for (on_host const& on : host_configs()) {
      guarded<bf16> y(size_of(s.tokens, s.hidden));
      ASSERT_TRUE(
          combine(on, rows, in.p.plan, in.gates(what::weighted), y.as(s.tokens, s.hidden)).ok());
      for (offset_t t = 0; t < s.tokens; ++t) {
        for (offset_t c = 0; c < s.hidden; ++c) {
          float want = 0.0f;
          for (offset_t slot = t * top_k; slot < (t + 1) * top_k; ++slot) {
            auto const at = static_cast<std::size_t>(slot);
            if (in.p.slot_row[at] >= 0)
              want = std::fma(in.gate[at], rows(in.p.slot_row[at], c), want);
          }
          ASSERT_EQ(y.as(s.tokens, s.hidden)(t, c), from_float<bf16>(want)) << t << ' ' << c;
        }
      }
    }
  }
}

TEST(Combine, OfDispatchWithUniformGatesIsTheIdentity) {
  for (auto const& named : battery) {
    for (skew how : skews) {
      shape const& s = named.is;
      shape const powers{.tokens = s.tokens,
                         .hidden = s.hidden,
                         .experts = s.experts,
                         .top_k = s.top_k >= 4   ? 4
                                  : s.top_k >= 2 ? 2
                                                 : 1};
      SCOPED_TRACE(named.name);
      plan_fixture const p =
          plan_of({}, powers, chosen_experts(powers, how, 6), {.segment_multiple = 2});
      auto const x = normal_values<bf16>(size_of(s.tokens, s.hidden), 7);
      guarded<bf16> rows(p.rows() * static_cast<std::size_t>(s.hidden)), y(x.size());
      guarded<float> const gate(std::vector<float>(size_of(s.tokens, powers.top_k),
                                                   1.0f / static_cast<float>(powers.top_k)));
      for (on_host const& on : host_configs()) {
        y.wipe();
        ASSERT_TRUE(
            dispatch(on, x.as(s.tokens, s.hidden), p.plan, rows.as(p.rows(), s.hidden)).ok());
        ASSERT_TRUE(combine(on, rows.as(p.rows(), s.hidden), p.plan,
                            gate.as(s.tokens, powers.top_k), y.as(s.tokens, s.hidden))
                        .ok());
        EXPECT_TRUE(same_bits(y, x));
      }
    }
  }
}

TEST(Combine, OutputMayLieOnWhatIsAddedToIt) {
  constexpr shape s{.tokens = 17, .hidden = 45, .experts = 4, .top_k = 2};
  fixture<bf16, bf16> const in(s, skew::uniform, 21);
  auto const rows = in.rows.as(in.p.rows(), s.hidden);
  for (what w : {what::everything}) {
    guarded<bf16> apart(in.x.size()), same = in.residual;
    auto o = in.options(w);
    ASSERT_TRUE(combine(on_host{}, rows, in.p.plan, in.gates(w), apart.as(17, 45), o).ok());
    o.residual = same.as(17, 45);
    ASSERT_TRUE(combine(on_host{}, rows, in.p.plan, in.gates(w), same.as(17, 45), o).ok());
    EXPECT_TRUE(same_bits(apart, same));
  }
}

}  // namespace combine_test
}  // namespace shunt::test
