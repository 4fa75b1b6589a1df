#include "counters/touched.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>

#include "memory/map.hpp"

namespace softgpu {

touched_bytes::touched_bytes() : count_(map::arena_bytes / chunk_bytes) {
  for (auto& side : chunks_) side.reset(new std::atomic<word*>[count_]());
}

touched_bytes::~touched_bytes() {
  for (auto& side : chunks_)
    for (std::size_t i = 0; i < count_; ++i) std::free(side[i].load());
}

touched_bytes::word* touched_bytes::chunk(bool written, std::uint64_t index) {
  std::atomic<word*>& slot = chunks_[written ? 1 : 0][index];
  word* known = slot.load(std::memory_order_acquire);
  if (known != nullptr) return known;
  // calloc: pages nobody touches cost nothing.
  auto* const fresh = static_cast<word*>(std::calloc(chunk_bytes / 64, sizeof(word)));
  if (fresh == nullptr) return nullptr;
  if (slot.compare_exchange_strong(known, fresh)) return fresh;
  std::free(fresh);
  return known;
}

std::uint64_t touched_bytes::mark(bool written, std::uint64_t address, std::uint64_t bytes) {
  std::uint64_t at = address - map::arena, fresh = 0;
  std::uint64_t const end = at + bytes;
  while (at < end) {
    std::uint64_t const stop = std::min(end, (at / 64 + 1) * 64);
    word* const words = chunk(written, at / chunk_bytes);
    if (words == nullptr) return fresh;
    std::uint64_t const many = stop - at;
    std::uint64_t const bits = (many == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << many) - 1)
                               << (at % 64);
    word& w = words[at % chunk_bytes / 64];
    if ((bits & ~w.load(std::memory_order_relaxed)) != 0)
      fresh += std::uint64_t(std::popcount(bits & ~w.fetch_or(bits, std::memory_order_relaxed)));
    at = stop;
  }
  return fresh;
}

}  // namespace softgpu
