#pragma once
// What is known of each word of a block's shared memory, by happens-before: every warp has a vector
// of stamps, barriers join them, and each word remembers its last write and the last reads by two
// different warps. Stamps are unique in the block: a warp gets a fresh one at each barrier and each
// bar.warp.sync, so a stamp at or below `floor` lies before everything that comes, and one that is
// the warp's current one tells of an access that nothing orders against another lane's.

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
  char const* what = nullptr;  // "reads", "writes"
  char const* before = "";     // what the other did to it
  int warp = 0;
  int lane = -1;  // of the same warp: who; several: many of them
};
inline constexpr int several = 63;

/// Which bytes of its threads' local memory have been written (local_checks.cpp).
class local_shadow {
 public:
  void begin();  // nothing has
  void make(std::size_t threads, std::size_t bytes_each);
  std::uint8_t* of(std::size_t thread, std::uint64_t address, unsigned bytes);

 private:
  std::vector<std::uint8_t> written_;
  std::size_t stride_ = 0, top_ = 0;
};

class shared_shadow {
 public:
  explicit shared_shadow(std::size_t bytes);
  /// Everything so far lies before what comes.
  void begin(std::size_t bytes, std::size_t warps);
  void tick(std::size_t warp) { seen[warp][warp] = ++latest_; }
  /// All warps have met.
  void all_met(std::size_t warps);

  /// Whole words by a plain access, `lanes` of which say whose each is (row_of, words_of). False,
  /// and nothing noted, where some of them need a closer look.
  bool touch_words(std::size_t first, std::size_t words, int warp, stamp const* lanes, bool writes);
  /// For touch_words: 32 lanes side by side, so many words each; and the words of one lane.
  static stamp const* row_of(unsigned words_per_lane);
  static stamp const* words_of(int lane);
  /// One word, some of whose bytes are touched (a bit each).
  conflict touch(std::size_t word, int warp, int lane, std::uint32_t bytes, bool reads, bool writes,
                 bool strong);

  std::vector<std::uint8_t> written;  // by byte
  local_shadow local;
  std::array<stamps, most_warps> seen{};
  std::array<stamps, 17> barriers{};  // the last is a cluster's
  stamps strong{};

 private:
  /// Whose and when. A tag is warp << 16 | lane << 8 | bytes; bit 7: a strong access.
  struct column {
    std::vector<stamp> when, tag;
  };
  column write_, read_, other_;  // other_: the last read by another warp than read_'s
  stamp latest_ = 0, floor_ = 0;
};

}  // namespace softgpu::checks
