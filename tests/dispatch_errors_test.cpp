#include <gtest/gtest.h>

#include <string>

#include "shunt/dispatch.hpp"
#include "support/expect_error.hpp"
#include "support/plan_fixture.hpp"
#include "support/random.hpp"

// Every bad argument has its sentence, and nothing is written before it is said.
namespace shunt::test {
namespace dispatch_errors_test {

constexpr shape size{.tokens = 4, .hidden = 6, .experts = 3, .top_k = 2};

class PlanErrors : public testing::Test {
 protected:
  status run(plan_options<> const& o = {}) {
    return plan_dispatch(on, expert, plan, arena<>(scratch), o);
  }
  void TearDown() override {
    EXPECT_TRUE(same_bits(made.offset, guarded<index_t>(4))) << "offset was written";
    EXPECT_TRUE(same_bits(made.row_slot, guarded<index_t>(made.rows()))) << "row_slot was written";
    EXPECT_TRUE(same_bits(made.slot_row, guarded<index_t>(8))) << "slot_row was written";
  }

  on_host on;
  guarded<index_t> ids = std::vector<index_t>{0, 1, 2, 0, 1, 2, 0, 1};
  view<index_t const, 2> expert{ids.data(), {{4, 2}}};
  plan_fixture made{size, 64};
  dispatch_plan<> plan = made.plan;
  guarded<std::byte> scratch{1 << 16};
};

TEST_F(PlanErrors, ShapesThatDoNotFit) {
  expert = {ids.data(), {{3, 2}}};
  expect_error(run(), error::bad_shape,
               "plan_dispatch.expert: extent 0 is 3; it must be 4 (plan.tokens)");
  expert = {ids.data(), {{4, 1}}};
  expect_error(run(), error::bad_shape,
               "plan_dispatch.expert: extent 1 is 1; it must be 2 (plan.top_k)");
  expert = {ids.data(), {{4, 2}}, {{1, 2}}};
  expect_error(run(), error::bad_shape,
               "plan_dispatch.expert: the last axis has stride 2; it must be 1 (contiguous)");
  expert = {nullptr, {{4, 2}}};
  expect_error(run(), error::null_pointer,
               "plan_dispatch.expert: the pointer is null; it must point to 8 elements");
}

TEST_F(PlanErrors, PlanWhoseViewsDoNotFit) {
  plan.slot_row = made.plan.slot_row.slice(0, 7);
  expect_error(run(), error::bad_shape,
               "plan_dispatch.plan.slot_row: extent 0 is 7; it must be 8 (tokens x top_k)");
  plan = made.plan;
  plan.offset = {};
  expect_error(run(), error::bad_shape,
               "plan_dispatch.plan.offset: extent 0 is 0; it must be 1 or more (experts + 1)");
  plan.offset = {nullptr, {{4}}};
  expect_error(run(), error::null_pointer,
               "plan_dispatch.plan.offset: the pointer is null; it must point to 4 elements");
  plan = made.plan;
  plan.tokens = -1;
  expect_error(run(), error::bad_argument,
               "plan_dispatch.plan.tokens is -1; it must be from 0 to 2147483647");
  plan = made.plan;
  plan.row_slot = {made.row_slot.data(), {{32}}, {{2}}};
  expect_error(
      run(), error::bad_shape,
      "plan_dispatch.plan.row_slot: the last axis has stride 2; it must be 1 (contiguous)");
}

TEST_F(PlanErrors, TooFewRows) {
  plan.row_slot = made.plan.row_slot.slice(0, 7);
  expect_error(
      run(), error::bad_shape,
      "plan_dispatch.plan.row_slot: extent 0 is 7; it must be 8 or more (the rows that any choice "
      "may need)");
  plan.row_slot = made.plan.row_slot.slice(0, 28);
  expect_error(
      run({.segment_multiple = 8}), error::bad_shape,
      "plan_dispatch.plan.row_slot: extent 0 is 28; it must be 29 or more (the rows that any "
      "choice may need)");
  plan.row_slot = made.plan.row_slot.slice(0, 5);
  expect_error(
      run({.capacity = 2}), error::bad_shape,
      "plan_dispatch.plan.row_slot: extent 0 is 5; it must be 6 or more (the rows that any choice "
      "may need)");
}

TEST_F(PlanErrors, Battery05_SlotsAndRowsBeyond32Bits) {
  plan.tokens = 1 << 27;
  plan.top_k = 16;
  expect_error(
      run(), error::too_large,
      "plan_dispatch.plan.tokens x top_k is 134217728 x 16; it must be at most 2147483647");
  plan = made.plan;
  expect_error(run({.segment_multiple = 1 << 30}), error::too_large,
               "plan_dispatch.plan.row_slot is 3221225477 x 1; it must be at most 2147483647");
}

TEST_F(PlanErrors, OptionsWithoutMeaning) {
  expect_error(run({.capacity = -1}), error::bad_argument,
               "plan_dispatch.options.capacity is -1; it must be from 0 to 2147483647");
  expect_error(run({.segment_multiple = 0}), error::bad_argument,
               "plan_dispatch.options.segment_multiple is 0; it must be from 1 to 2147483647");
  expect_error(run({.first_expert = -2}), error::bad_argument,
               "plan_dispatch.options.first_expert is -2; it must be from 0 to 2147483644");
  expect_error(run({.first_expert = 4, .experts = 6}), error::bad_argument,
               "plan_dispatch.options.experts is 6; it must be from 7 to 2147483647");
  expect_error(run({.zero_experts = -1}), error::bad_argument,
               "plan_dispatch.options.zero_experts is -1; it must be from 0 to 2147483647");
  expect_error(
      run({.capacity = 1, .drop = drop_policy::by_gate}), error::null_pointer,
      "plan_dispatch.options.gate: the pointer is null; dropping by gate must have gates [4,2]");
  guarded<float> gate(8);
  expect_error(run({.gate = gate.as(2, 4)}), error::bad_shape,
               "plan_dispatch.options.gate: extent 0 is 2; it must be 4 (plan.tokens)");
}

TEST_F(PlanErrors, Battery09_MaskOfTheWrongAxis) {
  guarded<std::uint8_t> valid(3);
  expect_error(run({.valid = valid.as(3)}), error::bad_shape,
               "plan_dispatch.options.valid: extent 0 is 3; it must be 4 (plan.tokens)");
}

TEST_F(PlanErrors, ReportsOfTheWrongSize) {
  guarded<index_t> counts(4);
  expect_error(run({.report = {.wanted = counts.as(4)}}), error::bad_shape,
               "plan_dispatch.options.report.wanted: extent 0 is 4; it must be 3 (experts)");
  expect_error(run({.report = {.kept = counts.as(4)}}), error::bad_shape,
               "plan_dispatch.options.report.kept: extent 0 is 4; it must be 3 (experts)");
  guarded<plan_counts> totals(2);
  expect_error(
      run({.report = {.totals = totals.as(2)}}), error::bad_shape,
      "plan_dispatch.options.report.totals: extent 0 is 2; it must be 1 (one plan_counts)");
}

TEST_F(PlanErrors, ArenaTooSmallSaysHowLarge) {
  std::size_t const need = plan_scratch_bytes(on, size);
  scratch = guarded<std::byte>(need / 2);
  expect_error(run(), error::arena_too_small,
               "plan_dispatch.arena: the arena has " + std::to_string(need / 2) +
                   " bytes; it must have " + std::to_string(need) +
                   " (ask an arena that is measuring)");
}

TEST_F(PlanErrors, SharedMemory) {
  plan.slot_row = view<index_t, 1>(ids.data(), {{8}});
  expect_error(run(), error::overlap,
               "plan_dispatch.plan.slot_row and expert share memory; they must not");
  plan = made.plan;
  plan.row_slot = {made.slot_row.data(), {{8}}};
  expect_error(run(), error::overlap,
               "plan_dispatch.plan.row_slot and plan.slot_row share memory; they must not");
}

TEST_F(PlanErrors, PolicyOfNoMachine) {
  on.threads = -1;
  expect_error(run(), error::bad_argument, "on_host.threads is -1; it must be 0 or more");
}

class PermuteErrors : public testing::Test {
 protected:
  plan_fixture p = plan_of({}, size, {0, 1, 2, 0, 1, 2, 0, 1});
  guarded<float> x = normal_values<float>(24, 1), rows = guarded<float>(48), gate{8};
  view<float, 2> tokens = x.as(4, 6), to = rows.as(8, 6);

