#include <gtest/gtest.h>

#include <string>

#include "shunt/combine.hpp"
#include "shunt/dispatch.hpp"
#include "support/expect_error.hpp"
#include "support/plan_fixture.hpp"
#include "support/random.hpp"

// Every bad argument has its sentence, and nothing is written before it is said.
namespace shunt::test {
namespace combine_errors_test {

constexpr shape size{.tokens = 4, .hidden = 6, .experts = 3, .top_k = 2};

class CombineErrors : public testing::Test {
 protected:
  on_host on;
  plan_fixture p = plan_of({}, size, {0, 1, 2, 0, 1, 2, 0, 1});
  guarded<float> rows_memory = normal_values<float>(48, 1), y_memory{24}, gate_memory{8}, token{24};
  guarded<index_t> ids{8};
  view<float, 2> rows = rows_memory.as(8, 6), y = y_memory.as(4, 6), gate = gate_memory.as(4, 2);
};

class CombineForwardErrors : public CombineErrors {
 protected:
  status run(combine_options<float> const& o = {}) { return combine(on, rows, p.plan, gate, y, o); }
  void TearDown() override { EXPECT_TRUE(same_bits(y_memory, guarded<float>(24))) << "written"; }
};

TEST_F(CombineForwardErrors, ShapesThatDoNotFit) {
  rows = rows_memory.as(6, 8);
  expect_error(run(), error::bad_shape,
               "combine.rows: extent 0 is 6; it must be 8 (rows of the plan)");
  rows = rows_memory.as(8, 6);
  y = y_memory.as(3, 8);
  expect_error(run(), error::bad_shape, "combine.y: extent 0 is 3; it must be 4 (plan.tokens)");
  y = y_memory.as(4, 6).slice(0, 4);
  y = {y_memory.data(), {{4, 5}}, {{6, 1}}};
  expect_error(run(), error::bad_shape, "combine.rows: extent 1 is 6; it must be 5 (hidden)");
  y = {y_memory.data(), {{4, 6}}, {{1, 4}}};
  expect_error(run(), error::bad_shape,
               "combine.y: the last axis has stride 4; it must be 1 (contiguous)");
  y = y_memory.as(4, 6);
  gate = gate_memory.as(2, 4);
  expect_error(run(), error::bad_shape, "combine.gate: extent 0 is 2; it must be 4 (plan.tokens)");
  gate = gate_memory.as(4, 2);
  p.plan.slot_row = p.plan.slot_row.slice(0, 7);
  expect_error(run(), error::bad_shape,
               "combine.plan.slot_row: extent 0 is 7; it must be 8 (tokens x top_k)");
}

TEST_F(CombineForwardErrors, WhatStandsBesideTheRows) {
  expect_error(run({.shared = token.as(6, 4)}), error::bad_shape,
               "combine.options.shared: extent 0 is 6; it must be 4 (plan.tokens)");
  expect_error(run({.residual = token.as(4, 5).slice(0, 4)}), error::bad_shape,
               "combine.options.residual: extent 1 is 5; it must be 6 (hidden)");
  guarded<float> per_token(4);
  expect_error(
      run({.shared_gate = per_token.as(4)}), error::null_pointer,
      "combine.options.shared: the pointer is null; with shared_gate it must be the shared output "
      "[4,6]");
  expect_error(run({.shared = token.as(4, 6), .shared_gate = gate_memory.as(8)}), error::bad_shape,
               "combine.options.shared_gate: extent 0 is 8; it must be 4 (plan.tokens)");
  guarded<std::uint8_t> valid(6);
  expect_error(run({.valid = valid.as(6)}), error::bad_shape,
               "combine.options.valid: extent 0 is 6; it must be 4 (plan.tokens)");
}

TEST_F(CombineForwardErrors, Battery22_ZeroExpertsWithoutIdsOrTokens) {
  expect_error(
      run({.zero = {.count = 2}}), error::null_pointer,
      "combine.options.zero.expert: the pointer is null; with 2 zero experts it must be the ids "
      "[4,2]");
  expect_error(
      run({.zero = {.expert = ids.as(4, 2), .count = 2}}), error::null_pointer,
      "combine.options.zero.x: the pointer is null; with 2 zero experts it must be the tokens "
      "[4,6]");
  expect_error(run({.zero = {.expert = ids.as(2, 4), .x = token.as(4, 6), .count = 2}}),
               error::bad_shape,
               "combine.options.zero.expert: extent 0 is 2; it must be 4 (plan.tokens)");
  expect_error(run({.zero = {.first = -1}}), error::bad_argument,
               "combine.options.zero.first is -1; it must be from 0 to 2147483647");
  expect_error(run({.zero = {.count = -1}}), error::bad_argument,
               "combine.options.zero.count is -1; it must be from 0 to 2147483647");
}

TEST_F(CombineForwardErrors, SharedMemory) {
  guarded<float> both(60);
  rows = {both.data(), {{8, 6}}};
  y = {both.data() + 36, {{4, 6}}};
  expect_error(run(), error::overlap, "combine.y and rows share memory; they must not");
  rows = rows_memory.as(8, 6);
  y = y_memory.as(4, 6);
  // Exactly y's memory is allowed for what is added to it; shifted by a row it is not.
  guarded<float> longer(30);
  y = {longer.data(), {{4, 6}}};
  expect_error(run({.residual = view<float const, 2>(longer.data() + 6, {{4, 6}})}), error::overlap,
               "combine.y and options.residual share memory; they must not");
  y = y_memory.as(4, 6);
}

TEST_F(CombineForwardErrors, PolicyOfNoMachine) {
  on.threads = -1;
  expect_error(run(), error::bad_argument, "on_host.threads is -1; it must be 0 or more");
}

class CombineBackwardErrors : public CombineErrors {
 protected:
  guarded<float> d_y_memory = normal_values<float>(24, 2), d_rows_memory = guarded<float>(48);
  view<float const, 2> d_y = view<float, 2>(d_y_memory.data(), {{4, 6}});
  view<float, 2> d_rows = d_rows_memory.as(8, 6);

