#pragma once
#include <cstdint>
#include <optional>

#include "shunt/backend/host/quantize.hpp"
#include "shunt/core/concepts.hpp"
#include "shunt/experts/check.hpp"
#include "shunt/experts/weights.hpp"

/// Weights in fewer bits (formats.hpp): made of float ones or of a published checkpoint's, once, into
/// `packed`, bytes of the format's own type; `expert_matrix<F>::packed(data, E, N, K[, pairs])` is
/// what products then take, and what tells the number of bytes (packed_elements()).
///   std::vector<mxfp4> bytes(expert_matrix<mxfp4>::packed(nullptr, E, N, K).packed_elements());
namespace shunt {

namespace detail {
/// The handle of weights yet to be packed.
template <quantized F, space S>
[[nodiscard]] constexpr expert_matrix<F, S> packed_as(
    axes<3> extents, std::optional<pair_layout> const& pairs) noexcept {
  return pairs ? expert_matrix<F, S>::packed(nullptr, extents[0], extents[1], extents[2], *pairs)
               : expert_matrix<F, S>::packed(nullptr, extents[0], extents[1], extents[2]);
}
}  // namespace detail

/// Rounds weights to a format: `packed`'s element says which.
/// Shapes  w [E,N,K], lying as weights may → packed: packed_elements() bytes
/// Types   w float, bf16 or fp16 → int8_channel, fp8_block, mxfp4, nvfp4, int4_group or int8_group.
/// Order   scale: int8 max|row| / 127, or max|group of a row| / 127; fp8 max|block| / 448 over 128 x 128 of the caller's rows;
///         mxfp4 2^(floor(log2 max|32 of a row|) - 2); nvfp4 e4m3((max|16 of a row| / 6) / t) · t, with
///         t = max|expert| / 2688; int4 max|group of a row| / 7.5, its zero point 8. Where 127 times an int8 scale would be
///         infinite, the scale is the float below: what is finite decodes to finite numbers. number:
///         w / scale in float, to nearest, ties to even, no larger than the format's largest. Where all are zero, all stay zero.
///         Not finite: such a weight counts for no maximum; what shares a scale with it in its row
///         (the row, its 128, its 32, its 16, its group) is NaN when decoded.
/// Aliasing packed shares no memory with w.
/// Errors  too few bytes; weights that are packed already.
/// Cost    reads the weights two or three times, writes packed twice. Never allocates.
/// Source  DeepSeek-V3, 2024 (fp8); OCP Microscaling Formats 1.0, 2023
template <execution P, class W, output<P, 1> Packed>
  requires expert_weights<W, P>
[[nodiscard]] status quantize_weights(P const& on, W const& w, Packed&& packed) noexcept {
  using F = element_t<Packed>;
  static_assert(
      storage<element_t<W>> && quantized<F>,
      "shunt::quantize_weights: w must be float, shunt::bf16 or shunt::fp16, and packed of "
      "a weight format");
  auto const from = as_experts<P>(w);
  auto const to = as_output<P, 1>(packed);
  auto const shape = detail::packed_as<F, P::memory>(
      {{from.experts(), from.rows(), from.columns()}},
      from.has_pairs() ? std::optional(from.pairs()) : std::nullopt);
  if (status bad =
          first_of(check::policy(on), check::experts("quantize_weights.w", from, from.experts()),
                   check::not_packed("quantize_weights.w", from),
                   check::packed_into("quantize_weights.packed", shape, to));
      !bad.ok()) {
    return bad;
  }
  return detail::quantize_backend<P>::quantize(on, from, shape, to.data());
}

/// Packs 8-bit integers with a scale for each row, as they are published.
/// Shapes  numbers [E,N,K] · scale [E,N] → packed; `pairs`: how rows of gate and up lie
/// Types   std::int8_t, float.
/// Order   nothing is computed. A half of a pair by itself fills its half of an expert's bytes.
/// Aliasing none
/// Errors  extents that do not fit; too few bytes.
/// Cost    reads and writes once. Never allocates.
template <execution P, input<P, 3> Numbers, input<P, 2> Scale, output<P, 1> Packed>
[[nodiscard]] status pack_int8(P const& on, Numbers numbers, Scale scale, Packed&& packed,
                               std::optional<pair_layout> pairs = {}) noexcept {
  static_assert(std::same_as<element_t<Numbers>, std::int8_t> &&
                    std::same_as<element_t<Scale>, float> &&
                    std::same_as<element_t<Packed>, int8_channel>,
                "shunt::pack_int8: numbers must be std::int8_t, scale float, packed int8_channel");
  auto const from = as_input<P, 3>(numbers);
  auto const scales = as_input<P, 2>(scale);
  auto const to = as_output<P, 1>(packed);
  auto const shape = detail::packed_as<int8_channel, P::memory>(from.extents(), pairs);
  if (status bad = first_of(
          check::policy(on), check::rows("pack_int8.numbers", from),
          check::rows("pack_int8.scale", scales),
          check::extent("pack_int8.scale", 0, scales.extent(0), from.extent(0), "experts"),
          check::extent("pack_int8.scale", 1, scales.extent(1), from.extent(1), "rows of numbers"),
          check::packed_into("pack_int8.packed", shape, to));
      !bad.ok()) {
    return bad;
  }
  return detail::quantize_backend<P>::pack(on, from, scales, shape, to.data());
}

/// Packs 8-bit integers with a scale for each 32 or 128 of a row.
/// Shapes  numbers [E,N,K] · scale [E,N,ceil(K/Group)] → packed; `pairs`: how rows of gate and up lie
/// Types   std::int8_t; float, bf16 or fp16 → int8_group<32> or int8_group<128>, which say Group.
/// Order   nothing is computed.
/// Aliasing, Errors, Cost as pack_int8.
template <execution P, input<P, 3> Numbers, input<P, 3> Scale, output<P, 1> Packed>
[[nodiscard]] status pack_int8_groups(P const& on, Numbers numbers, Scale scale, Packed&& packed,
                                      std::optional<pair_layout> pairs = {}) noexcept {
  using F = element_t<Packed>;
  static_assert(std::same_as<element_t<Numbers>, std::int8_t> && storage<element_t<Scale>> &&
                    detail::is_int8_group<F>,
                "shunt::pack_int8_groups: numbers must be std::int8_t, scale float, shunt::bf16 or "
                "shunt::fp16, packed shunt::int8_group<32> or shunt::int8_group<128>");
  auto const from = as_input<P, 3>(numbers);
  auto const scales = as_input<P, 3>(scale);
  auto const to = as_output<P, 1>(packed);
  auto const shape = detail::packed_as<F, P::memory>(from.extents(), pairs);
  constexpr offset_t group = detail::packing<F>::block;
  if (status bad = first_of(
          check::policy(on), check::rows("pack_int8_groups.numbers", from),
          check::rows("pack_int8_groups.scale", scales),
          check::extent("pack_int8_groups.scale", 0, scales.extent(0), from.extent(0), "experts"),
          check::extent("pack_int8_groups.scale", 1, scales.extent(1), from.extent(1),
                        "rows of numbers"),
          check::extent("pack_int8_groups.scale", 2, scales.extent(2),
                        (from.extent(2) + group - 1) / group, "groups of a row"),
          check::packed_into("pack_int8_groups.packed", shape, to));
      !bad.ok()) {
    return bad;
  }
  return detail::quantize_backend<P>::pack(on, from, scales, shape, to.data());
}

/// Packs fp8 numbers with a scale for each block of 128 x 128, as DeepSeek-V3 publishes them
/// (weight, weight_scale_inv).
/// Shapes  numbers [E,N,K] · scale [E,ceil(N/128),ceil(K/128)] → packed
/// Types   fp8_e4m3, float.
/// Order   nothing is computed. A row's 128 that hold a NaN, or whose scale is not a finite number
///         below 2^120, are NaN when decoded.
/// Aliasing, Errors, Cost as pack_int8.
template <execution P, input<P, 3> Numbers, input<P, 3> Scale, output<P, 1> Packed>
[[nodiscard]] status pack_fp8(P const& on, Numbers numbers, Scale scale, Packed&& packed,
                              std::optional<pair_layout> pairs = {}) noexcept {
  static_assert(std::same_as<element_t<Numbers>, fp8_e4m3> &&
                    std::same_as<element_t<Scale>, float> &&
                    std::same_as<element_t<Packed>, fp8_block>,
                "shunt::pack_fp8: numbers must be fp8_e4m3, scale float, packed fp8_block");
  auto const from = as_input<P, 3>(numbers);
  auto const scales = as_input<P, 3>(scale);
  auto const to = as_output<P, 1>(packed);
  auto const shape = detail::packed_as<fp8_block, P::memory>(from.extents(), pairs);
  if (status bad =
          first_of(check::policy(on), check::rows("pack_fp8.numbers", from),
                   check::rows("pack_fp8.scale", scales),
                   check::extent("pack_fp8.scale", 0, scales.extent(0), from.extent(0), "experts"),
                   check::extent("pack_fp8.scale", 1, scales.extent(1),
                                 (from.extent(1) + 127) / 128, "blocks of 128 rows"),
                   check::extent("pack_fp8.scale", 2, scales.extent(2),
                                 (from.extent(2) + 127) / 128, "blocks of 128 columns"),
                   check::packed_into("pack_fp8.packed", shape, to));
      !bad.ok()) {
    return bad;
  }
  return detail::quantize_backend<P>::pack(on, from, scales, shape, to.data());
}

/// Packs mxfp4, as gpt-oss publishes it (blocks, scales): K is a multiple of 32.
/// Shapes  blocks [E,N,K/32,16], two numbers a byte, the first in the lower half · scales [E,N,K/32]
///         → packed. gpt-oss's first matrix: pair_layout{pair_order::gate_up, 1}
/// Types   std::uint8_t both.
/// Order   nothing is computed. A scale of 255 is NaN.
/// Aliasing, Errors, Cost as pack_int8.
template <execution P, input<P, 4> Blocks, input<P, 3> Scales, output<P, 1> Packed>
[[nodiscard]] status pack_mxfp4(P const& on, Blocks blocks, Scales scales, Packed&& packed,
                                std::optional<pair_layout> pairs = {}) noexcept {
  static_assert(std::same_as<element_t<Blocks>, std::uint8_t> &&
                    std::same_as<element_t<Scales>, std::uint8_t> &&
                    std::same_as<element_t<Packed>, mxfp4>,
                "shunt::pack_mxfp4: blocks and scales must be std::uint8_t, packed mxfp4");
  auto const from = as_input<P, 4>(blocks);
  auto const exponents = as_input<P, 3>(scales);
  auto const to = as_output<P, 1>(packed);
  auto const shape = detail::packed_as<mxfp4, P::memory>(
      {{from.extent(0), from.extent(1), 32 * from.extent(2)}}, pairs);
  if (status bad = first_of(
          check::policy(on), check::rows("pack_mxfp4.blocks", from),
          check::rows("pack_mxfp4.scales", exponents),
          check::extent("pack_mxfp4.blocks", 3, from.extent(3), 16, "bytes of a block"),
          check::extent("pack_mxfp4.scales", 0, exponents.extent(0), from.extent(0), "experts"),
          check::extent("pack_mxfp4.scales", 1, exponents.extent(1), from.extent(1),
                        "rows of blocks"),
          check::extent("pack_mxfp4.scales", 2, exponents.extent(2), from.extent(2),
                        "blocks of a row"),
          check::packed_into("pack_mxfp4.packed", shape, to));
      !bad.ok()) {
    return bad;
  }
  return detail::quantize_backend<P>::pack(on, from, exponents, shape, to.data());
}

/// Packs nvfp4, as it is published (weight, weight_scale, weight_scale_2): K is a multiple of 16.
/// Shapes  numbers [E,N,K/2], two a byte, the first in the lower half · scales [E,N,K/16] ·
///         of_tensor [E] → packed. Gate and up with floats of their own are packed apart.
/// Types   std::uint8_t, fp8_e4m3, float.
/// Order   nothing is computed. A scale that is NaN makes its 16 NaN.
/// Aliasing, Errors, Cost as pack_int8.
/// Source  NVIDIA, TensorRT Model Optimizer, 2025
template <execution P, input<P, 3> Numbers, input<P, 3> Scales, input<P, 1> OfTensor,
          output<P, 1> Packed>
[[nodiscard]] status pack_nvfp4(P const& on, Numbers numbers, Scales scales, OfTensor of_tensor,
                                Packed&& packed, std::optional<pair_layout> pairs = {}) noexcept {
  static_assert(
      std::same_as<element_t<Numbers>, std::uint8_t> && std::same_as<element_t<Scales>, fp8_e4m3> &&
          std::same_as<element_t<OfTensor>, float> && std::same_as<element_t<Packed>, nvfp4>,
      "shunt::pack_nvfp4: numbers must be std::uint8_t, scales fp8_e4m3, of_tensor float, "
      "packed nvfp4");
  auto const from = as_input<P, 3>(numbers);
  auto const groups = as_input<P, 3>(scales);
  auto const floats = as_input<P, 1>(of_tensor);
  auto const to = as_output<P, 1>(packed);
  auto const shape = detail::packed_as<nvfp4, P::memory>(
      {{from.extent(0), from.extent(1), 2 * from.extent(2)}}, pairs);
  if (status bad = first_of(
          check::policy(on), check::rows("pack_nvfp4.numbers", from),
          check::rows("pack_nvfp4.scales", groups), check::rows("pack_nvfp4.of_tensor", floats),
          check::extent("pack_nvfp4.scales", 0, groups.extent(0), from.extent(0), "experts"),
          check::extent("pack_nvfp4.scales", 1, groups.extent(1), from.extent(1),
                        "rows of numbers"),
          check::extent("pack_nvfp4.numbers", 2, from.extent(2), 8 * groups.extent(2),
                        "bytes of 16 numbers for each of a row's scales"),
          check::extent("pack_nvfp4.of_tensor", 0, floats.extent(0), from.extent(0), "experts"),
          check::packed_into("pack_nvfp4.packed", shape, to));
      !bad.ok()) {
    return bad;
  }
  return detail::quantize_backend<P>::pack(on, from, groups, floats, shape, to.data());
}

/// What a product sees of quantized weights, as floats.
/// Shapes  w packed [E,N,K] → out [E,N,K], rows in the order in which w.pairs() says they lay
/// Order   number times scale, rounded once.
/// Aliasing out shares no memory with w.
/// Errors  extents that do not fit.
/// Cost    reads w and writes out once. Never allocates.
template <execution P, class W, output<P, 3> Out>
  requires expert_weights<W, P>
[[nodiscard]] status dequantize_weights(P const& on, W const& w, Out out) noexcept {
  static_assert(quantized<element_t<W>> && std::same_as<element_t<Out>, float>,
                "shunt::dequantize_weights: w must be of a weight format, and out float");
  auto const from = as_experts<P>(w);
  auto const to = as_output<P, 3>(out);
  if (status bad = first_of(
          check::policy(on), check::experts("dequantize_weights.w", from, from.experts()),
          check::rows("dequantize_weights.out", to),
          check::extent("dequantize_weights.out", 0, to.extent(0), from.experts(), "experts of w"),
          check::extent("dequantize_weights.out", 1, to.extent(1), from.rows(), "rows of w"),
          check::extent("dequantize_weights.out", 2, to.extent(2), from.columns(), "columns of w"));
      !bad.ok()) {
    return bad;
  }
  return detail::quantize_backend<P>::dequantize(on, from, to);
}

}  // namespace shunt
