#pragma once
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "shunt/route.hpp"
#include "support/guarded.hpp"
#include "support/host_configs.hpp"
#include "support/oracle_route_backward.hpp"
#include "support/random.hpp"

/// One router call with every output, in guarded memory that was left untouched before.
namespace shunt::test {

inline std::size_t at(offset_t i) { return static_cast<std::size_t>(i); }

template <class T> view<T, 2> matrix(guarded<T>& buffer, offset_t rows, offset_t columns) {
  return {buffer.data(), {{rows, columns}}};
}
template <class T>
view<T const, 2> matrix(guarded<T> const& buffer, offset_t rows, offset_t columns) {
  return {buffer.data(), {{rows, columns}}};
}

struct route_outputs {
  offset_t tokens, experts, top_k, sequences;
  guarded<index_t> expert, counts, total, sequence_counts, sequence_tokens;
  guarded<float> gate, z, importance, sequence_importance;
  guarded<std::int16_t> recorded;
  guarded<std::int64_t> report;

  route_outputs(offset_t t, offset_t e, offset_t k, offset_t n = 1)
      : tokens(t),
        experts(e),
        top_k(k),
        sequences(n),
        expert(at(t * k)),
        counts(at(e)),
        total(1),
        sequence_counts(at(n * e)),
        sequence_tokens(at(n)),
        gate(at(t * k)),
        z(at(t)),
        importance(at(e)),
        sequence_importance(at(n * e)),
        recorded(at(t * k)),
        report(at(route_events)) {}

