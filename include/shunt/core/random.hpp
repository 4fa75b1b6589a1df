#pragma once
#include <cstdint>

#include "shunt/core/macros.hpp"

namespace shunt {

/// Four 32-bit words from a 128-bit counter and a 64-bit key: Philox4x32 with ten rounds (Salmon et
/// al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). A word depends on seed and position
/// only, so a result cannot depend on threads, order or backend.
struct random_words {
  std::uint32_t word[4];  ///< evenly distributed, independent of each other
};

/// The words at a position of a stream: streams of one seed are independent of each other.
SHUNT_HD constexpr random_words random_at(std::uint64_t seed, std::uint64_t position,
                                          std::uint64_t stream = 0) noexcept {
  std::uint32_t c[4] = {
      static_cast<std::uint32_t>(position), static_cast<std::uint32_t>(position >> 32),
      static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)};
  std::uint32_t key0 = static_cast<std::uint32_t>(seed);
  std::uint32_t key1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    std::uint64_t const a = std::uint64_t{0xD2511F53u} * c[0];
    std::uint64_t const b = std::uint64_t{0xCD9E8D57u} * c[2];
    std::uint32_t const next[4] = {
        static_cast<std::uint32_t>(b >> 32) ^ c[1] ^ key0, static_cast<std::uint32_t>(b),
        static_cast<std::uint32_t>(a >> 32) ^ c[3] ^ key1, static_cast<std::uint32_t>(a)};
    for (int i = 0; i < 4; ++i) c[i] = next[i];
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return {{c[0], c[1], c[2], c[3]}};
}

/// A float in [0, 1), of 24 random bits: exact, the same on every backend.
SHUNT_HD constexpr float uniform_of(std::uint32_t word) noexcept {
  return static_cast<float>(word >> 8) * 0x1p-24f;
}

}  // namespace shunt
