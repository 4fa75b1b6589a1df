#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "shunt/core/numeric.hpp"
#include "shunt/core/shape.hpp"
#include "support/experts_case.hpp"

/// Where a tile ends and something else begins: what stands behind a row, a segment or an expert is not
/// read, and what has no rows is still written. `run(operands)` gives the products of one backend, each
/// of outputs that were NaN before.
namespace shunt::test {

/// Matrices whose rows stand `spare` elements apart.
template <class T> struct tail_operands {
  std::vector<index_t> lengths;
  int N, K, spare, spare_rows;
  std::vector<index_t> slot = {};  // rows are gathered through it, of `tokens`, where it has any
  int tokens = 0;
  std::vector<T> a, w, dc;

  tail_operands(std::vector<index_t> l, int n, int k, int spare_ = 0, int spare_rows_ = 0)
      : lengths(std::move(l)), N(n), K(k), spare(spare_), spare_rows(spare_rows_) {
    a = values(rows(), K, 1, 1.0), w = values(experts() * N, K, 2, 0.3);
    dc = values(rows(), N, 3, 1.0);
  }
  int experts() const { return static_cast<int>(lengths.size()); }
  int used_rows() const { return offsets_of(lengths).back(); }
  int rows() const { return used_rows() + spare_rows; }
  T& at(std::vector<T>& m, int columns, int row, int column) const {
    return m[static_cast<std::size_t>(row) * static_cast<std::size_t>(columns + spare) +
             static_cast<std::size_t>(column)];
  }
  /// Numbers that do not depend on the stride; zeros between the rows.
  std::vector<T> values(int count, int columns, std::uint64_t seed, double size) const {
    std::vector<T> m(static_cast<std::size_t>(count * (columns + spare)), T{});
    rng d(seed);
    for (int r = 0; r < count; ++r) {
      for (int c = 0; c < columns; ++c) {
        at(m, columns, r, c) = from_float<T>(static_cast<float>(size * d.normal()));
      }
    }
    return m;
  }
  /// NaN wherever nothing may be read: between rows, behind the last segment, in weights without rows.
  void poison() {
    auto const behind = [&](std::vector<T>& m, int columns, int first_row) {
      auto const wide = static_cast<std::size_t>(columns + spare);
      for (std::size_t i = 0; i < m.size(); ++i) {
        if (i % wide >= static_cast<std::size_t>(columns) ||
            i / wide >= static_cast<std::size_t>(first_row)) {
          m[i] = untouched<T>();
        }
      }
    };
    behind(a, K, used_rows());
    behind(dc, N, used_rows());
    behind(w, K, experts() * N);
    for (int e = 0; e < experts(); ++e) {
      for (int i = 0; lengths[static_cast<std::size_t>(e)] == 0 && i < N * K; ++i) {
        at(w, K, e * N + i / K, i % K) = untouched<T>();
      }
    }
  }
};

template <class T> struct tail_products {
  std::vector<T> forward;           // [R,N]
  std::vector<float> dgrad, wgrad;  // [R,K], [E,N,K]
};

template <class T> bool equal_bits(T const& a, T const& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}
template <class T> bool is_number(T x) { return std::isfinite(to_float(x)); }

// K that is a multiple of a step of 32, one less, one more, and less than one; the same of N.
inline constexpr int tail_widths[][2] = {{64, 64}, {33, 31}, {48, 33},
                                         {5, 1},   {31, 65}, {130, 100}};
inline std::vector<std::vector<index_t>> tail_lengths() {
  return {{0, 7, 0, 16, 0}, {1}, {70, 0, 0, 3}, {0, 0, 129}};
}

template <class T, class Run> void tails_are_written_and_padding_is_not_read(Run const& run) {
  std::size_t turn = 0;
  for (auto const& lengths : tail_lengths()) {
    for (auto const& [N, K] : tail_widths) {
      constexpr int spares[] = {0, 3, 8};
      int const spare = spares[(turn + turn / 6) % 3];  // another one for each of the lengths
      ++turn;
      SCOPED_TRACE("N " + std::to_string(N) + " K " + std::to_string(K) + " spare " +
                   std::to_string(spare) + " experts " + std::to_string(lengths.size()));
      tail_operands<T> x(lengths, N, K, spare, 5);
      tail_products<T> const clean = run(x);
      x.poison();
      tail_products<T> const is = run(x);
      auto const check = [&](auto const& got, auto const& want, int columns, char const* what) {
        std::size_t const used = static_cast<std::size_t>(x.used_rows() * columns);
        for (std::size_t i = 0; i < got.size(); ++i) {
          if (i < used) {
            ASSERT_TRUE(is_number(got[i]) && equal_bits(got[i], want[i])) << what << " " << i;
          } else {
            ASSERT_TRUE(equal_bits(got[i], untouched<std::decay_t<decltype(got[i])>>()))
                << what << " was written behind the last segment, at " << i;
          }
        }
      };
      check(is.forward, clean.forward, N, "forward");
      check(is.dgrad, clean.dgrad, K, "dgrad");
      for (std::size_t i = 0; i < is.wgrad.size(); ++i) {
        std::size_t const e = i / static_cast<std::size_t>(N * K);
        ASSERT_TRUE(equal_bits(is.wgrad[i], clean.wgrad[i])) << "wgrad " << i;
        if (lengths[e] == 0) { ASSERT_EQ(is.wgrad[i], 0.0f) << "wgrad " << i; }
      }
    }
  }
}

/// Every second column of an operand is NaN: the outputs that the others make have the same bits.
template <class T, class Run> void nan_of_a_neighbor_stays_there(Run const& run) {
  for (auto const& lengths : tail_lengths()) {
    for (auto const& [N, K] : tail_widths) {
      SCOPED_TRACE("N " + std::to_string(N) + " K " + std::to_string(K) + " experts " +
                   std::to_string(lengths.size()));
      tail_operands<T> const x(lengths, N, K);
      int const E = x.experts(), R = x.rows(), n = N;
      tail_products<T> const clean = run(x);
      // How many of the outputs of rows [0, rows) × columns are untainted, all with the clean bits.
      auto const same = [&](auto const& got, auto const& want, int columns, auto const& tainted) {
        for (std::size_t i = 0; i < want.size(); ++i) {
          int const row = static_cast<int>(i) / columns, column = static_cast<int>(i) % columns;
          if (tainted(row, column)) {
            ASSERT_FALSE(is_number(got[i])) << i << ": the operand was not read";
          } else {
            ASSERT_TRUE(is_number(got[i]) && equal_bits(got[i], want[i])) << i;
          }
        }
      };
      auto const odd = [](int i) { return i % 2 == 1; };
      auto y = x;  // rows of a and dc
      for (int r = 1; r < R; r += 2) {
        for (int i = 0; i < K; ++i) y.at(y.a, K, r, i) = untouched<T>();
        for (int i = 0; i < N; ++i) y.at(y.dc, N, r, i) = untouched<T>();
      }
      auto const of_row = [&](int row, int) { return odd(row); };
      auto is = run(y);
      same(is.forward, clean.forward, N, of_row);
      same(is.dgrad, clean.dgrad, K, of_row);
      y = x;  // rows of the weights: the forward's columns
      for (int r = 0; r < E * N; ++r) {
        for (int i = 0; i < K && odd(r % n); ++i) y.at(y.w, K, r, i) = untouched<T>();
      }
      is = run(y);
      same(is.forward, clean.forward, N, [&](int, int column) { return odd(column); });
      y = x;  // columns of the weights and of both rows: those of both gradients
      for (int i = 1; i < K; i += 2) {
        for (int r = 0; r < E * N; ++r) y.at(y.w, K, r, i) = untouched<T>();
        for (int r = 0; r < R; ++r) y.at(y.a, K, r, i) = untouched<T>();
      }
      is = run(y);
      same(is.dgrad, clean.dgrad, K, [&](int, int column) { return odd(column); });
      same(is.wgrad, clean.wgrad, K, [&](int row, int column) {
        return odd(column) && lengths[static_cast<std::size_t>(row / n)] > 0;
      });
      y = x;
      for (int i = 1; i < N; i += 2) {
        for (int r = 0; r < R; ++r) y.at(y.dc, N, r, i) = untouched<T>();
      }
      is = run(y);
      same(is.wgrad, clean.wgrad, K, [&](int row, int) {
        return odd(row % n) && lengths[static_cast<std::size_t>(row / n)] > 0;
      });
    }
  }
}

/// Experts without rows, all of them or all but one: the call ends, gradients are zeros, rows untouched.
template <class T, class Run> void empty_experts_end_and_are_zero(Run const& run) {
  std::vector<std::vector<index_t>> all{{0}, {0, 0, 0}, std::vector<index_t>(200, 0)};
  for (std::size_t where : {std::size_t{0}, std::size_t{63}, std::size_t{199}}) {
    all.push_back(std::vector<index_t>(200, 0));
    all.back()[where] = 3;
  }
  for (auto const& lengths : all) {
    SCOPED_TRACE(lengths.size());
    tail_operands<T> x(lengths, 10, 33, 0, 2);
    x.poison();
    auto const is = run(x);
    std::size_t const used = static_cast<std::size_t>(x.used_rows());
    for (std::size_t i = 0; i < is.forward.size(); ++i) {
      ASSERT_EQ(is_number(is.forward[i]), i < used * 10) << i;
    }
    for (std::size_t i = 0; i < is.dgrad.size(); ++i) {
      ASSERT_EQ(is_number(is.dgrad[i]), i < used * 33) << i;
    }
    for (std::size_t i = 0; i < is.wgrad.size(); ++i) {
      ASSERT_TRUE(is_number(is.wgrad[i])) << i;
      if (lengths[i / 330] == 0) { ASSERT_EQ(is.wgrad[i], 0.0f) << i; }
    }
  }
}

/// Segments padded to multiples of 16 by slots of -1: pads are zeros, the others' bits unchanged.
template <class T, class Run> void pads_change_no_token(Run const& run) {
  constexpr int tokens = 40;
  std::vector<index_t> const lengths{7, 0, 16, 17, 1}, padded{16, 0, 16, 32, 16};
  for (auto const& [N, K] : tail_widths) {
    SCOPED_TRACE("N " + std::to_string(N) + " K " + std::to_string(K));
    tail_operands<T> x(lengths, N, K), y(padded, N, K);
    x.tokens = y.tokens = tokens;
    x.a = y.a = x.values(tokens, K, 7, 1.0);
    x.dc = y.dc = x.values(tokens, N, 8, 1.0);
    y.w = x.w;
    std::vector<std::size_t> at;  // the padded row of each row
    index_t next = 0;
    for (std::size_t e = 0; e < lengths.size(); ++e) {
      for (index_t i = 0; i < padded[e]; ++i) {
        bool const row = i < lengths[e];
        if (row) at.push_back(y.slot.size());
        index_t const slot = row ? next++ * 11 % tokens : -1;
        y.slot.push_back(slot);
        if (row) x.slot.push_back(slot);
      }
    }
    auto const plain = run(x), is = run(y);
    auto const check = [&](auto const& got, auto const& want, std::size_t columns) {
      std::vector<bool> pad(got.size() / columns, true);
      for (std::size_t r = 0; r < at.size(); ++r) {
        pad[at[r]] = false;
        for (std::size_t c = 0; c < columns; ++c) {
          ASSERT_TRUE(equal_bits(got[at[r] * columns + c], want[r * columns + c])) << r;
        }
      }
      for (std::size_t i = 0; i < got.size(); ++i) {
        if (pad[i / columns]) { ASSERT_EQ(to_float(got[i]), 0.0f) << i; }
      }
    };
    check(is.forward, plain.forward, static_cast<std::size_t>(N));
    check(is.dgrad, plain.dgrad, static_cast<std::size_t>(K));
    for (std::size_t i = 0; i < is.wgrad.size(); ++i) {
      ASSERT_EQ(is.wgrad[i], plain.wgrad[i]) << i;
    }
  }
}

}  // namespace shunt::test
