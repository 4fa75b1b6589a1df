#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "safetensors_header.hpp"
#include "shunt/core/numeric.hpp"
#include "shunt/experts/formats.hpp"

namespace checkpoint {

/// A matrix as a checkpoint holds it: numbers of a type of Shunt's, or small ones in blocks that each
/// have a scale. Element (r,c) is its number times the scale of block (r / block_rows,
/// c / block_columns).
struct stored_matrix {
  tensor const* values = nullptr;
  tensor const* scales = nullptr;  ///< null: the numbers themselves
  std::uint64_t rows = 0, columns = 0, block_rows = 1, block_columns = 1;
  bool packed = false;  ///< two e2m1 numbers a byte, the first in the lower half

  /// Integers of 4 bits instead, eight a word: of a row (compressed-tensors), of a column (GPTQ), or of a
  /// row of the transposed matrix (AWQ). Scales of the last two are transposed.
  enum class words : std::uint8_t { none, rows, gptq, awq };
  words integers = words::none;
  tensor const* zeros = nullptr;      ///< null: zero points of 8
  int zero_less = 0;                  ///< what a stored one is too small by
  float of_tensor = 1.0f;             ///< nvfp4: what each scale is multiplied by
  std::vector<tensor const*> also{};  ///< what describes the matrix too, or the rows that meet it
};

/// The safetensors name of a storage type.
template <shunt::storage T> inline constexpr std::string_view kind_of = "F32";
template <> inline constexpr std::string_view kind_of<shunt::bf16> = "BF16";
template <> inline constexpr std::string_view kind_of<shunt::fp16> = "F16";

namespace detail {

/// Number i of an array at any address.
template <class U> [[nodiscard]] U number_at(std::byte const* data, std::uint64_t i) noexcept {
  static_assert(std::endian::native == std::endian::little);
  U value;
  std::memcpy(&value, data + i * sizeof(U), sizeof value);
  return value;
}

[[nodiscard]] inline float scale_at(tensor const& scales, std::uint64_t i) noexcept {
  if (scales.kind == "F32") return number_at<float>(scales.data, i);
  if (scales.kind == "F16") return shunt::to_float(number_at<shunt::fp16>(scales.data, i));
  if (scales.kind == "F8_E4M3") {
    return shunt::to_float(number_at<shunt::fp8_e4m3>(scales.data, i));
  }
  if (scales.kind == "BF16") return shunt::to_float(number_at<shunt::bf16>(scales.data, i));
  return shunt::e8m0_value(number_at<std::uint8_t>(scales.data, i));
}

/// What a byte of 8-bit numbers means.
[[nodiscard]] inline std::array<float, 256> meanings(std::string_view kind) noexcept {
  std::array<float, 256> all{};
  for (unsigned bits = 0; bits < 256; ++bits) {
    auto const b = static_cast<std::uint8_t>(bits);
    all[bits] = kind == "F8_E5M2" ? shunt::to_float(shunt::fp8_e5m2{b})
                                  : shunt::to_float(shunt::fp8_e4m3{b});
  }
  return all;
}

template <class U, class T>
void convert(std::byte const* from, std::uint64_t count, T* to) noexcept {
  for (std::uint64_t i = 0; i < count; ++i) {
    to[i] = shunt::from_float<T>(shunt::to_float(number_at<U>(from, i)));
  }
}

}  // namespace detail

/// Writes `count` numbers of a type of Shunt's as T: the bits where T is their type, else rounded.
template <shunt::storage T>
void convert(tensor const& from, std::uint64_t first, std::uint64_t count, T* to) noexcept {
  std::byte const* const data = from.data + first * (bits_of_kind(from.kind) / 8);
  if (from.kind == kind_of<T>) {
    if (count > 0) std::memcpy(to, data, static_cast<std::size_t>(count * sizeof(T)));
  } else if (from.kind == "F32") {
    detail::convert<float>(data, count, to);
  } else if (from.kind == "BF16") {
    detail::convert<shunt::bf16>(data, count, to);
  } else {
    detail::convert<shunt::fp16>(data, count, to);
  }
}

namespace detail {

/// Four bits of word i; AWQ stores eight in the order 0, 2, 4, 6, 1, 3, 5, 7.
[[nodiscard]] inline int four_bits(tensor const& words, std::uint64_t i, std::uint64_t number,
                                   bool awq = false) noexcept {
  std::uint64_t const at = awq ? number % 2 * 4 + number / 2 : number;
  return static_cast<int>(number_at<std::uint32_t>(words.data, i) >> 4 * at & 15u);
}
[[nodiscard]] inline int integer_at(stored_matrix const& m, std::uint64_t r,
                                    std::uint64_t c) noexcept {
  using words = stored_matrix::words;
  if (m.integers == words::awq) {
    return four_bits(*m.values, c * (m.rows / 8) + r / 8, r % 8, true);
  }
  return m.integers == words::gptq ? four_bits(*m.values, c / 8 * m.rows + r, c % 8)
                                   : four_bits(*m.values, r * (m.columns / 8) + c / 8, c % 8);
}
[[nodiscard]] inline int zero_at(stored_matrix const& m, std::uint64_t r,
                                 std::uint64_t group) noexcept {
  if (m.zeros == nullptr) return 8;
  using words = stored_matrix::words;
  std::uint64_t const groups = blocks_of(m.columns, m.block_columns);
  if (m.integers == words::rows) return four_bits(*m.zeros, r / 8 * groups + group, r % 8);
  bool const awq = m.integers == words::awq;
  return four_bits(*m.zeros, group * (m.rows / 8) + r / 8, r % 8, awq) + m.zero_less;
}
[[nodiscard]] inline float scale_of_integers(stored_matrix const& m, std::uint64_t r,
                                             std::uint64_t group) noexcept {
  bool const along = m.integers == stored_matrix::words::rows;
  std::uint64_t const groups = blocks_of(m.columns, m.block_columns);
  return scale_at(*m.scales, along ? r * groups + group : group * m.rows + r);
}
template <shunt::storage T> void decode_integers(stored_matrix const& m, T* to) noexcept {
  for (std::uint64_t r = 0; r < m.rows; ++r) {
    for (std::uint64_t c = 0; c < m.columns; ++c) {
      std::uint64_t const group = c / m.block_columns;
      auto const number = static_cast<float>(integer_at(m, r, c) - zero_at(m, r, group));
      to[r * m.columns + c] = shunt::from_float<T>(number * scale_of_integers(m, r, group));
    }
  }
}

}  // namespace detail

/// Writes a matrix row by row as T. The product of number and scale is rounded to float, then to T:
/// exact for mxfp4, whatever T's exponents can hold.
template <shunt::storage T> void decode(stored_matrix const& m, T* to) noexcept {
  if (m.scales == nullptr) {
    convert(*m.values, 0, m.rows * m.columns, to);
    return;
  }
  if (m.integers != stored_matrix::words::none) {
    detail::decode_integers(m, to);
    return;
  }
  auto const eight = detail::meanings(m.values->kind);
  std::uint64_t const scales_a_row = blocks_of(m.columns, m.block_columns);
  for (std::uint64_t r = 0; r < m.rows; ++r) {
    for (std::uint64_t block = 0; block < scales_a_row; ++block) {
      float const scale =
          detail::scale_at(*m.scales, r / m.block_rows * scales_a_row + block) * m.of_tensor;
      std::uint64_t const first = block * m.block_columns;
      std::uint64_t const count = std::min(m.columns - first, m.block_columns);
      for (std::uint64_t c = first; c < first + count; ++c) {
        std::uint64_t const i = r * m.columns + c;
        float number = 0;
        if (m.packed) {
          auto const two = std::to_integer<unsigned>(m.values->data[i / 2]);
          number = shunt::e2m1_value(static_cast<std::uint8_t>(i % 2 == 0 ? two : two >> 4));
        } else {
          number = eight[std::to_integer<unsigned>(m.values->data[i])];
        }
        to[i] = shunt::from_float<T>(number * scale);
      }
    }
  }
}

}  // namespace checkpoint