  void TearDown() override { EXPECT_TRUE(same_bits(rows, guarded<float>(48))) << "written"; }
};

TEST_F(PermuteErrors, Dispatch) {
  on_host const on;
  expect_error(dispatch(on, x.as(3, 8), p.plan, to), error::bad_shape,
               "dispatch.x: extent 0 is 3; it must be 4 (plan.tokens)");
  expect_error(dispatch(on, tokens, p.plan, rows.as(6, 8)), error::bad_shape,
               "dispatch.rows: extent 0 is 6; it must be 8 (rows of the plan)");
  expect_error(dispatch(on, tokens, p.plan, rows.as(8, 5)), error::bad_shape,
               "dispatch.rows: extent 1 is 5; it must be 6 (hidden)");
  expect_error(dispatch(on, tokens, p.plan, view<float, 2>(nullptr, {{8, 6}})), error::null_pointer,
               "dispatch.rows: the pointer is null; it must point to 48 elements");
  expect_error(dispatch(on, view<float, 2>(x.data(), {{4, 6}}, {{1, 4}}), p.plan, to),
               error::bad_shape,
               "dispatch.x: the last axis has stride 4; it must be 1 (contiguous)");
  expect_error(dispatch(on, tokens, p.plan, to, {.gate = gate.as(2, 4)}), error::bad_shape,
               "dispatch.options.gate: extent 0 is 2; it must be 4 (plan.tokens)");
  expect_error(dispatch(on, rows.as(8, 6).slice(0, 4), p.plan, to), error::overlap,
               "dispatch.rows and x share memory; they must not");
  guarded<std::uint8_t> byte_x(24), byte_rows(48);
  expect_error(
      dispatch(on, byte_x.as(4, 6), p.plan, byte_rows.as(8, 6), {.gate = gate.as(4, 2)}),
      error::unsupported,
      "dispatch.options.gate: elements of 1 bytes are no storage type; with gates they must be "
      "float, bf16 or fp16");
  auto const* const odd =
      reinterpret_cast<float const*>(reinterpret_cast<std::byte const*>(x.data()) + 2);
  expect_error(dispatch(on, view<float const, 2>(odd, {{4, 5}}), p.plan, rows.as(8, 6).slice(0, 8)),
               error::bad_shape, "dispatch.rows: extent 1 is 6; it must be 5 (hidden)");
  EXPECT_EQ(dispatch(on, view<float const, 2>(odd, {{4, 5}}), p.plan,
                     view<float, 2>(rows.data(), {{8, 5}}))
                .code(),
            error::bad_argument);  // not aligned to its element
  expect_error(dispatch(on_host{.threads = -3}, tokens, p.plan, to), error::bad_argument,
               "on_host.threads is -3; it must be 0 or more");
}

TEST_F(PermuteErrors, DispatchBackward) {
  on_host const on;
  guarded<float> const d_rows = normal_values<float>(48, 2);
  auto const from = d_rows.as(8, 6);
  view<float, 2> const d_x = rows.as(8, 6).slice(0, 4);
  expect_error(dispatch_backward(on, d_rows.as(6, 8), p.plan, d_x), error::bad_shape,
               "dispatch_backward.d_rows: extent 0 is 6; it must be 8 (rows of the plan)");
  expect_error(dispatch_backward(on, from, p.plan, to), error::bad_shape,
               "dispatch_backward.d_x: extent 0 is 8; it must be 4 (plan.tokens)");
  expect_error(
      dispatch_backward(on, from, p.plan, d_x, {.d_gate = gate.as(4, 2)}), error::null_pointer,
      "dispatch_backward.options.x: the pointer is null; for d_gate it must be the forward's "
      "tokens [4,6]");
  expect_error(dispatch_backward(on, from, p.plan, d_x, {.x = tokens, .d_gate = gate.as(2, 4)}),
               error::bad_shape,
               "dispatch_backward.options.d_gate: extent 0 is 2; it must be 4 (plan.tokens)");
  expect_error(dispatch_backward(on, to, p.plan, d_x), error::overlap,
               "dispatch_backward.d_x and d_rows share memory; they must not");
  expect_error(dispatch_backward(on, from, p.plan, d_x, {.x = d_x}), error::overlap,
               "dispatch_backward.d_x and options.x share memory; they must not");
}

TEST_F(PermuteErrors, ValuesOfRows) {
  guarded<index_t> token(7);
  expect_error(row_tokens(on_host{}, p.plan, token.as(7)), error::bad_shape,
               "row_tokens.token: extent 0 is 7; it must be 8 (rows of the plan)");
  guarded<float> row_gate(8);
  expect_error(gates_to_rows(on_host{}, gate.as(2, 4), p.plan, row_gate.as(8)), error::bad_shape,
               "gates_to_rows.gate: extent 0 is 2; it must be 4 (plan.tokens)");
  expect_error(rows_to_gates(on_host{}, gate.as(8), p.plan, gate.as(4, 2)), error::overlap,
               "rows_to_gates.gate and row_gate share memory; they must not");
}

}  // namespace dispatch_errors_test
}  // namespace shunt::test
