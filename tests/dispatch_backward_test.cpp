// dispatch_backward: the gradient of every token, in the order of its slots.
#include <gtest/gtest.h>

#include <string>

#include "shunt/dispatch.hpp"
#include "support/compare.hpp"
#include "support/dispatch_ids.hpp"
#include "support/host_configs.hpp"
#include "support/plan_fixture.hpp"
#include "support/random.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace dispatch_backward_test {

/// d_x in double, and the magnitudes that went into it.
template <class A>
std::vector<expectation> expected_gradient(plan_fixture const& p, guarded<A> const& d_rows,
                                           offset_t hidden, guarded<float> const* gate,
                                           std::vector<double> const& old) {
  auto const h = static_cast<std::size_t>(hidden);
  std::vector<expectation> d_x(static_cast<std::size_t>(p.plan.tokens) * h);
  for (std::size_t i = 0; i < old.size(); ++i) d_x[i] = {old[i], std::abs(old[i])};
  for (std::size_t slot = 0; slot < p.slot_row.size(); ++slot) {
    index_t const row = p.slot_row[slot];
    if (row < 0) continue;
    for (std::size_t c = 0; c < h; ++c) {
      double const g = gate != nullptr ? double((*gate)[slot]) : 1.0;
      double const add = g * to_float(d_rows[static_cast<std::size_t>(row) * h + c]);
      auto& sum = d_x[slot / static_cast<std::size_t>(p.plan.top_k) * h + c];
      sum.value += add;
      sum.magnitude += std::abs(add);
    }
  }
  return d_x;
}

template <class A, class B> void expect_gradients(shape const& s, std::uint64_t seed) {
  plan_fixture const p =
      plan_of({}, s, ids_with_gaps(s, skew::uniform, seed), {.segment_multiple = 4}, 1);
  auto const d_rows =
      normal_values<A>(buffer_size(static_cast<offset_t>(p.rows()), s.hidden), seed + 1);
  auto const gate = normal_values<float>(buffer_size(s.tokens, s.top_k), seed + 2);
  auto const x = normal_values<A>(buffer_size(s.tokens, s.hidden), seed + 3);
  auto const old = normal_values<B>(x.size(), seed + 4);
  for (bool gated : {false, true}) {
    for (bool accumulate : {false, true}) {
      SCOPED_TRACE(std::string(gated ? "gated" : "plain") + (accumulate ? ", accumulates" : ""));
      auto const want = expected_gradient<A>(p, d_rows, s.hidden, gated ? &gate : nullptr,
                                             accumulate ? in_double(old) : std::vector<double>{});
      EXPECT_TRUE(not_flat(want));
      std::vector<expectation> want_gate(gate.size());
      for (std::size_t slot = 0; slot < gate.size(); ++slot) {
        index_t const row = p.slot_row[slot];
        for (offset_t c = 0; row >= 0 && c < s.hidden; ++c) {
          auto const token = static_cast<offset_t>(slot) / s.top_k;
          double const add = double(to_float(d_rows.as(p.rows(), s.hidden)(row, c))) *
                             to_float(x.as(s.tokens, s.hidden)(token, c));
          want_gate[slot].value += add;
          want_gate[slot].magnitude += std::abs(add);
        }
      }
      guarded<B> first(0);
      guarded<float> first_gate(0);
      for (on_host const& on : host_configs()) {
        guarded<B> d_x = accumulate ? old : guarded<B>(old.size());
        guarded<float> d_gate(gate.size());
        dispatch_gradients<A> o{.accumulate = accumulate};
        if (gated) {
          o.gate = gate.as(s.tokens, s.top_k);
          o.x = x.as(s.tokens, s.hidden);
          o.d_gate = d_gate.as(s.tokens, s.top_k);
        }
        status const done = dispatch_backward(on, d_rows.as(p.rows(), s.hidden), p.plan,
                                              d_x.as(s.tokens, s.hidden), o);
        ASSERT_TRUE(done.ok()) << done.message();
        EXPECT_TRUE(close(d_x, want, s.top_k + 1));
        if (gated) { EXPECT_TRUE(close(d_gate, want_gate, s.hidden / 32.0 + 7)); }
        if (first.size() == 0) {
          first = d_x;
          first_gate = d_gate;
        }
        EXPECT_TRUE(same_bits(d_x, first)) << name_of(on);
        EXPECT_TRUE(same_bits(d_gate, first_gate)) << name_of(on);
      }
    }
  }
}

TEST(DispatchBackward, Battery13_EachGradientOnEachInstructionSet) {
  for (auto const& named : battery) {
    SCOPED_TRACE(named.name);
    expect_gradients<float, float>(named.is, 6);
    expect_gradients<bf16, bf16>(named.is, 7);
    expect_gradients<fp16, float>(named.is, 8);
    expect_gradients<bf16, float>(named.is, 9);
    expect_gradients<float, bf16>(named.is, 10);
  }
}

