#pragma once
// What is known of each word of a block's shared memory, by happens-before: every warp has a vector
// of stamps, barriers join them, and each word remembers its last write and the last reads by two
// different warps. Stamps are unique in the block: a warp gets a fresh one at each barrier, so a
// stamp at or below `floor` lies before everything that comes, and one's own needs no comparison.

#include <array>
#include <cstdint>
#include <vector>

#include "machine/op.hpp"

namespace softgpu::checks {

inline constexpr int most_warps = 32;
using stamp = std::int32_t;
using stamps = std::array<stamp, most_warps>;

void join(stamps& into, stamps const& from);

struct conflict {
  char const* what = nullptr;
  int other = 0;
};

class shared_shadow {
 public:
  explicit shared_shadow(std::size_t bytes);
  /// Everything so far lies before what comes.
  void begin(std::size_t bytes, std::size_t warps);
  void tick(std::size_t warp) { seen[warp][warp] = ++latest_; }
  /// All warps have met.
  void all_met(std::size_t warps);

  /// `words` whole words from `first`, by a plain access. False, and nothing noted, where some of
  /// them need a closer look.
  bool touch_words(std::size_t first, std::size_t words, int warp, bool writes);
  /// One word, some of whose bytes are touched (a bit each).
  conflict touch(std::size_t word, int warp, std::uint32_t bytes, bool reads, bool writes,
                 bool strong);

  std::vector<std::uint8_t> written;  // by byte
  std::array<stamps, most_warps> seen{};
  std::array<stamps, 16> barriers{};
  stamps strong{};

 private:
  /// Whose and when; a tag is warp << 8 | bytes, bit 7 of it: a strong access.
  struct column {
    std::vector<stamp> when, tag;
  };
  column write_, read_, other_;  // other_: the last read by another warp than read_'s
  stamp latest_ = 0, floor_ = 0;
};

}  // namespace softgpu::checks
