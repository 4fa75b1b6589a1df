#pragma once
#include "shunt/core/compiler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "shunt/across/plan.hpp"
#include "shunt/core/abi.hpp"
#include "shunt/core/arena.hpp"
#include "shunt/core/numeric.hpp"

/// Sums over ranks in one order: of gradients that every rank has in part, and of the squares of all gradients.
namespace shunt {
namespace detail {
inline namespace SHUNT_ABI {

/// Floats that sum_across takes at a time, of each rank.
inline constexpr offset_t sum_piece = 16384;

/// One exchange with the ranks' own reports of what failed before it, so that none waits for another.
template <exchange X>
[[nodiscard]] status met(char const* who, among_ranks<X> const& among,
                         status const& done) noexcept {
  if (among.report != nullptr) ++among.report->rounds;
  return done.ok() ? done : status::fail(done.code(), "%s: %s", who, done.message());
}

/// Squares of a tensor: in double, 32 strided partial sums, then by halves.
[[nodiscard]] inline double sum_of_squares(float const* x, offset_t count) noexcept {
  double part[32] = {};
  for (offset_t i = 0; i < count; ++i) {
    double const value = static_cast<double>(x[i]);
    part[i % 32] = std::fma(value, value, part[i % 32]);
  }
  for (int half = 16; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) part[i] += part[i + half];
  }
  return part[0];
}

}  // namespace SHUNT_ABI
}  // namespace detail

inline namespace SHUNT_ABI {

/// Scratch of sum_across in bytes.
template <exchange X>
[[nodiscard]] std::size_t sum_across_scratch_bytes(among_ranks<X> const& among,
                                                   offset_t count) noexcept {
  auto from = arena<>::measuring();
  static_cast<void>(from.take<float>(std::min(count, detail::sum_piece) * among.transport.ranks()));
  return from.needed();
}

/// Adds the ranks' values: what gradients of replicated weights need.
/// Shapes  values [N], N the same on all ranks → values [N], the same bits on all ranks
/// Types   float
/// Order   ((rank 0 + rank 1) + rank 2) …: the same bits on every run. Not those of one process, whose chain
///         over all tokens has other roundings.
/// Aliasing none
/// Errors  memory that is missing, an arena too small: of this rank alone. Another N: the same sentence on all.
///         error::peer. Pieces of 16384 values are replaced as they are summed.
/// Cost    an all_gather for each piece; R times as many bytes come as values. Never allocates.
template <exchange X>
[[nodiscard]] status sum_across(among_ranks<X> const& among, view<float, 1> values,
                                arena<> work) noexcept {
  constexpr char const* who = "sum_across";
  offset_t const count = values.extent(0);
  int const ranks = among.transport.ranks();
  float* const all = work.take<float>(std::min(count, detail::sum_piece) * ranks);
  if (status bad =
          first_of(check::rows("sum_across.values", values), work.check("sum_across.work"));
      !bad.ok()) {
    return bad;
  }
  for (offset_t first = 0; first < count; first += detail::sum_piece) {
    offset_t const now = std::min(count - first, detail::sum_piece);
    float* const mine = values.data() + first;
    status const here = detail::met(
        who, among,
        among.transport.all_gather(mine, all, static_cast<std::size_t>(now) * sizeof(float)));
    if (!here.ok()) return here;
    for (offset_t i = 0; i < now; ++i) {
      float sum = all[i];
      for (int r = 1; r < ranks; ++r) sum += all[r * now + i];
      mine[i] = sum;
    }
  }
  return {};
}

/// Gradients of one tensor of each expert that lives on this rank, and of tensors that every rank has whole.
///   Shapes  experts[i]: [L, …] of this rank's places, each expert's numbers without gaps
struct gradients_of_rank {
  view<view<float const, 2> const, 1> experts = {};  ///< each [L, n]: n numbers of each expert
  view<view<float const, 1> const, 1> whole =
      {};  ///< the same on all ranks, already summed over them
};

/// Scratch of gradient_norm_across in bytes.
template <exchange X>
[[nodiscard]] std::size_t gradient_norm_across_scratch_bytes(among_ranks<X> const& among,
                                                             offset_t tensors) noexcept {
  auto from = arena<>::measuring();
  static_cast<void>(from.take<double>(tensors * among.placement.experts *
                                      (offset_t{among.transport.ranks()} + 1)));
  return from.needed();
}

/// The norm of all gradients: those of every expert once, wherever it lives, and of the replicated tensors once.
/// Shapes  as gradients_of_rank → norm
/// Types   float; sums in double
/// Order   a tensor of an expert: 32 strided partial sums of its squares, by halves; then tensor by tensor, expert
///         by expert, then the whole ones: the same bits on any number of ranks and for any placement. Of an expert
///         with copies that of its first place is taken: add the copies' parts before.
/// Aliasing none
/// Errors  memory that is missing, an arena too small: of this rank alone. error::peer.
/// Cost    reads each gradient once; one all_gather of 8 bytes for each tensor of each expert. Never allocates.
template <exchange X>
[[nodiscard]] status gradient_norm_across(among_ranks<X> const& among, gradients_of_rank const& g,
                                          double& norm, arena<> work) noexcept {
  constexpr char const* who = "gradient_norm_across";
  expert_placement const& p = among.placement;
  int const ranks = among.transport.ranks(), rank = among.transport.rank();
  if (status bad = check::placement(who, p, ranks); !bad.ok()) return bad;
  offset_t const tensors = g.experts.extent(0), count = tensors * p.experts;
  double* const mine = work.take<double>(count);
  double* const all = work.take<double>(count * ranks);
  if (status bad = work.check("gradient_norm_across.work"); !bad.ok()) return bad;
  for (offset_t i = 0; i < tensors; ++i) {
    view<float const, 2> const tensor = g.experts[i];
    if (status bad = first_of(check::extent("gradient_norm_across.experts", 0, tensor.extent(0),
                                            p.on_rank(rank), "places of this rank"),
                              check::rows("gradient_norm_across.experts", tensor));
        !bad.ok()) {
      return bad;
    }
  }
  // A sum of squares is never below 0: that marks an expert of another rank.
  std::fill_n(mine, count, -1.0);
  for (offset_t i = 0; i < tensors; ++i) {
    view<float const, 2> const tensor = g.experts[i];
    for (index_t at = 0; at < p.on_rank(rank); ++at) {
      mine[i * p.experts + p.expert[p.start[rank] + at]] =
          detail::sum_of_squares(tensor.data() + at * tensor.stride(0), tensor.extent(1));
    }
  }
  status const here = detail::met(
      who, among,
      among.transport.all_gather(mine, all, static_cast<std::size_t>(count) * sizeof(double)));
  if (!here.ok()) return here;
  double sum = 0.0;
  for (offset_t i = 0; i < count; ++i) {
    int r = 0;
    while (r + 1 < ranks && all[r * count + i] < 0.0) ++r;
    sum += all[r * count + i];
  }
  for (offset_t i = 0; i < g.whole.extent(0); ++i) {
    sum += detail::sum_of_squares(g.whole[i].data(), g.whole[i].extent(0));
  }
  norm = std::sqrt(sum);
  return {};
}

}  // namespace SHUNT_ABI
}  // namespace shunt
