#pragma once
#include <cmath>
#include <cstddef>
#include <vector>

#include "support/compare.hpp"

/// Combine and its gradients from their definitions, in double, one element at a time.
namespace shunt::test::oracle {

/// Everything that one call may read, already in double; an empty vector is an absent argument.
struct combine_inputs {
  std::size_t tokens = 0, hidden = 0, top_k = 0;
  std::vector<int> slot_row = {};  // [T·K]
  std::vector<double> rows = {};   // [R·H]
  std::vector<double> gate = {};   // [T·K]
  std::vector<int> expert = {};    // [T·K], where there are zero experts: ids from `first_zero` on
  int first_zero = 0, zeros = 0;
  std::vector<double> x = {}, shared = {}, shared_gate = {}, residual = {};
  std::vector<int> valid = {};

  bool counts(std::size_t t) const { return valid.empty() || valid[t] != 0; }
  bool identity(std::size_t slot) const {
    return slot_row[slot] < 0 && !expert.empty() && expert[slot] >= first_zero &&
           expert[slot] < first_zero + zeros;
  }
  double factor(std::size_t slot) const { return gate.empty() ? 1.0 : gate[slot]; }
};

inline void add(expectation& sum, double what) {
  sum.value += what;
  sum.magnitude += std::abs(what);
}

inline std::vector<expectation> combine(combine_inputs const& q) {
  std::vector<expectation> y(q.tokens * q.hidden);
  for (std::size_t t = 0; t < q.tokens; ++t) {
    for (std::size_t c = 0; c < q.hidden && q.counts(t); ++c) {
      auto& sum = y[t * q.hidden + c];
      for (std::size_t slot = t * q.top_k; slot < (t + 1) * q.top_k; ++slot) {
        if (q.slot_row[slot] >= 0) {
          add(sum,
              q.factor(slot) * q.rows[static_cast<std::size_t>(q.slot_row[slot]) * q.hidden + c]);
        }
        if (q.identity(slot)) add(sum, q.factor(slot) * q.x[t * q.hidden + c]);
      }
      if (!q.shared.empty()) {
        add(sum, (q.shared_gate.empty() ? 1.0 : q.shared_gate[t]) * q.shared[t * q.hidden + c]);
      }
      if (!q.residual.empty()) add(sum, q.residual[t * q.hidden + c]);
    }
  }
  return y;
}

struct combine_answer {
  std::vector<expectation> d_rows, d_gate, d_shared, d_shared_gate, d_residual, d_x;
};

/// `row_count` rows; those that serve no slot have gradient 0.
inline combine_answer combine_backward(combine_inputs const& q, std::vector<double> const& d_y,
                                       std::size_t row_count) {
  combine_answer a;
  std::size_t const all = q.tokens * q.hidden;
  a.d_rows.resize(row_count * q.hidden);
  a.d_gate.resize(q.tokens * q.top_k);
  a.d_shared.resize(all);
  a.d_shared_gate.resize(q.tokens);
  a.d_residual.resize(all);
  a.d_x.resize(all);
  for (std::size_t t = 0; t < q.tokens; ++t) {
    for (std::size_t c = 0; c < q.hidden && q.counts(t); ++c) {
      double const g = d_y[t * q.hidden + c];
      for (std::size_t slot = t * q.top_k; slot < (t + 1) * q.top_k; ++slot) {
        if (q.slot_row[slot] >= 0) {
          auto const at = static_cast<std::size_t>(q.slot_row[slot]) * q.hidden + c;
          add(a.d_rows[at], q.factor(slot) * g);
          add(a.d_gate[slot], q.rows[at] * g);
        }
        if (q.identity(slot)) {
          add(a.d_x[t * q.hidden + c], q.factor(slot) * g);
          add(a.d_gate[slot], q.x[t * q.hidden + c] * g);
        }
      }
      if (!q.shared.empty()) {
        add(a.d_shared[t * q.hidden + c], (q.shared_gate.empty() ? 1.0 : q.shared_gate[t]) * g);
        add(a.d_shared_gate[t], q.shared[t * q.hidden + c] * g);
      }
      add(a.d_residual[t * q.hidden + c], g);
    }
  }
  return a;
}

}  // namespace shunt::test::oracle
