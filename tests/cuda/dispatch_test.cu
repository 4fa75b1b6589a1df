// Dispatch on a device: the host's bits, for every element type, width and alignment.
#include <gtest/gtest.h>

#include <string>

#include "support/device_plan.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace dispatch_test {

/// An element that is no number: dispatch moves bytes.
struct triple {
  std::uint8_t at[3];
};

/// [rows, columns] inside a buffer whose rows are `stride` apart, `shift` elements from its start.
template <class T>
auto inside(on_device<T> const& m, offset_t shift, offset_t rows, offset_t columns,
            offset_t stride) {
  return view<T, 2, space::device>(m.data() + shift, {{rows, columns}}, {{stride, 1}});
}
template <class T>
auto inside(std::vector<T>& m, offset_t shift, offset_t rows, offset_t columns, offset_t stride) {
  return view<T, 2>(m.data() + shift, {{rows, columns}}, {{stride, 1}});
}

struct fixture {
  shape s;
  plan_fixture host;
  device_plan_fixture device;
  offset_t rows;
  fixture(shape const& is, skew how, index_t multiple = 4)
      : s(is),
        host(plan_of({}, is, chosen_experts(is, how, 1),
                     {.capacity = 1 + is.tokens / 3, .segment_multiple = multiple}, 5)),
        device(is, host),
        rows(static_cast<offset_t>(host.rows())) {}
};

/// Plain copies, into rows that hold a mark: rows behind the last segment keep it.
template <class T> void expect_copies(fixture const& q, offset_t shift, offset_t gap) {
  offset_t const h = q.s.hidden, stride = h + gap;
  auto const x = values<T>(shift + q.s.tokens * stride, 1);
  std::vector<T> want = values<T>(shift + q.rows * stride, 2);
  on_device<T> const d_x(x), d_rows(want);
  auto mutable_x = x;
  ASSERT_TRUE(dispatch(on_host{}, inside(mutable_x, shift, q.s.tokens, h, stride), q.host.plan,
                       inside(want, shift, q.rows, h, stride))
                  .ok());
  status const done = dispatch(on_cuda{}, inside(d_x, shift, q.s.tokens, h, stride), q.device.plan,
                               inside(d_rows, shift, q.rows, h, stride));
  ASSERT_TRUE(done.ok()) << done.message();
  EXPECT_TRUE(same_values(d_rows.host(), want)) << "shift " << shift << ", gap " << gap;
}

template <class T> class CudaDispatch : public testing::Test {};
using element_types = testing::Types<float, bf16, double, triple>;
TYPED_TEST_SUITE(CudaDispatch, element_types);

TYPED_TEST(CudaDispatch, MovesEveryElementAndZeroesPaddingRows) {
  for (auto const& named : battery) {
    SCOPED_TRACE(named.name);
    expect_copies<TypeParam>(fixture(named.is, skew::zipf), 0, 0);
  }
}
TYPED_TEST(CudaDispatch, Battery26_AnyAlignmentStrideAndWidth) {
  for (index_t hidden : {1, 2, 3, 8, 31, 64, 96, 1000, 2048, 5001}) {
    fixture const q({.tokens = 7, .hidden = hidden, .experts = 3, .top_k = 2}, skew::uniform);
    for (offset_t shift : {0, 1, 4}) expect_copies<TypeParam>(q, shift, 3 * shift);
  }
}
TEST(CudaDispatchMany, MoreChoicesThanLanes) {
  expect_copies<float>(
      fixture({.tokens = 5, .hidden = 40, .experts = 70, .top_k = 67}, skew::uniform), 0, 0);
}

template <class T> class CudaDispatchWithGates : public testing::Test {};
using storage_types = testing::Types<float, bf16, fp16>;
TYPED_TEST_SUITE(CudaDispatchWithGates, storage_types);

TYPED_TEST(CudaDispatchWithGates, RowsAndGradientsAreTheHostsBits) {
  using T = TypeParam;
  for (auto const& named : battery) {
    SCOPED_TRACE(named.name);
    fixture const q(named.is, skew::uniform);
    shape const& s = q.s;
    auto const x = values<T>(offset_t{s.tokens} * s.hidden, 3);
    auto const gate = values<float>(offset_t{s.tokens} * s.top_k, 4);
    auto want = values<T>(q.rows * s.hidden, 5);
    on_device<T> const d_x(x), d_rows(want);
    on_device<float> const d_gate(gate);
    auto const h_x = view<T const, 2>(x.data(), {{s.tokens, s.hidden}});
    auto const h_gate = view<float const, 2>(gate.data(), {{s.tokens, s.top_k}});
    auto const h_rows = view<T, 2>(want.data(), {{q.rows, s.hidden}});
    on_cuda const on;
    ASSERT_TRUE(dispatch(on_host{}, h_x, q.host.plan, h_rows, {.gate = h_gate}).ok());
    ASSERT_TRUE(dispatch(on, d_x.as(s.tokens, s.hidden), q.device.plan, d_rows.as(q.rows, s.hidden),
                         {.gate = d_gate.as(s.tokens, s.top_k)})
                    .ok());
    EXPECT_TRUE(same_values(d_rows.host(), want));

    // Backward, from these rows; d_x as the same type and as float, overwritten and added to.
    for (bool gated : {false, true}) {
      for (bool accumulate : {false, true}) {
        auto grad = values<float>(offset_t{s.tokens} * s.hidden, 6);
        std::vector<float> dots(gate.size());
        on_device<float> const d_grad(grad), d_dots(static_cast<offset_t>(dots.size()));
        dispatch_gradients<T> o{.x = h_x, .accumulate = accumulate};
        dispatch_gradients<T, space::device> d{.x = d_x.as(s.tokens, s.hidden),
                                               .accumulate = accumulate};
        if (gated) {
          o.gate = h_gate;
          o.d_gate = view<float, 2>(dots.data(), {{s.tokens, s.top_k}});
          d.gate = d_gate.as(s.tokens, s.top_k);
          d.d_gate = d_dots.as(s.tokens, s.top_k);
        }
        ASSERT_TRUE(dispatch_backward(on_host{}, h_rows, q.host.plan,
                                      view<float, 2>(grad.data(), {{s.tokens, s.hidden}}), o)
                        .ok());
        status const done = dispatch_backward(on, d_rows.as(q.rows, s.hidden), q.device.plan,
                                              d_grad.as(s.tokens, s.hidden), d);
        ASSERT_TRUE(done.ok()) << done.message();
        EXPECT_TRUE(same_values(d_grad.host(), grad)) << gated << accumulate;
        if (gated) { EXPECT_TRUE(same_values(d_dots.host(), dots)); }
      }
    }
  }
}

