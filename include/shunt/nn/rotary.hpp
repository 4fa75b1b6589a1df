#pragma once
#include <type_traits>

#include "shunt/backend/host/nn/rotary.hpp"
#include "shunt/core/check.hpp"
#include "shunt/core/concepts.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {

/// Cosines and sines of every position, in memory of the caller: filled once by rotary_fill.
template <space S = space::host> struct rotary_table {
  view<float, 2, S> cosine = {};  ///< [positions, pairs]
  view<float, 2, S> sine = {};    ///< [positions, pairs]
};

/// Which two elements of a head turn together. halves: i and i + pairs (NeoX, Llama's checkpoints as
/// published on Hugging Face); adjacent: 2i and 2i + 1 (the paper's, GPT-J).
enum class rotary_pairs { halves, adjacent };

/// Options of rotary and rotary_backward: give both the same.
struct rotary_options {
  index_t first_position = 0;  ///< of the first token of each sequence: decoding goes on from there
  rotary_pairs pairs = rotary_pairs::halves;  ///< which columns turn together
};

namespace detail {
/// Positions in memory: one, or one a sequence.
template <space S>
status positions_fit(char const* name, token_positions<S> const& p, offset_t batch) noexcept {
  if (!p.in_memory()) return {};
  if (status bad = check::memory(name, p.memory()); !bad.ok()) return bad;
  if (!p.per_sequence()) return {};
  return check::extent(name, 0, p.memory().extent(0), batch, "sequences, or 1 for all");
}
}  // namespace detail

/// cosine[p,i] = cos((first_position + p) · base^(−i/pairs)), sine likewise. Where first_position has
/// B numbers in memory, the table is of B sequences of S tokens: row b·S + s is of position
/// first_position[b] + s.
/// Shapes   cosine, sine [positions, pairs], pairs at most half of the head width; [B·S, pairs]
/// Order    double arithmetic of Shunt's own: the same bits on every machine
/// Errors   extents that differ, null pointers, base not above 0
/// Cost     once per model, some 100 operations an entry
/// Source   Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021
template <execution P>
status rotary_fill(P const& on, std::type_identity_t<rotary_table<P::memory>> table,
                   double base = 10000.0,
                   std::type_identity_t<token_positions<P::memory>> first_position = 0) noexcept {
  if (status bad = first_of(
          check::policy(on), check::rows("rotary_fill.cosine", table.cosine),
          check::rows("rotary_fill.sine", table.sine),
          check::extent("rotary_fill.sine", 0, table.sine.extent(0), table.cosine.extent(0),
                        "positions"),
          check::extent("rotary_fill.sine", 1, table.sine.extent(1), table.cosine.extent(1),
                        "pairs"),
          check::between("rotary_fill.first_position", first_position.number(), 0, 1 << 30));
      !bad.ok()) {
    return bad;
  }
  if (!(base > 0.0 && base < 1e300)) {
    return status::fail(error::bad_argument, "rotary_fill.base is %g; it must be above 0", base);
  }
  if (table.cosine.empty()) return {};
  offset_t const rows = table.cosine.extent(0);
  offset_t const sequences = first_position.per_sequence() ? first_position.memory().extent(0) : 1;
  if (status bad = detail::positions_fit("rotary_fill.first_position", first_position, sequences);
      !bad.ok()) {
    return bad;
  }
  if (sequences < 1 || rows % sequences != 0) {
    return status::fail(error::bad_shape,
                        "rotary_fill.cosine: extent 0 is %lld; it must be a multiple of the %lld "
                        "sequences that have positions",
                        static_cast<long long>(rows), static_cast<long long>(sequences));
  }
  double const pairs = static_cast<double>(table.cosine.extent(1));
  return detail::rotary_backend<P>::table(on, table.cosine, table.sine,
                                          -detail::logarithm_of(base) / pairs,
                                          detail::positions_of(first_position), rows / sequences);
}

namespace detail {
template <class T, class P>
status rotate(P const& on, char const* who, view<T, 4, P::memory> x,
              rotary_table<P::memory> const& table, rotary_options const& options,
              view<index_t const, 1, P::memory> position, float turn) noexcept {
  static_assert(storage<T>, "shunt::nn::rotary: float, bf16 or fp16 only");
  offset_t const positions = table.cosine.extent(0), pairs = table.cosine.extent(1);
  token_positions<P::memory> first = options.first_position;
  if (position.data() != nullptr) first = position;
  if (status bad = first_of(
          check::policy(on), check::rows(who, x), check::rows("rotary.cosine", table.cosine),
          check::rows("rotary.sine", table.sine),
          check::extent("rotary.sine", 0, table.sine.extent(0), positions, "positions"),
          check::extent("rotary.sine", 1, table.sine.extent(1), pairs, "pairs"),
          check::between("rotary.table pairs, doubled,", 2 * pairs, 0, x.extent(3)),
          check::between("rotary.first_position", first.number(), 0, positions),
          check::between("rotary.first_position plus the tokens of a sequence",
                         first.number() + x.extent(1), 0, positions),
          positions_fit("rotary.position", first, x.extent(0)));
      !bad.ok()) {
    return bad;
  }
  if (x.empty() || pairs == 0) return {};
  return rotary_backend<P>::rotate(
      on,
      rotary_args<T>{x.data(), x.stride(0), x.stride(1), x.stride(2), x.extent(1), x.extent(2),
                     pairs, positions_of(first), positions, table.cosine.data(), table.sine.data(),
                     table.cosine.stride(0), table.sine.stride(0), turn,
                     options.pairs == rotary_pairs::adjacent},
      x.extent(0) * x.extent(1));
}
}  // namespace detail

/// Turns the pairs of each head by their token's position, in place: (a, b) → (a·c − b·s, b·c + a·s).
/// What lies beyond 2·pairs in a head stays as it is.
/// Shapes   x [B,S,heads,D], any strides with D contiguous · table [positions ≥ first + S, pairs ≤ D/2]
///          · position [1] or [B], read when the kernel runs, in place of options.first_position
/// Types    x of any storage type; arithmetic in float
/// Order    one token after another: the same bits on any thread count and ISA
/// Aliasing x is input and output
/// Errors   table too short or too wide, null pointers. A token whose position read from memory is not
///          in the table stays as it is.
/// Cost     reads and writes x once
template <execution P, output<P, 4> X>
status rotary(P const& on, X&& x, rotary_table<P::memory> const& table,
              rotary_options const& options = {},
              std::type_identity_t<view<index_t const, 1, P::memory>> position = {}) noexcept {
  return detail::rotate<element_t<X>>(on, "rotary.x", as_output<P, 4>(x), table, options, position,
                                      1.0f);
}

/// The gradient: turns d_x, in place, the other way.
template <execution P, output<P, 4> X>
status rotary_backward(
    P const& on, X&& d_x, rotary_table<P::memory> const& table, rotary_options const& options = {},
    std::type_identity_t<view<index_t const, 1, P::memory>> position = {}) noexcept {
  return detail::rotate<element_t<X>>(on, "rotary_backward.d_x", as_output<P, 4>(d_x), table,
                                      options, position, -1.0f);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::nn
