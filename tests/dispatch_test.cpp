#include "shunt/dispatch.hpp"

#include <gtest/gtest.h>

#include <array>
#include <string>

#include "support/compare.hpp"
#include "support/dispatch_ids.hpp"
#include "support/host_configs.hpp"
#include "support/plan_fixture.hpp"
#include "support/random.hpp"
#include "support/shapes.hpp"
#include "support/sparse.hpp"
#include "support/storage_types.hpp"

namespace shunt::test {
namespace dispatch_test {

/// An element that is no number: dispatch moves bytes.
struct triple {
  unsigned char byte[3];
};

template <class T> guarded<T> bytes_of(std::size_t count, std::uint64_t seed) {
  rng d(seed);
  guarded<T> values(count);
  auto* const at = reinterpret_cast<unsigned char*>(values.data());
  for (std::size_t i = 0; i < count * sizeof(T); ++i) at[i] = static_cast<unsigned char>(d.bits());
  return values;
}

/// What the forward must give, element by element from its definition; rows behind the last segment
/// stay untouched.
template <class T>
guarded<T> expected_rows(plan_fixture const& p, guarded<T> const& x, offset_t hidden,
                         guarded<float> const* gate) {
  guarded<T> rows(buffer_size(static_cast<offset_t>(p.rows()), hidden));
  auto const h = static_cast<std::size_t>(hidden);
  for (std::size_t r = 0; r < p.used(); ++r) {
    index_t const slot = p.row_slot[r];
    for (std::size_t c = 0; c < h; ++c) {
      if (slot < 0) {
        std::memset(static_cast<void*>(&rows[r * h + c]), 0, sizeof(T));
        continue;
      }
      T const value = x[static_cast<std::size_t>(slot / p.plan.top_k) * h + c];
      if constexpr (storage<T>) {
        if (gate != nullptr) {
          // A product of two floats is exact in double: one rounding to float, one to T.
          double const exact = double((*gate)[static_cast<std::size_t>(slot)]) * to_float(value);
          rows[r * h + c] = from_float<T>(static_cast<float>(exact));
          continue;
        }
      }
      rows[r * h + c] = value;
    }
  }
  return rows;
}

template <class T> class DispatchOf : public testing::Test {};
using element_types =
    testing::Types<float, bf16, fp16, fp8_e4m3, fp8_e5m2, std::uint8_t, double, triple>;
TYPED_TEST_SUITE(DispatchOf, element_types);

TYPED_TEST(DispatchOf, MovesEveryElementAndZeroesPaddingRows) {
  using T = TypeParam;
  for (auto const& named : battery) {
    for (skew how : skews) {
      shape const& s = named.is;
      SCOPED_TRACE(std::string(named.name) + " " + to_string(how));
      plan_fixture const p = plan_of({}, s, ids_with_gaps(s, how, 1),
                                     {.segment_multiple = how == skew::zipf ? 4 : 1}, 2);
      guarded<T> const x = bytes_of<T>(buffer_size(s.tokens, s.hidden), 2);
      guarded<T> const want = expected_rows<T>(p, x, s.hidden, nullptr);
      for (on_host const& on : host_configs()) {
        guarded<T> rows(want.size());
        status const done =
            dispatch(on, x.as(s.tokens, s.hidden), p.plan, rows.as(p.rows(), s.hidden));
        ASSERT_TRUE(done.ok()) << done.message();
        EXPECT_TRUE(same_bits(rows, want)) << name_of(on);
      }
    }
  }
}

template <class T> class DispatchWithGates : public testing::Test {};
TYPED_TEST_SUITE(DispatchWithGates, storage_types);

TYPED_TEST(DispatchWithGates, RowsAreGateTimesTokenRoundedOnce) {
  using T = TypeParam;
  for (auto const& named : battery) {
    shape const& s = named.is;
    SCOPED_TRACE(named.name);
    plan_fixture const p =
        plan_of({}, s, ids_with_gaps(s, skew::zipf, 3), {.segment_multiple = 3}, 1);
    auto const x = normal_values<T>(buffer_size(s.tokens, s.hidden), 4);
    auto const gate = normal_values<float>(buffer_size(s.tokens, s.top_k), 5);
    guarded<T> const want = expected_rows<T>(p, x, s.hidden, &gate);
    for (on_host const& on : host_configs()) {
      guarded<T> rows(want.size());
      status const done =
          dispatch(on, x.as(s.tokens, s.hidden), p.plan, rows.as(p.rows(), s.hidden),
                   {.gate = gate.as(s.tokens, s.top_k)});
      ASSERT_TRUE(done.ok()) << done.message();
      EXPECT_TRUE(same_bits(rows, want)) << name_of(on);
    }
  }
}

TEST(Dispatch, Battery05_StridesAndRowsPast2To31) {
  constexpr offset_t far = (offset_t{1} << 31) + 17;  // elements between rows
  constexpr shape s{.tokens = 3, .hidden = 40, .experts = 2, .top_k = 2};
  plan_fixture const p = plan_of({}, s, {0, 1, 1, 0, 1, -1}, {.segment_multiple = 3});
  auto const rows_count = static_cast<offset_t>(p.rows());
  sparse<fp8_e4m3> const x(far * s.tokens), rows(far * rows_count);
  auto const from = x.rows(s.tokens, s.hidden, far), to = rows.rows(rows_count, s.hidden, far);
  for (offset_t t = 0; t < s.tokens; ++t) {
    for (offset_t c = 0; c < s.hidden; ++c) from(t, c).bits = static_cast<std::uint8_t>(t * 50 + c);
  }
  ASSERT_TRUE(dispatch(on_host{}, from, p.plan, to).ok());
  for (std::size_t r = 0; r < p.used(); ++r) {
    index_t const slot = p.row_slot[r];
    for (offset_t c = 0; c < s.hidden; ++c) {
      fp8_e4m3 const want = slot < 0 ? fp8_e4m3{0} : from(slot / 2, c);
      EXPECT_EQ(to(static_cast<offset_t>(r), c), want);
    }
  }
  // Backward: bf16 rows, 2^31 elements and more apart.
  sparse<bf16> const d_rows(far * rows_count), d_x(far * s.tokens);
  auto const in = d_rows.rows(rows_count, s.hidden, far);
  auto const out = d_x.rows(s.tokens, s.hidden, far);
  for (std::size_t r = 0; r < p.used(); ++r) {
    for (offset_t c = 0; c < s.hidden; ++c) {
      in(static_cast<offset_t>(r), c) = from_float<bf16>(static_cast<float>(r + 1));
    }
  }
  ASSERT_TRUE(dispatch_backward(on_host{}, in, p.plan, out).ok());
  for (offset_t slot = 0; slot < s.tokens * s.top_k; slot += s.top_k) {
    float want = 0;
    for (offset_t k = 0; k < s.top_k; ++k) {
      want += static_cast<float>(p.slot_row[static_cast<std::size_t>(slot + k)] + 1);
    }
    for (offset_t c = 0; c < s.hidden; ++c) EXPECT_EQ(to_float(out(slot / s.top_k, c)), want);
  }
}

/// One true case: T·K·H = 2.18e9 rows' elements, read where they lie; what was not written is zero.
TEST(Dispatch, Battery05_MoreThan2To31ElementsInAll) {
  if (small_scale()) GTEST_SKIP() << "reads 4.4 GB of address space";
  constexpr shape s{.tokens = 520, .hidden = 4100, .experts = 4, .top_k = 1024};
  constexpr offset_t rows_count = offset_t{s.tokens} * s.top_k;
  static_assert(rows_count * s.hidden > (offset_t{1} << 31));
  std::vector<index_t> ids(static_cast<std::size_t>(rows_count));
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<index_t>(i % 4);
  plan_fixture const p = plan_of({}, s, ids);
  sparse<bf16> const d_rows(rows_count * s.hidden);
  auto const in = d_rows.rows(rows_count, s.hidden, s.hidden);
  guarded<bf16> d_x(buffer_size(s.tokens, s.hidden));
  std::array<offset_t, 3> const at{0, rows_count - 1, offset_t{1} << 19};
  for (offset_t row : at) in(row, 4099) = from_float<bf16>(3.0f);
  ASSERT_TRUE(dispatch_backward(on_host{}, in, p.plan, d_x.as(s.tokens, s.hidden)).ok());
  float total = 0;
  for (bf16 v : d_x) total += to_float(v);
  EXPECT_EQ(total, 9.0f);
  for (offset_t row : at) {
    offset_t const token = p.row_slot[static_cast<std::size_t>(row)] / s.top_k;
    EXPECT_GE(to_float(d_x.as(s.tokens, s.hidden)(token, 4099)), 3.0f) << row;
  }
}

TEST(Dispatch, Battery07_RowsOfForeignSlotsAreNotGathered) {
  // Nothing but padding and rowless slots: every element written is a zero, nothing else is read.
  constexpr shape s{.tokens = 4, .hidden = 19, .experts = 3, .top_k = 2};
  plan_fixture p = plan_of({}, s, {1, -1, -1, -1, -1, -1, -1, -1}, {.segment_multiple = 5});
  guarded<float> const x = normal_values<float>(buffer_size(4, 19), 18);
  guarded<float> rows(buffer_size(static_cast<offset_t>(p.rows()), 19));
  ASSERT_TRUE(dispatch(on_host{}, x.as(4, 19), p.plan, rows.as(p.rows(), 19)).ok());
  for (std::size_t i = 0; i < 19; ++i) EXPECT_EQ(rows[i], x[i]);
  for (std::size_t i = 19; i < p.used() * 19; ++i) EXPECT_EQ(rows[i], 0.0f);
  for (std::size_t i = p.used() * 19; i < rows.size(); ++i) EXPECT_TRUE(std::isnan(rows[i]));
}

TEST(Dispatch, Battery06_PlanOfWildNumbersReadsAndWritesNothing) {
  constexpr shape s{.tokens = 2, .hidden = 8, .experts = 1, .top_k = 2};
  plan_fixture p = plan_of({}, s, {0, 0, 0, 0});
  p.slot_row[1] = 4;        // beyond the rows
  p.slot_row[2] = -7;       // below -1
  p.slot_row[3] = 1 << 30;  // far beyond
  p.row_slot[1] = 1 << 30;
  p.row_slot[2] = -9;
  auto const x = normal_values<float>(16, 19);
  guarded<float> rows(32), d_x(16);
  ASSERT_TRUE(dispatch(on_host{}, x.as(2, 8), p.plan, rows.as(4, 8)).ok());
  for (std::size_t c = 0; c < 8; ++c) {
    EXPECT_EQ(rows[c], x[c]);
    EXPECT_EQ(rows[8 + c], 0.0f);
    EXPECT_EQ(rows[16 + c], 0.0f);
  }
  guarded<float> const d_rows(std::vector<float>(32, 1.0f));
  ASSERT_TRUE(dispatch_backward(on_host{}, d_rows.as(4, 8), p.plan, d_x.as(2, 8)).ok());
  EXPECT_EQ(d_x[0], 1.0f);
  EXPECT_EQ(d_x[8], 0.0f);
}

TEST(Dispatch, Battery16_TokensBitsDoNotDependOnTheOthers) {
  constexpr index_t hidden = 129, experts = 11, top_k = 3;
  constexpr shape whole{.tokens = 257, .hidden = hidden, .experts = experts, .top_k = top_k};
  std::vector<index_t> const ids = ids_with_gaps(whole, skew::zipf, 20);
  auto const x = normal_values<bf16>(buffer_size(257, hidden), 21);
  auto const gate = normal_values<float>(buffer_size(257, top_k), 22);
  std::vector<bf16> first;
  for (index_t tokens : {1, 4, 16, 64, 257}) {
    shape const s{.tokens = tokens, .hidden = hidden, .experts = experts, .top_k = top_k};
    auto const slots = static_cast<std::size_t>(tokens * top_k);
    plan_fixture const p =
        plan_of({}, s, {ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(slots)});
    guarded<bf16> rows(buffer_size(static_cast<offset_t>(p.rows()), hidden));
    guarded<bf16> d_x(buffer_size(tokens, hidden));
    view<float const, 2> const g(gate.data(), {{tokens, top_k}});
    ASSERT_TRUE(dispatch(on_host{}, view<bf16 const, 2>(x.data(), {{tokens, hidden}}), p.plan,
                         rows.as(p.rows(), hidden), {.gate = g})
                    .ok());
    ASSERT_TRUE(dispatch_backward(on_host{}, rows.as(p.rows(), hidden), p.plan,
                                  d_x.as(tokens, hidden), {.gate = g})
                    .ok());
    if (first.empty()) first.assign(d_x.begin(), d_x.begin() + hidden);
    for (std::size_t c = 0; c < first.size(); ++c) EXPECT_EQ(d_x[c], first[c]);
  }
}

TEST(Dispatch, Battery26_AnyAlignmentStrideAndWidth) {
  constexpr shape s{.tokens = 13, .hidden = 0, .experts = 4, .top_k = 2};
  plan_fixture const p =
      plan_of({}, s, ids_with_gaps(s, skew::uniform, 24), {.segment_multiple = 2});
  auto const rows_count = static_cast<offset_t>(p.rows());
  for (offset_t hidden : {1, 2, 7, 8, 15, 31, 33, 63, 65, 100}) {
    for (offset_t shift : {0, 1, 3}) {
      offset_t const x_stride = hidden + shift, r_stride = hidden + 2 * shift + 1;
      auto const x = normal_values<bf16>(buffer_size(s.tokens, x_stride) + 8, 25);
      auto const gate = normal_values<float>(buffer_size(s.tokens, s.top_k), 26);
      view<bf16 const, 2> const from(x.data() + shift, {{s.tokens, hidden}}, {{x_stride, 1}});
      guarded<bf16> const clean(buffer_size(rows_count, r_stride) + 8);
      for (on_host const& on : host_configs()) {
        guarded<bf16> rows = clean;
        view<bf16, 2> const to(rows.data() + shift, {{rows_count, hidden}}, {{r_stride, 1}});
        ASSERT_TRUE(dispatch(on, from, p.plan, to, {.gate = gate.as(s.tokens, s.top_k)}).ok());
        for (std::size_t r = 0; r < p.used(); ++r) {
          index_t const slot = p.row_slot[r];
          for (offset_t c = 0; c < hidden; ++c) {
            float const want =
                slot < 0 ? 0.0f
                         : gate[static_cast<std::size_t>(slot)] * to_float(from(slot / s.top_k, c));
            EXPECT_EQ(to(static_cast<offset_t>(r), c), from_float<bf16>(want));
          }
          // The gap between two rows stays as it was.
          EXPECT_TRUE(std::isnan(to_float(*(&to(static_cast<offset_t>(r), 0) + hidden))));
        }
      }
    }
  }
}

TEST(Dispatch, ValuesGoFromSlotsToRowsAndBack) {
  constexpr shape s{.tokens = 300, .hidden = 1, .experts = 7, .top_k = 3};
  plan_fixture const p =
      plan_of({}, s, ids_with_gaps(s, skew::zipf, 27), {.segment_multiple = 4}, 3);
  auto const gate = normal_values<float>(900, 28);
  guarded<float> row_gate(p.rows()), back(900);
  guarded<index_t> token(p.rows());
  for (int threads : {1, 2, 7}) {
    on_host const on{.threads = threads};
    row_gate.wipe();
    back.wipe();
    token.wipe();
    ASSERT_TRUE(gates_to_rows(on, gate.as(300, 3), p.plan, row_gate.as(p.rows())).ok());
    ASSERT_TRUE(rows_to_gates(on, row_gate.as(p.rows()), p.plan, back.as(300, 3)).ok());
    ASSERT_TRUE(row_tokens(on, p.plan, token.as(p.rows())).ok());
    for (std::size_t r = 0; r < p.rows(); ++r) {
      index_t const slot = p.row_slot[r];
      EXPECT_EQ(row_gate[r], slot < 0 ? 0.0f : gate[static_cast<std::size_t>(slot)]);
      EXPECT_EQ(token[r], slot < 0 ? -1 : slot / 3);
    }
    for (std::size_t slot = 0; slot < 900; ++slot) {
      EXPECT_EQ(back[slot], p.slot_row[slot] < 0 ? 0.0f : gate[slot]);
    }
  }
}

}  // namespace dispatch_test
}  // namespace shunt::test