TEST(CudaDispatch, ValuesGoFromSlotsToRowsAndBack) {
  for (auto const& named : battery) {
    SCOPED_TRACE(named.name);
    fixture const q(named.is, skew::half_empty);
    shape const& s = q.s;
    auto const gate = values<float>(offset_t{s.tokens} * s.top_k, 7);
    on_device<float> const d_gate(gate), d_row(q.rows), d_back(static_cast<offset_t>(gate.size()));
    on_device<index_t> const d_token(q.rows);
    on_cuda const on;
    std::vector<index_t> token(static_cast<std::size_t>(q.rows));
    std::vector<float> row(token.size()), back(gate.size());
    ASSERT_TRUE(row_tokens(on_host{}, q.host.plan, view<index_t, 1>(token)).ok());
    ASSERT_TRUE(row_tokens(on, q.device.plan, d_token.as(q.rows)).ok());
    EXPECT_EQ(d_token.host(), token);
    auto const h_gate = view<float const, 2>(gate.data(), {{s.tokens, s.top_k}});
    ASSERT_TRUE(gates_to_rows(on_host{}, h_gate, q.host.plan, row).ok());
    ASSERT_TRUE(
        gates_to_rows(on, d_gate.as(s.tokens, s.top_k), q.device.plan, d_row.as(q.rows)).ok());
    EXPECT_TRUE(same_values(d_row.host(), row));
    ASSERT_TRUE(rows_to_gates(on_host{}, row, q.host.plan,
                              view<float, 2>(back.data(), {{s.tokens, s.top_k}}))
                    .ok());
    ASSERT_TRUE(
        rows_to_gates(on, d_row.as(q.rows), q.device.plan, d_back.as(s.tokens, s.top_k)).ok());
    EXPECT_TRUE(same_values(d_back.host(), back));
  }
}

/// A plan that is not ours: wild numbers read and write nothing outside.
TEST(CudaDispatch, Battery06_PlanOfWildNumbersReadsAndWritesNothing) {
  shape const s{.tokens = 3, .hidden = 8, .experts = 2, .top_k = 2};
  device_plan_fixture p(s, 6);
  p.offset.fill({0, 3, 1 << 30});
  p.row_slot.fill({5, -9, 6, 1 << 30, 0, -1});
  p.slot_row.fill({4, -7, 1 << 30, 6, -1, 0});
  auto const x = values<float>(24, 8);
  on_device<float> const d_x(x), d_rows(std::vector<float>(48, 9.0f));
  ASSERT_TRUE(dispatch(on_cuda{}, d_x.as(3, 8), p.plan, d_rows.as(6, 8)).ok());
  auto const rows = d_rows.host();
  for (std::size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(rows[4 * 8 + i], x[i]);
    EXPECT_EQ(rows[i], x[2 * 8 + i]);
    EXPECT_EQ(rows[8 + i], 0.0f);
  }
}

TEST(CudaDispatch, RefusesBeforeAnythingIsEnqueued) {
  shape const s{.tokens = 3, .hidden = 8, .experts = 2, .top_k = 2};
  device_plan_fixture const p(s, 6);
  on_device<float> const x(24), rows(48);
  EXPECT_STREQ(dispatch(on_cuda{}, x.as(3, 8), p.plan, rows.as(8, 6)).message(),
               dispatch(on_host{}, view<float const, 2>(x.data(), {{3, 8}}),
                        dispatch_plan<>{.offset = {p.offset.data(), {{3}}},
                                        .row_slot = {p.row_slot.data(), {{6}}},
                                        .slot_row = {p.slot_row.data(), {{6}}},
                                        .tokens = 3,
                                        .top_k = 2},
                        view<float, 2>(rows.data(), {{8, 6}}))
                   .message());
  EXPECT_EQ(dispatch(on_cuda{}, x.as(3, 8), p.plan, rows.as(8, 6)).code(), error::bad_shape);
}

}  // namespace dispatch_test
}  // namespace shunt::test
