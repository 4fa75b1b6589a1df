#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace lm {

/// A 64-bit hash that reads eight bytes a step (multiply and fold, as in FNV, finished as in
/// SplitMix64). For fingerprints and for picking documents; not for secrets. Pieces can be chained:
/// the hash of one is the seed of the next.
[[nodiscard]] inline std::uint64_t hash(void const* data, std::size_t size,
                                        std::uint64_t seed = 0xCBF29CE484222325u) noexcept {
  auto const* bytes = static_cast<unsigned char const*>(data);
  std::uint64_t h = seed ^ (size * 0x9E3779B97F4A7C15u);
  while (size > 0) {
    std::uint64_t word = 0;
    std::size_t const n = size < 8 ? size : 8;
    for (std::size_t i = 0; i < n; ++i) word |= std::uint64_t{bytes[i]} << (8 * i);
    h = (h ^ word) * 0x100000001B3u;
    h ^= h >> 29;
    bytes += n;
    size -= n;
  }
  h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9u;
  h = (h ^ (h >> 27)) * 0x94D049BB133111EBu;
  return h ^ (h >> 31);
}

[[nodiscard]] inline std::uint64_t hash(std::string_view text,
                                        std::uint64_t seed = 0xCBF29CE484222325u) noexcept {
  return hash(text.data(), text.size(), seed);
}

/// Sixteen hexadecimal digits.
[[nodiscard]] inline std::string hex(std::uint64_t value) {
  std::string digits(16, '0');
  for (std::size_t i = 16; i-- > 0; value >>= 4) digits[i] = "0123456789abcdef"[value & 15];
  return digits;
}

}  // namespace lm
