// Sectors and banks: how many a warp's access touches, and how few would have done.
#include "counters/traffic.hpp"

#include <algorithm>
#include <bit>

namespace softgpu {
namespace {

/// The sectors of one access and their bytes: 32 lanes touch at most 32 of them. A slot is in use
/// where it carries the current stamp, so that nothing need be cleared between accesses.
class sector_set {
 public:
  void clear() { ++now_, sectors_ = bytes_ = 0, last_ = nullptr; }
  void insert(std::uint64_t address, unsigned bytes) {
    std::uint64_t const key = address / sector_bytes;
    std::uint32_t const bits =
        bytes >= sector_bytes ? ~0u : ((1u << bytes) - 1) << (address % sector_bytes);
    slot& s = last_ != nullptr && last_->key == key ? *last_ : find(key);
    if ((s.bits & bits) == 0) bytes_ += bytes;  // aligned pieces of one size: all or nothing
    s.bits |= bits;
    last_ = &s;
  }
  [[nodiscard]] std::uint64_t sectors() const { return sectors_; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }

 private:
  struct slot {
    std::uint64_t key = 0, stamp = 0;
    std::uint32_t bits = 0;
  };
  slot& find(std::uint64_t key) {
    std::size_t at = (key * 0x9e3779b97f4a7c15u) >> 58;
    while (slots_[at].stamp == now_ && slots_[at].key != key) at = (at + 1) % 64;
    slot& s = slots_[at];
    if (s.stamp != now_) s = {key, now_, 0}, ++sectors_;
    return s;
  }
  slot slots_[64];
  slot* last_ = nullptr;
  std::uint64_t now_ = 0, sectors_ = 0, bytes_ = 0;
};

/// How often the fullest of `banks` banks, each `unit` bytes wide, is asked for another unit.
unsigned passes(std::uint64_t const* address, std::uint32_t lanes, unsigned unit, unsigned banks,
                bool atomic, bool& together) {
  std::uint32_t busy = 0;
  bool apart = true;  // no two lanes in one bank
  for (std::uint32_t left = lanes; left != 0 && apart; left &= left - 1) {
    std::uint32_t const bank = 1u << (address[std::countr_zero(left)] / unit % banks);
    apart = (busy & bank) == 0;
    busy |= bank;
  }
  if (apart) return 1;
  std::uint32_t units[32][32];
  unsigned count[32] = {}, most = 0;
  for (std::uint32_t left = lanes; left != 0; left &= left - 1) {
    auto const at = static_cast<std::uint32_t>(address[std::countr_zero(left)] / unit);
    std::uint32_t* const seen = units[at % banks];
    unsigned& n = count[at % banks];
    if (!atomic && std::find(seen, seen + n, at) != seen + n) {
      together = true;
      continue;
    }
    seen[n++] = at;
    most = std::max(most, n);
  }
  return most;
}

}  // namespace

void traffic::add(traffic const& other) {
  for (int k = 0; k < 3; ++k) {
    direction& d = global[k];
    direction const& o = other.global[k];
    d.accesses += o.accesses, d.bytes += o.bytes, d.sectors += o.sectors;
    d.least += o.least, d.fresh += o.fresh;
  }
  shared_accesses += other.shared_accesses;
  shared_wavefronts += other.shared_wavefronts;
  shared_least += other.shared_least;
  local_bytes += other.local_bytes;
}

void traffic::count_lanes(int kind, std::uint64_t const* address, unsigned bytes,
                          std::uint32_t lanes, touched_bytes* touched) {
  thread_local sector_set set;
  set.clear();
  direction& d = global[kind];
  for (std::uint32_t left = lanes; left != 0; left &= left - 1) {
    std::uint64_t const at = address[std::countr_zero(left)];
    set.insert(at, bytes);
    if (touched != nullptr) d.fresh += touched->mark(kind != 0, at, bytes);
  }
  ++d.accesses;
  d.bytes += static_cast<std::uint64_t>(std::popcount(lanes)) * bytes;
  d.sectors += set.sectors();
  d.least += (set.bytes() + sector_bytes - 1) / sector_bytes;
}

// 32 banks of 4 bytes. A warp's access goes in groups of lanes that ask for 128 bytes together: the
// warp for up to 4 bytes a lane, halves for 8, quarters for 16 (a quarter is a matrix of ldmatrix).
// As accesses are aligned, a group's lanes either share a unit of that size or differ in it wholly:
// a bank is a unit wide. A group takes as many passes as one bank has different units to give; one
// unit goes to all lanes that ask for it, but atomics on it go one after the other.
bool traffic::count_shared(std::uint64_t const* address, unsigned bytes, std::uint32_t lanes,
                           bool atomic, bool consecutive) {
  ++shared_accesses;
  unsigned const unit = std::clamp(bytes, 4u, 16u), size = 128 / unit;
  if (consecutive) {
    shared_wavefronts += 32 / size, shared_least += 32 / size;
    return false;
  }
  bool together = false;
  std::uint32_t const whole = size == 32 ? ~0u : (1u << size) - 1;
  for (unsigned first = 0; first < 32; first += size) {
    std::uint32_t const asking = lanes >> first & whole;
    if (asking == 0) continue;
    shared_wavefronts += passes(address + first, asking, unit, size, atomic, together);
    ++shared_least;
  }
  return together;
}

}  // namespace softgpu
