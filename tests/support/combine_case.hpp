#pragma once
#include <string>

#include "shunt/combine.hpp"
#include "support/oracle_combine.hpp"
#include "support/plan_fixture.hpp"
#include "support/random.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace combine_case {

template <class A> std::vector<int> ints(A const& a) { return {a.begin(), a.end()}; }
std::size_t size_of(offset_t a, offset_t b) { return static_cast<std::size_t>(a * b); }

/// Ids with gaps (-1), and, behind the real experts, those of `zeros` zero experts.
inline std::vector<index_t> some_ids(shape const& s, skew how, index_t zeros, std::uint64_t seed) {
  std::vector<index_t> ids = chosen_experts(s, how, seed);
  rng d(seed);
  for (auto& id : ids) {
    if (d.below(7) == 0) id = -1;
    if (zeros > 0 && d.below(4) == 0) id = s.experts + static_cast<index_t>(d.below(zeros));
  }
  return ids;
}

enum class what { plain, weighted, everything };

/// All that a call reads, of rows R and tokens Y; `rows` is NaN where no slot has a row.
template <class R, class Y> struct fixture {
  shape s;
  index_t zeros;
  std::vector<index_t> ids;
  plan_fixture p;
  guarded<R> rows;
  guarded<Y> x, shared, residual;
  guarded<float> gate, shared_gate;
  guarded<index_t> expert;
  guarded<std::uint8_t> valid;

  fixture(shape const& is, skew how, std::uint64_t seed)
      : s(is),
        zeros(3),
        ids(some_ids(s, how, zeros, seed)),
        p(plan_of({}, s, ids, {.segment_multiple = 4, .zero_experts = zeros}, 2)),
        rows(p.rows() * static_cast<std::size_t>(s.hidden)),
        x(normal_values<Y>(size_of(s.tokens, s.hidden), seed + 1)),
        shared(normal_values<Y>(size_of(s.tokens, s.hidden), seed + 2)),
        residual(normal_values<Y>(size_of(s.tokens, s.hidden), seed + 3)),
        gate(normal_values<float>(size_of(s.tokens, s.top_k), seed + 4)),
        shared_gate(normal_values<float>(static_cast<std::size_t>(s.tokens), seed + 5)),
        expert(ids),
        valid(static_cast<std::size_t>(s.tokens)) {
    auto const values = normal_values<R>(rows.size(), seed + 6);
    auto const h = static_cast<std::size_t>(s.hidden);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (p.row_slot[i / h] >= 0) rows[i] = values[i];
    }
    for (std::size_t t = 0; t < valid.size(); ++t) valid[t] = t % 5 == 3 ? 0 : 1;
  }

  view<float const, 2> gates(what w) const {
    return w == what::plain ? view<float const, 2>{} : gate.as(s.tokens, s.top_k);
  }
  combine_options<Y> options(what w) const {
    if (w != what::everything) return {};
    return {.shared = shared.as(s.tokens, s.hidden),
            .shared_gate = shared_gate.as(s.tokens),
            .residual = residual.as(s.tokens, s.hidden),
            .zero = {expert.as(s.tokens, s.top_k), x.as(s.tokens, s.hidden), s.experts, zeros},
            .valid = valid.as(s.tokens)};
  }
  oracle::combine_inputs inputs(what w) const {
    oracle::combine_inputs q{.tokens = static_cast<std::size_t>(s.tokens),
                             .hidden = static_cast<std::size_t>(s.hidden),
                             .top_k = static_cast<std::size_t>(s.top_k),
                             .slot_row = ints(p.slot_row),
                             .rows = in_double(rows)};
    if (w != what::plain) q.gate = in_double(gate);
    if (w == what::everything) {
      q.expert = ints(expert);
      q.first_zero = s.experts;
      q.zeros = zeros;
      q.x = in_double(x);
      q.shared = in_double(shared);
      q.shared_gate = in_double(shared_gate);
      q.residual = in_double(residual);
      q.valid = ints(valid);
    }
    return q;
  }
};

}  // namespace combine_case
}  // namespace shunt::test
