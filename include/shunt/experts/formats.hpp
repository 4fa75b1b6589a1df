#pragma once
#include <concepts>
#include <cstdint>

#include "shunt/core/macros.hpp"
#include "shunt/core/numeric.hpp"
#include "shunt/core/shape.hpp"

namespace shunt {

/// Weights in fewer bits, for inference: a byte of their packed form, whose name says what it means.
/// They exist only packed (quantize.hpp makes them), as `expert_matrix<mxfp4>::packed(...)`; a product
/// has the bits of the float product with the decoded weights. A decoded weight is its number times
/// its scale, rounded once to float. This one: an 8-bit integer, a float scale for each row.
struct int8_channel {
  std::uint8_t bits;  ///< as packed
};
/// 8-bit integers, a float scale for each Group of a row: 32 or 128.
template <int Group> struct int8_group {
  static_assert(Group == 32 || Group == 128, "shunt::int8_group: Group must be 32 or 128");
  std::uint8_t bits;  ///< as packed
};
/// E4m3, a float scale for each 128 x 128 (DeepSeek-V3).
struct fp8_block {
  std::uint8_t bits;  ///< as packed
};
/// E2m1, an e8m0 scale for each 32 of a row (OCP MX, gpt-oss).
struct mxfp4 {
  std::uint8_t bits;  ///< as packed
};
/// E2m1, an e4m3 scale for each 16 of a row, a float for each tensor (NVIDIA). A group's scale is the
/// e4m3 times the tensor's float, rounded once to float.
struct nvfp4 {
  std::uint8_t bits;  ///< as packed
};

/// 4-bit integers; a float scale and a zero point for each Group of a row: 32 (Kimi-K2-Thinking, in
/// compressed-tensors) or 128 (GPTQ, AWQ). A number is its four bits, 0 .. 15, less the zero point.
template <int Group> struct int4_group {
  static_assert(Group == 32 || Group == 128, "shunt::int4_group: Group must be 32 or 128");
  std::uint8_t bits;  ///< as packed
};

namespace detail {
template <class T>
inline constexpr bool is_int8_group =
    std::same_as<T, int8_group<32>> || std::same_as<T, int8_group<128>>;
template <class T>
inline constexpr bool is_int4 = std::same_as<T, int4_group<32>> || std::same_as<T, int4_group<128>>;
}  // namespace detail

/// A byte of packed weights in fewer bits.
template <class T>
concept quantized =
    std::same_as<T, int8_channel> || std::same_as<T, fp8_block> || std::same_as<T, mxfp4> ||
    std::same_as<T, nvfp4> || detail::is_int4<T> || detail::is_int8_group<T>;
/// What weights may be stored as; tokens and rows are always of a storage type.
template <class T>
concept weight_format = storage<T> || quantized<T>;

namespace detail {

/// How a panel of 16 rows lies: `head` bytes, then a piece of `piece_bytes` for each `block` of k.
/// Scales stand in front of what they scale, so that a product reads one run of bytes:
///   int8   16 float scales; for each k the 16 rows' bytes
///          (of int8_group: for each group, 16 float scales and these bytes)
///   fp8    for each 128 k: 16 floats, the rows' scales times 256 (a power of two less to do when
///          decoding); for each 2 k the 16 rows' pairs of bytes
///   mxfp4  for each 32 k: the rows' 16 scale bytes; for each 4 k 32 bytes: row r of the first two k
///          in low halves, of the others in high ones, at the byte that nibble_byte says
///   nvfp4  16 floats, the rows' tensors'; then as mxfp4, for each 16 k
///   int4   for each group: 16 floats, the rows' scales; their zero points, 16 bytes; numbers as mxfp4's
/// The last piece is whole, zeros behind the last k.
template <quantized F> struct packing;
template <> struct packing<int8_channel> {
  static constexpr offset_t head = 64, block = 1, piece_bytes = 16;
};
template <int Group> struct packing<int8_group<Group>> {
  static constexpr offset_t head = 0, block = Group, piece_bytes = 64 + Group * 16;
};
template <> struct packing<fp8_block> {
  static constexpr offset_t head = 0, block = 128, piece_bytes = 64 + 128 * 16;
};
template <> struct packing<mxfp4> {
  static constexpr offset_t head = 0, block = 32, piece_bytes = 16 + 32 * 16 / 2;
};
template <> struct packing<nvfp4> {
  static constexpr offset_t head = 64, block = 16, piece_bytes = 16 + 16 * 16 / 2;
};
template <int Group> struct packing<int4_group<Group>> {
  static constexpr offset_t head = 0, block = Group, piece_bytes = 80 + Group * 16 / 2;
};
/// Formats of e2m1; and those of four bits, whose numbers lie alike behind the scales of a piece.
template <class F> inline constexpr bool is_e2m1 = std::same_as<F, mxfp4> || std::same_as<F, nvfp4>;
template <class F> inline constexpr bool is_four_bits = is_e2m1<F> || is_int4<F>;

/// Bytes of a panel of so many columns.
template <quantized F> [[nodiscard]] constexpr offset_t panel_bytes(offset_t columns) noexcept {
  using p = packing<F>;
  return p::head + (columns + p::block - 1) / p::block * p::piece_bytes;
}

/// Where the number of row r and k % 4 = k lies in a group of four: rows r and r + 8 side by side, four
/// such pairs to each quarter of 128 bits, so that bytes unpacked once are (AVX2) 8 rows of one k in
/// lower halves of 32 bits, in order, and the other 8 in the upper ones.
[[nodiscard]] constexpr int nibble_byte(int r, int k) noexcept {
  return (r >> 2 & 1) * 16 + (k & 1) * 8 + (r & 3) * 2 + (r >> 3);
}

inline constexpr float e2m1[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                   -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

}  // namespace detail

/// The numbers of mxfp4 and nvfp4: sign, two bits of exponent, one of mantissa; in the low four bits.
[[nodiscard]] constexpr float e2m1_value(std::uint8_t bits) noexcept {
  return detail::e2m1[bits & 15];
}
/// 2^(bits - 127); all bits set is no number.
[[nodiscard]] SHUNT_HD constexpr float e8m0_value(std::uint8_t bits) noexcept {
  std::uint32_t const edge = bits == 0 || bits == 255 ? 0x400000u : 0u;
  return detail::bit_copy<float>((static_cast<std::uint32_t>(bits) << 23) | edge);
}

}  // namespace shunt
