#include "memory/arena.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <utility>

namespace softgpu::arena {
namespace {

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t guard = 512;

std::uint64_t round_up(std::uint64_t n, std::uint64_t to) { return (n + to - 1) / to * to; }

/// A part of the arena that hands out its addresses in ascending order and then begins again.
struct region {
  std::uint64_t begin, end, next;
};

struct pool {
  std::mutex mutex;
  std::map<std::uint64_t, allocation> live;
  region constants{map::arena + (std::uint64_t{1} << 20), map::constant_end,
                   map::arena + (std::uint64_t{1} << 20)};
  region rest{map::constant_end, map::arena + map::arena_bytes, map::constant_end};
  std::uint64_t in_use = 0;
  int file = -1;

  pool() {
    file = memfd_create("softgpu", MFD_CLOEXEC);
    bool good = file >= 0 && ftruncate(file, static_cast<off_t>(map::arena_bytes)) == 0;
    auto const place = [&](std::uint64_t at, int protection, int flags, int fd) {
      void* const want = reinterpret_cast<void*>(at);
      good = good && mmap(want, map::arena_bytes, protection,
                          flags | MAP_FIXED_NOREPLACE | MAP_NORESERVE, fd, 0) == want;
    };
    place(map::arena, PROT_NONE, MAP_SHARED, file);
    place(map::view, PROT_READ | PROT_WRITE, MAP_SHARED, file);
    place(map::shadow, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    if (good) return;
    std::fprintf(stderr, "softgpu: cannot map 64 GiB of address space for device memory\n");
    std::abort();
  }

  /// The next gap between live allocations that has room for `bytes` and guards; 0: none.
  std::uint64_t find_gap(region& r, std::uint64_t bytes, std::uint64_t unit) {
    for (int lap = 0; lap < 2; ++lap) {
      for (std::uint64_t at = r.next; at < r.end;) {
        std::uint64_t const begin = round_up(at + guard, unit);
        std::uint64_t const end = round_up(begin + bytes + guard, unit);
        if (end > r.end) break;
        auto const after = live.lower_bound(at);
        if (after == live.end() || after->first >= end) return r.next = end, begin;
        bool const visible = after->second.host_visible;
        at = round_up(after->first + after->second.bytes + guard, visible ? page : 256);
      }
      r.next = r.begin;
    }
    return 0;
  }
};

pool& the_pool() {
  static pool* const p = new pool;  // outlives static destructors that free device memory
  return *p;
}

void paint(std::uint64_t address, std::uint64_t bytes, map::byte_state state) {
  std::memset(map::shadow_of(address), state, bytes);
}

}  // namespace

std::uint64_t allocate(std::uint64_t bytes, allocation kind) {
  pool& p = the_pool();
  std::lock_guard const lock(p.mutex);
  if (bytes > capacity || p.in_use + bytes > capacity) return 0;
  // Host-visible memory has pages of its own: their protection differs.
  std::uint64_t const unit = kind.host_visible ? page : 256;
  std::uint64_t const begin = p.find_gap(kind.constant ? p.constants : p.rest, bytes, unit);
  if (begin == 0) return 0;
  kind.address = begin;
  kind.bytes = bytes;
  p.in_use += bytes;
  p.live[begin] = kind;
  if (!kind.closed) paint(begin, bytes, kind.host_visible ? map::written : map::unwritten);
  if (kind.host_visible)
    mprotect(reinterpret_cast<void*>(begin), round_up(bytes, page), PROT_READ | PROT_WRITE);
  return begin;
}

void open(std::uint64_t address) {
  pool& p = the_pool();
  std::lock_guard const lock(p.mutex);
  auto const found = p.live.find(address);
  if (found == p.live.end()) return;
  found->second.closed = false;
  paint(address, found->second.bytes, map::unwritten);
}

bool retire(std::uint64_t address) {
  pool& p = the_pool();
  std::lock_guard const lock(p.mutex);
  auto const found = p.live.find(address);
  return found != p.live.end() && !std::exchange(found->second.retired, true);
}

bool revive(std::uint64_t address) {
  pool& p = the_pool();
  std::lock_guard const lock(p.mutex);
  auto const found = p.live.find(address);
  return found != p.live.end() && std::exchange(found->second.retired, false);
}

void disown(std::uint64_t address) {
  bool unused = false;
  {
    pool& p = the_pool();
    std::lock_guard const lock(p.mutex);
    auto const found = p.live.find(address);
    if (found == p.live.end()) return;
    found->second.in_graph = false;
    unused = found->second.closed;
  }
  if (unused) release(address);
}

bool release(std::uint64_t address) {
  pool& p = the_pool();
  std::lock_guard const lock(p.mutex);
  auto const found = p.live.find(address);
  if (found == p.live.end()) return false;
  if (found->second.in_graph) {
    found->second.closed = true;
    paint(address, found->second.bytes, map::freed);
    return true;
  }
  allocation const a = found->second;
  p.live.erase(found);
  p.in_use -= a.bytes;
  paint(a.address, a.bytes, map::freed);
  std::uint64_t const first = round_up(a.address, page), last = (a.address + a.bytes) / page * page;
  if (a.host_visible)
    mprotect(reinterpret_cast<void*>(a.address), round_up(a.bytes, page), PROT_NONE);
  if (last > first)  // gives the pages back; the addresses stay poisoned
    fallocate(p.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
              static_cast<off_t>(first - map::arena), static_cast<off_t>(last - first));
  return true;
}

std::optional<allocation> find(std::uint64_t address) {
  auto const a = nearest(address);
  if (a && address >= a->address && address - a->address < a->bytes) return a;
  return std::nullopt;
}

std::optional<allocation> nearest(std::uint64_t address) {
  pool& p = the_pool();
  std::lock_guard const lock(p.mutex);
  auto after = p.live.upper_bound(address);
  if (after != p.live.begin()) {
    auto const before = std::prev(after);
    std::uint64_t const end = before->first + before->second.bytes;
    bool const closer =
        after == p.live.end() || address < end || address - end <= after->first - address;
    if (closer) return before->second;
  }
  if (after != p.live.end()) return after->second;
  return std::nullopt;
}

std::vector<allocation> live() {
  pool& p = the_pool();
  std::lock_guard const lock(p.mutex);
  std::vector<allocation> out;
  for (auto const& [address, a] : p.live) out.push_back(a);
  return out;
}

std::uint64_t bytes_in_use() {
  pool& p = the_pool();
  std::lock_guard const lock(p.mutex);
  return p.in_use;
}

bool is_open(std::uint64_t address, std::uint64_t bytes) {
  static_assert(map::unwritten == 2 && map::written == 3 && map::freed == 1);
  std::uint8_t const* const shadow = map::shadow_of(address);
  constexpr std::uint64_t state = 0xfefefefefefefefe, open = 0x0202020202020202;
  std::uint64_t i = 0;
  for (; i + 512 <= bytes; i += 512) {
    std::uint64_t closed = 0, word;
    for (std::uint64_t k = 0; k < 512; k += 8) {
      std::memcpy(&word, shadow + i + k, 8);
      closed |= (word & state) ^ open;
    }
    if (closed != 0) return false;
  }
  return std::all_of(shadow + i, shadow + bytes, [](auto s) { return s >= map::unwritten; });
}

void mark_written(std::uint64_t address, std::uint64_t bytes) {
  paint(address, bytes, map::written);
}

bool covers(std::uint64_t address, std::uint64_t bytes) {
  auto const a = find(address);
  return a && bytes <= a->bytes - (address - a->address);
}

}  // namespace softgpu::arena
