#pragma once
#include "shunt/core/compiler.hpp"

#include <concepts>
#include <cstdint>
#include <optional>

#include "shunt/quantize.hpp"

/// 4-bit integers as checkpoints publish them, into int4_group<32> or int4_group<128>: as compressed-tensors packs
/// them, as GPTQ does, and as AWQ does.
namespace shunt {

namespace detail {

/// Numbers of a row two a byte; zero points a byte each, or all 8.
template <storage T, space S> struct int4_pairs {
  view<std::uint8_t const, 3, S> numbers;
  view<T const, 3, S> scales;
  view<std::uint8_t const, 3, S> zeros;

  unsigned char number(offset_t e, offset_t n, offset_t k) const noexcept {
    return static_cast<unsigned char>(numbers(e, n, k / 2) >> k % 2 * 4 & 15);
  }
  float scale(offset_t e, offset_t n, offset_t group) const noexcept {
    return to_float(scales(e, n, group));
  }
  unsigned char zero_point(offset_t e, offset_t n, offset_t group) const noexcept {
    return zeros ? zeros(e, n, group) : std::uint8_t{8};
  }
};

/// Words of eight numbers or zero points, one beside another along N; GPTQ's numbers along K.
template <bool Awq, storage T, space S> struct int4_words {
  view<std::int32_t const, 3, S> numbers;
  view<std::int32_t const, 3, S> zeros;
  view<T const, 3, S> scales;
  int zero_less = 0;  ///< what a stored zero point is too small by

  /// Number i of a word. AWQ stores 0, 2, 4, 6, 1, 3, 5, 7.
  static unsigned number_of(std::int32_t word, offset_t i) noexcept {
    offset_t const at = Awq ? (i & 1) * 4 + i / 2 : i;
    return static_cast<std::uint32_t>(word) >> 4 * at & 15u;
  }
  unsigned char number(offset_t e, offset_t n, offset_t k) const noexcept {
    return static_cast<unsigned char>(Awq ? number_of(numbers(e, k, n / 8), n % 8)
                                          : number_of(numbers(e, k / 8, n), k % 8));
  }
  float scale(offset_t e, offset_t n, offset_t group) const noexcept {
    return to_float(scales(e, group, n));
  }
  unsigned char zero_point(offset_t e, offset_t n, offset_t group) const noexcept {
    return static_cast<unsigned char>(number_of(zeros(e, group, n / 8), n % 8) +
                                      static_cast<unsigned>(zero_less));
  }
};

/// Packs words of [E,K,N]; `whole`: the axis of the numbers along which a word goes.
template <bool Awq, execution P, class T, class F>
status pack_words(P const& on, char const* (&name)[4], int4_words<Awq, T, P::memory> const& from,
                  view<F, 1, P::memory> to, std::optional<pair_layout> const& pairs) noexcept {
  axes<3> const lie = from.numbers.extents();
  offset_t const K = Awq ? lie[1] : 8 * lie[1], N = Awq ? 8 * lie[2] : lie[2];
  offset_t const groups = (K + packing<F>::block - 1) / packing<F>::block;
  auto const shape = packed_as<F, P::memory>({{lie[0], N, K}}, pairs);
  if (status bad = first_of(
          check::policy(on), check::rows(name[0], from.numbers), check::rows(name[1], from.zeros),
          check::rows(name[2], from.scales),
          check::extent(name[1], 0, from.zeros.extent(0), lie[0], "experts"),
          check::extent(name[1], 1, from.zeros.extent(1), groups, "groups of the columns"),
          check::extent(name[1], 2, 8 * from.zeros.extent(2), N, "rows, eight of a word"),
          check::extent(name[2], 0, from.scales.extent(0), lie[0], "experts"),
          check::extent(name[2], 1, from.scales.extent(1), groups, "groups of the columns"),
          check::extent(name[2], 2, from.scales.extent(2), N, "rows"),
          check::packed_into(name[3], shape, to));
      !bad.ok()) {
    return bad;
  }
  return quantize_backend<P>::pack_int4(on, from, shape, to.data());
}

}  // namespace detail

/// Packs 4-bit integers, two a byte, as compressed-tensors publishes them (weight_packed, whose words are
/// four such bytes; weight_scale).
/// Shapes  numbers [E,N,K/2], the first of a byte in its lower half · scale [E,N,ceil(K/Group)] ·
///         zero like scale, or empty: 8 → packed; `pairs`: how rows of gate and up lie
/// Types   std::uint8_t; float, bf16 or fp16; std::uint8_t → int4_group<32> or int4_group<128>, which say Group.
/// Order   nothing is computed. A weight is (number - zero) · scale, rounded once to float.
/// Aliasing, Errors, Cost as pack_int8.
template <execution P, input<P, 3> Numbers, input<P, 3> Scale, output<P, 1> Packed>
[[nodiscard]] status pack_int4(P const& on, Numbers numbers, Scale scale,
                               view<std::uint8_t const, 3, P::memory> zero, Packed&& packed,
                               std::optional<pair_layout> pairs = {}) noexcept {
  using T = element_t<Scale>;
  using F = element_t<Packed>;
  static_assert(
      std::same_as<element_t<Numbers>, std::uint8_t> && storage<T> && detail::is_int4<F>,
      "shunt::pack_int4: numbers must be std::uint8_t, scale float, shunt::bf16 or shunt::fp16, "
      "and packed shunt::int4_group<32> or shunt::int4_group<128>");
  detail::int4_pairs<T, P::memory> const from{as_input<P, 3>(numbers), as_input<P, 3>(scale), zero};
  auto const to = as_output<P, 1>(packed);
  axes<3> const lie = from.numbers.extents();
  offset_t const K = 2 * lie[2],
                 groups = (K + detail::packing<F>::block - 1) / detail::packing<F>::block;
  auto const shape = detail::packed_as<F, P::memory>({{lie[0], lie[1], K}}, pairs);
  if (status bad = first_of(
          check::policy(on), check::rows("pack_int4.numbers", from.numbers),
          check::rows("pack_int4.scale", from.scales),
          check::extent("pack_int4.scale", 0, from.scales.extent(0), lie[0], "experts"),
          check::extent("pack_int4.scale", 1, from.scales.extent(1), lie[1], "rows of numbers"),
          check::extent("pack_int4.scale", 2, from.scales.extent(2), groups, "groups of a row"));
      !bad.ok()) {
    return bad;
  }
  if (zero) {
    if (status bad =
            first_of(check::rows("pack_int4.zero", zero),
                     check::extent("pack_int4.zero", 0, zero.extent(0), lie[0], "experts"),
                     check::extent("pack_int4.zero", 1, zero.extent(1), lie[1], "rows of numbers"),
                     check::extent("pack_int4.zero", 2, zero.extent(2), groups, "groups of a row"));
        !bad.ok()) {
      return bad;
    }
  }
  if (status bad = check::packed_into("pack_int4.packed", shape, to); !bad.ok()) return bad;
  return detail::quantize_backend<P>::pack_int4(on, from, shape, to.data());
}

/// Packs 4-bit integers as GPTQ publishes them (qweight, qzeros, scales), eight a word, the first in the
/// lowest bits. Columns are in order: a g_idx that is not k / Group has to be undone before.
/// Shapes  numbers [E,K/8,N] · zero [E,ceil(K/Group),N/8] · scale [E,ceil(K/Group),N] → packed
/// Types   std::int32_t both; float, bf16 or fp16 → int4_group<32> or int4_group<128>.
/// Order   nothing is computed. Zero points are stored `zero_less` too small: 1, as GPTQ's first format
///         does; 0 in its second ("gptq_v2").
/// Aliasing, Errors, Cost as pack_int8.
/// Source  Frantar et al., 2022
template <execution P, input<P, 3> Numbers, input<P, 3> Zero, input<P, 3> Scale,
          output<P, 1> Packed>
[[nodiscard]] status pack_gptq(P const& on, Numbers numbers, Zero zero, Scale scale,
                               Packed&& packed, std::optional<pair_layout> pairs = {},
                               int zero_less = 1) noexcept {
  using T = element_t<Scale>;
  using F = element_t<Packed>;
  static_assert(std::same_as<element_t<Numbers>, std::int32_t> &&
                    std::same_as<element_t<Zero>, std::int32_t> && storage<T> && detail::is_int4<F>,
                "shunt::pack_gptq: numbers and zero must be std::int32_t, scale float, shunt::bf16 "
                "or shunt::fp16, and packed shunt::int4_group<32> or shunt::int4_group<128>");
  if (zero_less != 0 && zero_less != 1) {
    return status::fail(error::bad_argument, "pack_gptq.zero_less: it is %d; it must be 0 or 1",
                        zero_less);
  }
  char const* name[4] = {"pack_gptq.numbers", "pack_gptq.zero", "pack_gptq.scale",
                         "pack_gptq.packed"};
  detail::int4_words<false, T, P::memory> const from{as_input<P, 3>(numbers), as_input<P, 3>(zero),
                                                     as_input<P, 3>(scale), zero_less};
  return detail::pack_words(on, name, from, as_output<P, 1>(packed), pairs);
}

/// Packs 4-bit integers as AWQ publishes them (qweight, qzeros, scales), eight rows of a column a word,
/// in the order 0, 2, 4, 6, 1, 3, 5, 7 from the lowest bits.
/// Shapes  numbers [E,K,N/8] · zero [E,ceil(K/Group),N/8] · scale [E,ceil(K/Group),N] → packed
/// Types   std::int32_t both; float, bf16 or fp16 → int4_group<32> or int4_group<128>.
/// Order   nothing is computed.
/// Aliasing, Errors, Cost as pack_int8.
/// Source  Lin et al., 2023
template <execution P, input<P, 3> Numbers, input<P, 3> Zero, input<P, 3> Scale,
          output<P, 1> Packed>
[[nodiscard]] status pack_awq(P const& on, Numbers numbers, Zero zero, Scale scale, Packed&& packed,
                              std::optional<pair_layout> pairs = {}) noexcept {
  using T = element_t<Scale>;
  using F = element_t<Packed>;
  static_assert(std::same_as<element_t<Numbers>, std::int32_t> &&
                    std::same_as<element_t<Zero>, std::int32_t> && storage<T> && detail::is_int4<F>,
                "shunt::pack_awq: numbers and zero must be std::int32_t, scale float, shunt::bf16 "
                "or shunt::fp16, and packed shunt::int4_group<32> or shunt::int4_group<128>");
  char const* name[4] = {"pack_awq.numbers", "pack_awq.zero", "pack_awq.scale", "pack_awq.packed"};
  detail::int4_words<true, T, P::memory> const from{as_input<P, 3>(numbers), as_input<P, 3>(zero),
                                                    as_input<P, 3>(scale), 0};
  return detail::pack_words(on, name, from, as_output<P, 1>(packed), pairs);
}

}  // namespace shunt
