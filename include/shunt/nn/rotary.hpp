#pragma once
#include <type_traits>

#include "shunt/backend/host/nn/rotary.hpp"
#include "shunt/core/check.hpp"
#include "shunt/core/concepts.hpp"

namespace shunt::nn {
inline namespace SHUNT_HOST_ABI {

/// Cosines and sines of every position, in memory of the caller's: filled once by rotary_fill.
template <space S = space::host> struct rotary_table {
  view<float, 2, S> cosine = {};  ///< [positions, pairs]
  view<float, 2, S> sine = {};    ///< [positions, pairs]
};

/// Which two elements of a head turn together: i and i + pairs (NeoX, Llama's checkpoints as
/// published on Hugging Face), or 2i and 2i + 1 (the paper's, GPT-J).
enum class rotary_pairs { halves, adjacent };

struct rotary_options {
  index_t first_position = 0;  ///< of the first token of each sequence: decoding goes on from there
  rotary_pairs pairs = rotary_pairs::halves;
};

/// cosine[p,i] = cos((first_position + p) · base^(−i/pairs)), sine likewise.
/// Shapes   cosine, sine [positions, pairs], pairs at most half of the head width
/// Order    double arithmetic of Shunt's own: the same bits on every machine
/// Errors   extents that differ, null pointers, base not above 0
/// Cost     once per model, some 100 operations an entry
/// Source   Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021
template <execution P>
status rotary_fill(P const& on, std::type_identity_t<rotary_table<P::memory>> table,
                   double base = 10000.0, index_t first_position = 0) noexcept {
  if (status bad =
          first_of(check::policy(on), check::rows("rotary_fill.cosine", table.cosine),
                   check::rows("rotary_fill.sine", table.sine),
                   check::extent("rotary_fill.sine", 0, table.sine.extent(0),
                                 table.cosine.extent(0), "positions"),
                   check::extent("rotary_fill.sine", 1, table.sine.extent(1),
                                 table.cosine.extent(1), "pairs"),
                   check::between("rotary_fill.first_position", first_position, 0, 1 << 30));
      !bad.ok()) {
    return bad;
  }
  if (!(base > 0.0 && base < 1e300)) {
    return status::fail(error::bad_argument, "rotary_fill.base is %g; it must be above 0", base);
  }
  if (table.cosine.empty()) return {};
  double const pairs = static_cast<double>(table.cosine.extent(1));
  return detail::rotary_on<P>::table(on, table.cosine, table.sine,
                                     -detail::logarithm_of(base) / pairs, first_position);
}

namespace detail {
template <class T, class P>
status rotate(P const& on, char const* who, view<T, 4, P::memory> x,
              rotary_table<P::memory> const& table, rotary_options const& options,
              float turn) noexcept {
  static_assert(storage<T>, "shunt::nn::rotary: float, bf16 or fp16 only");
  offset_t const positions = table.cosine.extent(0), pairs = table.cosine.extent(1);
  if (status bad = first_of(
          check::policy(on), check::rows(who, x), check::rows("rotary.cosine", table.cosine),
          check::rows("rotary.sine", table.sine),
          check::extent("rotary.sine", 0, table.sine.extent(0), positions, "positions"),
          check::extent("rotary.sine", 1, table.sine.extent(1), pairs, "pairs"),
          check::between("rotary.table pairs, doubled,", 2 * pairs, 0, x.extent(3)),
          check::between("rotary.first_position", options.first_position, 0, positions),
          check::between("rotary.first_position plus the tokens of a sequence",
                         options.first_position + x.extent(1), 0, positions));
      !bad.ok()) {
    return bad;
  }
  if (x.empty() || pairs == 0) return {};
  return rotary_on<P>::rotate(
      on,
      rotary_args<T>{x.data(), x.stride(0), x.stride(1), x.stride(2), x.extent(1), x.extent(2),
                     pairs, options.first_position, table.cosine.data(), table.sine.data(),
                     table.cosine.stride(0), table.sine.stride(0), turn,
                     options.pairs == rotary_pairs::adjacent},
      x.extent(0) * x.extent(1));
}
}  // namespace detail

/// Turns the pairs of each head by their token's position, in place: (a, b) → (a·c − b·s, b·c + a·s).
/// What lies beyond 2·pairs in a head stays as it is.
/// Shapes   x [B,S,heads,D], any strides with D contiguous · table [positions ≥ first + S, pairs ≤ D/2]
/// Types    x of any storage type; arithmetic in float
/// Order    one token after another: the same bits on any thread count and ISA
/// Aliasing x is input and output
/// Errors   table too short or too wide, null pointers
/// Cost     reads and writes x once
template <execution P, output<P, 4> X>
status rotary(P const& on, X&& x, rotary_table<P::memory> const& table,
              rotary_options const& options = {}) noexcept {
  return detail::rotate<element_t<X>>(on, "rotary.x", as_output<P, 4>(x), table, options, 1.0f);
}

/// The gradient: turns d_x, in place, the other way.
template <execution P, output<P, 4> X>
status rotary_backward(P const& on, X&& d_x, rotary_table<P::memory> const& table,
                       rotary_options const& options = {}) noexcept {
  return detail::rotate<element_t<X>>(on, "rotary_backward.d_x", as_output<P, 4>(d_x), table,
                                      options, -1.0f);
}

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::nn