  status run(combine_gradients<float> const& o = {}) {
    return combine_backward(on, d_y, p.plan, gate, rows, d_rows, o);
  }
  void TearDown() override {
    EXPECT_TRUE(same_bits(d_rows_memory, guarded<float>(48))) << "d_rows was written";
    EXPECT_TRUE(same_bits(gate_memory, guarded<float>(8))) << "d_gate was written";
    EXPECT_TRUE(same_bits(token, guarded<float>(24))) << "a token gradient was written";
  }
};

TEST_F(CombineBackwardErrors, ShapesThatDoNotFit) {
  d_rows = d_rows_memory.as(6, 8);
  expect_error(run(), error::bad_shape,
               "combine_backward.d_rows: extent 0 is 6; it must be 8 (rows of the plan)");
  d_rows = d_rows_memory.as(8, 6);
  rows = rows_memory.as(6, 8);
  expect_error(run(), error::bad_shape,
               "combine_backward.rows: extent 0 is 6; it must be 8 (rows of the plan)");
  rows = rows_memory.as(8, 6);
  d_y = {d_y_memory.data(), {{3, 6}}};
  expect_error(run(), error::bad_shape,
               "combine_backward.d_y: extent 0 is 3; it must be 4 (plan.tokens)");
  d_y = {nullptr, {{4, 6}}};
  expect_error(run(), error::null_pointer,
               "combine_backward.d_y: the pointer is null; it must point to 24 elements");
}

TEST_F(CombineBackwardErrors, ResultsThatDoNotFit) {
  guarded<float> other(8), per_token(4);
  expect_error(run({.d_gate = other.as(2, 4)}), error::bad_shape,
               "combine_backward.options.d_gate: extent 0 is 2; it must be 4 (plan.tokens)");
  expect_error(run({.d_shared = token.as(6, 4)}), error::bad_shape,
               "combine_backward.options.d_shared: extent 0 is 6; it must be 4 (plan.tokens)");
  expect_error(run({.d_residual = token.as(6, 4)}), error::bad_shape,
               "combine_backward.options.d_residual: extent 0 is 6; it must be 4 (plan.tokens)");
  expect_error(run({.d_x = token.as(6, 4)}), error::bad_shape,
               "combine_backward.options.d_x: extent 0 is 6; it must be 4 (plan.tokens)");
  expect_error(run({.d_shared_gate = other.as(8)}), error::bad_shape,
               "combine_backward.options.d_shared_gate: extent 0 is 8; it must be 4 (plan.tokens)");
  expect_error(
      run({.d_shared_gate = per_token.as(4)}), error::null_pointer,
      "combine_backward.options.shared: the pointer is null; for d_shared_gate it must be the "
      "shared output [4,6]");
  expect_error(
      run({.zero = {.expert = ids.as(4, 2), .count = 1}, .d_gate = other.as(4, 2)}),
      error::null_pointer,
      "combine_backward.options.zero.x: the pointer is null; with 1 zero experts it must be the "
      "tokens [4,6]");
}

TEST_F(CombineBackwardErrors, SharedMemory) {
  expect_error(run({.d_gate = gate}), error::overlap,
               "combine_backward.options.d_gate and gate share memory; they must not");
  expect_error(run({.d_shared = view<float, 2>(d_y_memory.data(), {{4, 6}})}), error::overlap,
               "combine_backward.options.d_shared and d_y share memory; they must not");
  rows = d_rows;
  expect_error(run(), error::overlap,
               "combine_backward.d_rows and rows share memory; they must not");
}

}  // namespace combine_errors_test
}  // namespace shunt::test