TEST(DispatchBackward, ChainIsFmaInSlotOrder) {
  constexpr shape s{.tokens = 21, .hidden = 37, .experts = 6, .top_k = 4};
  plan_fixture const p = plan_of({}, s, ids_with_gaps(s, skew::uniform, 11));
  auto const d_rows =
      normal_values<float>(buffer_size(static_cast<offset_t>(p.rows()), s.hidden), 12);
  auto const gate = normal_values<float>(buffer_size(s.tokens, s.top_k), 13);
  guarded<float> d_x(buffer_size(s.tokens, s.hidden)), want(d_x.size());
  for (offset_t t = 0; t < s.tokens; ++t) {
    for (offset_t c = 0; c < s.hidden; ++c) {
      float sum = 0.0f;
      for (offset_t k = 0; k < s.top_k; ++k) {
        index_t const row = p.slot_row[static_cast<std::size_t>(t * s.top_k + k)];
        if (row >= 0) {
          sum = std::fma(gate.as(s.tokens, s.top_k)(t, k), d_rows.as(p.rows(), s.hidden)(row, c),
                         sum);
        }
      }
      want.as(s.tokens, s.hidden)(t, c) = sum;
    }
  }
  for (on_host const& on : host_configs()) {
    d_x.wipe();
    status const done =
        dispatch_backward(on, d_rows.as(p.rows(), s.hidden), p.plan, d_x.as(s.tokens, s.hidden),
                          {.gate = gate.as(s.tokens, s.top_k)});
    ASSERT_TRUE(done.ok()) << done.message();
    EXPECT_TRUE(same_bits(d_x, want)) << name_of(on);
  }
}

/// <dispatch(x), r> = <x, dispatch_backward(r)>, with and without gates.
TEST(DispatchBackward, IsTheAdjointOfDispatch) {
  for (auto const& named : battery) {
    for (bool gated : {false, true}) {
      shape const& s = named.is;
      SCOPED_TRACE(named.name);
      plan_fixture const p =
          plan_of({}, s, ids_with_gaps(s, skew::zipf, 14), {.segment_multiple = 2});
      auto const x = normal_values<float>(buffer_size(s.tokens, s.hidden), 15);
      auto const r =
          normal_values<float>(buffer_size(static_cast<offset_t>(p.rows()), s.hidden), 16);
      auto const gate = normal_values<float>(buffer_size(s.tokens, s.top_k), 17);
      guarded<float> rows(r.size()), d_x(x.size());
      view<float const, 2> const g = gated ? gate.as(s.tokens, s.top_k) : view<float const, 2>{};
      ASSERT_TRUE(dispatch(on_host{}, x.as(s.tokens, s.hidden), p.plan, rows.as(p.rows(), s.hidden),
                           {.gate = g})
                      .ok());
      ASSERT_TRUE(dispatch_backward(on_host{}, r.as(p.rows(), s.hidden), p.plan,
                                    d_x.as(s.tokens, s.hidden), {.gate = g})
                      .ok());
      double left = 0, right = 0, size = 0;
      for (std::size_t i = 0; i < p.used() * static_cast<std::size_t>(s.hidden); ++i) {
        left += double(rows[i]) * r[i];
        size += std::abs(double(rows[i]) * r[i]);
      }
      for (std::size_t i = 0; i < x.size(); ++i) right += double(x[i]) * d_x[i];
      EXPECT_NEAR(left, right, (s.top_k + 2) * 0x1p-24 * size);
      EXPECT_EQ(p.used() > 0, size > 0);
    }
  }
}

TEST(DispatchBackward, Battery17_NanInPaddingRowsTouchesNoToken) {
  constexpr shape s{.tokens = 23, .hidden = 33, .experts = 5, .top_k = 2};
  plan_fixture const p =
      plan_of({}, s, ids_with_gaps(s, skew::uniform, 23), {.segment_multiple = 8}, 4);
  guarded<float> d_rows(buffer_size(static_cast<offset_t>(p.rows()), s.hidden));  // NaN
  std::size_t padding = 0;
  for (std::size_t r = 0; r < p.rows(); ++r) {
    padding += p.row_slot[r] < 0 ? 1u : 0u;
    for (std::size_t c = 0; p.row_slot[r] >= 0 && c < 33; ++c) d_rows[r * 33 + c] = 1.0f;
  }
  ASSERT_GT(padding, 4u);
  guarded<float> d_x(buffer_size(s.tokens, s.hidden));
  ASSERT_TRUE(
      dispatch_backward(on_host{}, d_rows.as(p.rows(), 33), p.plan, d_x.as(s.tokens, 33)).ok());
  EXPECT_TRUE(all_finite(d_x));
}

}  // namespace dispatch_backward_test
}  // namespace shunt::test