  /// All outputs; the narrow record only where it fits.
  routing<> all() {
    routing<> r = plain();
    if (experts <= 32768) r.recorded = matrix(recorded, tokens, top_k);
    r.z = z;
    r.counts = counts;
    r.importance = importance;
    r.tokens = total;
    r.sequence_counts = matrix(sequence_counts, sequences, experts);
    r.sequence_importance = matrix(sequence_importance, sequences, experts);
    r.sequence_tokens = sequence_tokens;
    r.report = report;
    return r;
  }
  routing<> plain() {
    routing<> r;
    r.expert = matrix(expert, tokens, top_k);
    r.gate = matrix(gate, tokens, top_k);
    return r;
  }
  std::int64_t count(route_event e) const { return report[static_cast<std::size_t>(e)]; }
};

template <class Buffer> bool same_bits(Buffer const& a, Buffer const& b) {
  return a.size() == b.size() &&
         (a.size() == 0 ||
          std::memcmp(a.data(), b.data(), a.size() * sizeof(typename Buffer::value_type)) == 0);
}

inline testing::AssertionResult same_routing(route_outputs const& a, route_outputs const& b) {
  char const* what = !same_bits(a.expert, b.expert)           ? "expert"
                     : !same_bits(a.gate, b.gate)             ? "gate"
                     : !same_bits(a.z, b.z)                   ? "z"
                     : !same_bits(a.counts, b.counts)         ? "counts"
                     : !same_bits(a.importance, b.importance) ? "importance"
                     : !same_bits(a.sequence_importance, b.sequence_importance)
                         ? "sequence_importance"
                     : !same_bits(a.sequence_counts, b.sequence_counts) ? "sequence_counts"
                     : !same_bits(a.report, b.report)                   ? "report"
                                                                        : nullptr;
  if (what == nullptr) return testing::AssertionSuccess();
  return testing::AssertionFailure() << what << " differs";
}

inline guarded<std::byte> route_scratch_for(on_host const& on, offset_t t, offset_t e, offset_t k,
                                            offset_t n = 1) {
  std::size_t const size = route_scratch_bytes(on,
                                               {.tokens = static_cast<index_t>(t),
                                                .experts = static_cast<index_t>(e),
                                                .top_k = static_cast<index_t>(k)},
                                               static_cast<index_t>(n));
  guarded<std::byte> bytes(size);
  std::memset(static_cast<void*>(bytes.data()), 0xff, size);  // NaN in every float
  return bytes;
}

template <class T>
status run_route(on_host const& on, guarded<T> const& logits, route_outputs& out,
                 route_options const& o = {}, route_inputs<> const& with = {}) {
  auto bytes = route_scratch_for(on, out.tokens, out.experts, out.top_k, out.sequences);
  return route(on, matrix(logits, out.tokens, out.experts), with, out.all(), arena<>(bytes), o);
}

inline std::vector<double> row_of(std::vector<double> const& m, offset_t row, offset_t columns) {
  return {m.begin() + row * columns, m.begin() + (row + 1) * columns};
}
template <class Buffer> std::vector<int> ids_of(Buffer const& expert, offset_t row, offset_t k) {
  return {expert.begin() + row * k, expert.begin() + (row + 1) * k};
}

/// Uniform numbers of the documented streams, in [0,1).
inline double noise_at(route_options const& o, offset_t token, offset_t expert) {
  auto const words = random_at(o.seed, o.first_token + static_cast<std::uint64_t>(token),
                               1 + static_cast<std::uint64_t>(expert) / 4);
  return static_cast<double>(words.word[expert % 4] >> 8) * 0x1p-24;
}
inline std::vector<double> jittered(std::vector<double> row, route_options const& o,
                                    offset_t token) {
  double const j = static_cast<double>(o.jitter);
  for (offset_t e = 0; e < static_cast<offset_t>(row.size()) && j > 0.0; ++e) {
    row[at(e)] *= 1.0 - j + 2.0 * j * noise_at(o, token, e);
  }
  return row;
}

/// Every output against the oracle, token by token: the choice is one that the oracle's keys allow
/// within float's rounding (exactly the oracle's where the keys are the logits themselves), the gates
/// are the oracle's for that choice.
template <class T>
testing::AssertionResult agrees_with_oracle(guarded<T> const& logits, route_outputs const& out,
                                            route_options const& o,
                                            std::vector<double> const& bias = {},
                                            std::vector<std::uint8_t> const& valid = {}) {
  auto const z = in_double(logits);
  bool const exact = bias.empty() && o.jitter == 0.0f &&
                     !(o.groups > 1 && o.group_by == group_rule::sum_of_two_best);
  std::vector<double> importance(at(out.experts), 0.0);
  std::vector<std::int64_t> counts(at(out.experts), 0);
  std::int64_t tokens = 0;
  double spread = 0.0;
  for (offset_t t = 0; t < out.tokens; ++t) {
    std::vector<int> const ids = ids_of(out.expert, t, out.top_k);
    if (!valid.empty() && valid[at(t)] == 0) {
      for (offset_t k = 0; k < out.top_k; ++k) {
        if (ids[at(k)] != -1 || out.gate[at(t * out.top_k + k)] != 0.0f) {
          return testing::AssertionFailure() << "token " << t << " is padding but has an expert";
        }
      }
      if (out.z[at(t)] != 0.0f) return testing::AssertionFailure() << "z of padding " << t;
      continue;
    }
    ++tokens;
    oracle_row const r = oracle_scores(jittered(row_of(z, t, out.experts), o, t), o);
    std::vector<double> const key = oracle_keys(r, bias, o);
    std::vector<int> const best = oracle_best(key, at(out.top_k));
    for (std::size_t k = 0; k < best.size(); ++k) {
      bool good = ids[k] == best[k];
      if (!good && !exact && ids[k] >= 0 && best[k] >= 0) {
        double const mine = key[at(ids[k])], his = key[at(best[k])];
        good = std::abs(mine - his) <= 1e-6 * std::max(1.0, std::abs(his));
        for (std::size_t j = 0; j < k; ++j) good = good && ids[j] != ids[k];
      }
      if (!good) {
        return testing::AssertionFailure() << "token " << t << " slot " << k << " has expert "
                                           << ids[k] << ", the oracle " << best[k];
      }
    }
    std::vector<double> const gate = oracle_gates(r, ids, o);
    guarded<float> mine(at(out.top_k));
    std::vector<expectation> expected;
    for (std::size_t k = 0; k < gate.size(); ++k) {
      mine[k] = out.gate[at(t * out.top_k) + k];
      double const distance = ids[k] < 0 ? 0.0 : std::abs(r.z[at(ids[k])] - r.peak);
      expected.push_back({gate[k], std::abs(gate[k]) * (12.0 + 2.0 * std::min(distance, 1e4))});
      spread = std::max(spread, std::abs(gate[k]));
      if (ids[k] >= 0) ++counts[at(ids[k])];
    }
    if (auto good = close(mine, expected, 1.0); !good) return good << " in token " << t;
    double const lse = static_cast<double>(out.z[at(t)]);
    if (!(std::abs(lse - r.lse) <= 4e-7 * (std::abs(r.lse) + std::abs(r.peak) + 2.0)) &&
        r.peak < 1e30) {
      return testing::AssertionFailure() << "z of token " << t << ": " << lse << " for " << r.lse;
    }
    for (std::size_t e = 0; e < key.size(); ++e) importance[e] += r.probability[e];
  }
  std::vector<expectation> load;
  for (double p : importance) load.push_back({p, 64.0 * (p + 1e-9)});
  if (auto good = close(out.importance, load, 4.0); !good) return good << " in importance";
  for (std::size_t e = 0; e < counts.size(); ++e) {
    if (out.counts[e] != counts[e]) {
      return testing::AssertionFailure() << "counts[" << e << "] is " << out.counts[e];
    }
  }
  if (out.total[0] != tokens) return testing::AssertionFailure() << "tokens: " << out.total[0];
  if (tokens > 1 && spread < 1e-4) return testing::AssertionFailure() << "the oracle is flat";
  return testing::AssertionSuccess();
}

}  // namespace shunt::test
