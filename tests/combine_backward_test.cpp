// combine_backward: the adjoint of combine, and what it may leave out.
#include <gtest/gtest.h>

#include "shunt/combine.hpp"
#include "shunt/dispatch.hpp"
#include "support/combine_case.hpp"
#include "support/compare.hpp"

namespace shunt::test {
namespace combine_backward_test {

using namespace combine_case;

/// <combine(rows), r> = <rows, combine_backward(r)>.
TEST(CombineBackward, IsTheAdjointOfCombine) {
  for (auto const& named : battery) {
    shape const& s = named.is;
    SCOPED_TRACE(named.name);
    fixture<float, float> const in(s, skew::zipf, 8);
    auto const r = normal_values<float>(size_of(s.tokens, s.hidden), 9);
    guarded<float> y(r.size()), d_rows(in.rows.size());
    auto const rows = in.rows.as(in.p.rows(), s.hidden);
    ASSERT_TRUE(
        combine(on_host{}, rows, in.p.plan, in.gates(what::weighted), y.as(s.tokens, s.hidden))
            .ok());
    ASSERT_TRUE(combine_backward(on_host{}, r.as(s.tokens, s.hidden), in.p.plan,
                                 in.gates(what::weighted), {}, d_rows.as(in.p.rows(), s.hidden))
                    .ok());
    double left = 0, right = 0, size = 0;
    for (std::size_t i = 0; i < y.size(); ++i) left += double(y[i]) * r[i];
    for (std::size_t i = 0; i < d_rows.size(); ++i) {
      if (in.p.row_slot[i / static_cast<std::size_t>(s.hidden)] < 0) continue;
      right += double(in.rows[i]) * d_rows[i];
      size += std::abs(double(in.rows[i]) * d_rows[i]);
    }
    EXPECT_NEAR(left, right, (s.top_k + 2) * 0x1p-24 * size);
  }
}

/// What combine_backward writes to the rows is what dispatch makes of d_y with the same gates.
TEST(CombineBackward, NeedNotBeMaterialized) {
  constexpr shape s{.tokens = 33, .hidden = 50, .experts = 7, .top_k = 3};
  fixture<bf16, bf16> const in(s, skew::uniform, 10);
  auto const d_y = normal_values<bf16>(size_of(s.tokens, s.hidden), 11);
  guarded<bf16> a(in.rows.size()), b(in.rows.size());
  auto const gate = in.gates(what::weighted);
  ASSERT_TRUE(combine_backward(on_host{}, d_y.as(s.tokens, s.hidden), in.p.plan, gate, {},
                               a.as(in.p.rows(), s.hidden))
                  .ok());
  ASSERT_TRUE(dispatch(on_host{}, d_y.as(s.tokens, s.hidden), in.p.plan,
                       b.as(in.p.rows(), s.hidden), {.gate = gate})
                  .ok());
  EXPECT_TRUE(same_bits(a, b));
}

TEST(CombineBackward, WithoutRowsLeavesTheirGatesToTheCaller) {
  constexpr shape s{.tokens = 9, .hidden = 34, .experts = 4, .top_k = 3};
  fixture<float, float> const in(s, skew::uniform, 12);
  auto const d_y = normal_values<float>(size_of(s.tokens, s.hidden), 13);
  guarded<float> d_gate(in.gate.size()), d_x = in.x;
  auto const given = in.options(what::everything);
  ASSERT_TRUE(combine_backward(on_host{}, d_y.as(s.tokens, s.hidden), in.p.plan,
                               in.gates(what::weighted), {}, view<float, 2>{},
                               {.zero = given.zero,
                                .d_gate = d_gate.as(s.tokens, s.top_k),
                                .d_x = d_x.as(s.tokens, s.hidden),
                                .accumulate = true})
                  .ok());
  auto q = in.inputs(what::everything);
  q.valid.clear();
  q.shared.clear();
  auto want = oracle::combine_backward(q, in_double(d_y), in.p.rows());
  std::size_t zeros = 0;
  for (std::size_t slot = 0; slot < d_gate.size(); ++slot) {
    if (in.p.slot_row[slot] >= 0) {
      EXPECT_TRUE(std::isnan(d_gate[slot])) << "written";
      d_gate[slot] = 0.0f;
      want.d_gate[slot] = {};
    } else {
      zeros += in.ids[slot] >= s.experts ? 1u : 0u;
    }
  }
  EXPECT_GT(zeros, 0u);
  EXPECT_TRUE(close(d_gate, want.d_gate, 9));
  for (std::size_t i = 0; i < d_x.size(); ++i) oracle::add(want.d_x[i], in.x[i]);
  EXPECT_TRUE(close(d_x, want.d_x, s.top_k + 2));
}

}  // namespace combine_backward_test
}  // namespace shunt::test
