#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace checkpoint {

/// An element type by the name that safetensors gives it.
struct element_kind {
  std::string_view name;
  std::uint64_t bits;
};
inline constexpr std::array<element_kind, 19> element_kinds = {{{"F64", 64},
                                                                {"F32", 32},
                                                                {"F16", 16},
                                                                {"BF16", 16},
                                                                {"F8_E4M3", 8},
                                                                {"F8_E5M2", 8},
                                                                {"F8_E8M0", 8},
                                                                {"F6_E2M3", 6},
                                                                {"F6_E3M2", 6},
                                                                {"F4", 4},
                                                                {"I64", 64},
                                                                {"I32", 32},
                                                                {"I16", 16},
                                                                {"I8", 8},
                                                                {"U64", 64},
                                                                {"U32", 32},
                                                                {"U16", 16},
                                                                {"U8", 8},
                                                                {"BOOL", 8}}};

/// 0 for a type that is not in the table.
[[nodiscard]] constexpr std::uint64_t bits_of_kind(std::string_view name) noexcept {
  for (element_kind const& kind : element_kinds) {
    if (kind.name == name) return kind.bits;
  }
  return 0;
}
/// What an address of such elements should be a multiple of; 1 for a type of unknown size.
[[nodiscard]] constexpr std::uint64_t alignment_of_kind(std::string_view name) noexcept {
  std::uint64_t const bits = bits_of_kind(name);
  return bits < 16 ? 1 : bits / 8;
}

/// The bytes of elements of `bits` in this shape; false where that leaves 62 bits or ends inside a
/// byte.
[[nodiscard]] inline bool size_of(std::span<std::uint64_t const> shape, std::uint64_t bits,
                                  std::uint64_t& size) noexcept {
  bool empty = false;
  for (std::uint64_t extent : shape) empty |= extent == 0;
  if (empty) {
    size = 0;
    return true;
  }
  std::uint64_t total = bits;
  for (std::uint64_t extent : shape) {
    if (extent > (std::uint64_t{1} << 62) / total) return false;
    total *= extent;
  }
  size = total / 8;
  return total % 8 == 0;
}

/// ceil(n / size), where n + size may not fit.
[[nodiscard]] constexpr std::uint64_t blocks_of(std::uint64_t n, std::uint64_t size) noexcept {
  return n / size + (n % size != 0 ? 1 : 0);
}

/// [2,3]
[[nodiscard]] inline std::string shape_text(std::span<std::uint64_t const> shape) {
  std::string text = "[";
  for (std::uint64_t extent : shape) {
    text += (text.size() > 1 ? "," : "") + std::to_string(extent);
  }
  return text + "]";
}

}  // namespace checkpoint
