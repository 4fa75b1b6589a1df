#include "checks/shared_shadow.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace softgpu::checks {
namespace {

constexpr int unknown = 62;  // a lane

/// Four words at a time.
using four = stamp __attribute__((vector_size(16), aligned(4), may_alias));

four& at(std::vector<stamp>& v, std::size_t i) { return *reinterpret_cast<four*>(v.data() + i); }

bool any(four v) {
  long long halves[2];
  std::memcpy(halves, &v, sizeof v);
  return (halves[0] | halves[1]) != 0;
}

}  // namespace

void join(stamps& into, stamps const& from) {
  for (int i = 0; i < most_warps; ++i)
    into[std::size_t(i)] = std::max(into[std::size_t(i)], from[std::size_t(i)]);
}

shared_shadow::shared_shadow(std::size_t bytes) {
  for (column* c : {&write_, &read_, &other_})
    for (auto* v : {&c->when, &c->tag}) v->resize(bytes / 4 + 16);
}

void shared_shadow::begin(std::size_t bytes, std::size_t warps) {
  written.assign(bytes + 64, 0);
  if (latest_ > stamp{1} << 30) {
    for (column* c : {&write_, &read_, &other_}) std::fill(c->when.begin(), c->when.end(), 0);
    latest_ = 0;
  }
  floor_ = latest_;
  for (stamps& s : seen) s.fill(floor_);
  for (stamps& s : barriers) s.fill(floor_);
  strong.fill(floor_);
  for (std::size_t w = 0; w < warps; ++w) tick(w);
}

void shared_shadow::all_met(std::size_t warps) {
  floor_ = latest_;
  for (std::size_t w = 0; w < warps; ++w) {
    seen[w].fill(floor_);
    tick(w);
  }
}

stamp const* shared_shadow::row_of(unsigned words_per_lane) {
  static auto const table = [] {
    std::array<std::array<stamp, 256>, 4> out{};
    for (unsigned k = 0; k < 4; ++k)
      for (unsigned i = 0; i < 256; ++i) out[k][i] = stamp(i >> k) << 8 | 15;
    return out;
  }();
  return table[std::size_t(std::countr_zero(words_per_lane))].data();
}

stamp const* shared_shadow::words_of(int lane) { return row_of(8) + 8 * lane; }

bool shared_shadow::touch_words(std::size_t first, std::size_t words, int warp, stamp const* lanes,
                                bool writes) {
  stamp const mine = seen[std::size_t(warp)][std::size_t(warp)], whose = warp << 16;
  stamp const all_of_us = whose | several << 8 | 15;
  // In the same words for one of a kind and for four.
  auto const is_open = [&](auto when, auto tag, auto own) {
    return (when > floor_) & ~((when == mine) & (tag == own));
  };
  if (words % 4 != 0) {
    for (std::size_t k = 0; k < words; ++k) {
      std::size_t const i = first + k;
      stamp const own = lanes[k] | whose;
      auto const open = [&](column const& c) {
        return c.when[i] > floor_ && !(c.when[i] == mine && c.tag[i] == own);
      };
      if (writes
              ? (write_.when[i] > floor_ && write_.when[i] != mine) || open(read_) || open(other_)
              : open(write_))
        return false;
    }
    for (std::size_t k = 0; k < words; ++k) {
      std::size_t const i = first + k;
      stamp const own = lanes[k] | whose;
      if (writes) {
        write_.when[i] = mine, write_.tag[i] = own;
        continue;
      }
      bool const again = read_.when[i] == mine && read_.tag[i] != own;
      if (read_.tag[i] >> 16 != warp) other_.when[i] = read_.when[i], other_.tag[i] = read_.tag[i];
      read_.when[i] = mine, read_.tag[i] = again ? all_of_us : own;
    }
    return true;
  }
  auto const own_of = [&](std::size_t k) {
    return *reinterpret_cast<four const*>(lanes + k) | whose;
  };
  four open{};
  for (std::size_t k = 0; k < words; k += 4) {
    std::size_t const i = first + k;
    four const own = own_of(k), wrote = at(write_.when, i);
    if (writes)
      open |= ((wrote > floor_) & (wrote != mine)) |
              is_open(at(read_.when, i), at(read_.tag, i), own) |
              is_open(at(other_.when, i), at(other_.tag, i), own);
    else
      open |= is_open(wrote, at(write_.tag, i), own);
  }
  if (any(open)) return false;
  for (std::size_t k = 0; k < words; k += 4) {
    std::size_t const i = first + k;
    four const own = own_of(k);
    if (writes) {
      at(write_.when, i) = four{} + mine;
      at(write_.tag, i) = own;
      continue;
    }
    four const when = at(read_.when, i), tag = at(read_.tag, i);
    four const others = (tag >> 16) != warp, again = (when == mine) & (tag != own);
    at(other_.when, i) = (others & when) | (~others & at(other_.when, i));
    at(other_.tag, i) = (others & tag) | (~others & at(other_.tag, i));
    at(read_.when, i) = four{} + mine;
    at(read_.tag, i) = (again & all_of_us) | (~again & own);
  }
  return true;
}

conflict shared_shadow::touch(std::size_t i, int warp, int lane, std::uint32_t bytes, bool reads,
                              bool writes, bool is_strong) {
  conflict found;
  stamps const& known = seen[std::size_t(warp)];
  stamp const mine = known[std::size_t(warp)];
  auto const lane_of = [&](column const& c) { return c.tag[i] >> 8 & 63; };
  auto const bytes_of = [&](column const& c) { return static_cast<std::uint32_t>(c.tag[i]) & 15; };
  // An access by another warp that no barrier orders before this one.
  auto const by_another = [&](column const& c) {
    int const whose = c.tag[i] >> 16;
    return (bytes_of(c) & bytes) != 0 && whose != warp && c.when[i] > known[std::size_t(whose)] &&
           !(is_strong && (c.tag[i] & 0x80) != 0);
  };
  // One by another lane of this warp since its last bar.warp.sync.
  auto const by_us = [&](column const& c) {
    return !is_strong && (c.tag[i] & 0x80) == 0 && c.when[i] == mine &&
           (bytes_of(c) & bytes) != 0 && lane_of(c) != lane && lane_of(c) != unknown;
  };
  char const* const verb = writes ? "writes" : "reads";
  if (by_another(write_))
    found = {verb, "wrote", write_.tag[i] >> 16};
  else if (writes && by_another(read_))
    found = {verb, "read", read_.tag[i] >> 16};
  else if (writes && by_another(other_))
    found = {verb, "read", other_.tag[i] >> 16};
  else if (reads && by_us(write_))
    found = {verb, "wrote", warp, lane_of(write_)};
  else if (writes && by_us(read_))
    found = {verb, "read", warp, lane_of(read_)};
  else if (writes && by_us(other_))
    found = {verb, "read", warp, lane_of(other_)};
  stamp const mark = static_cast<stamp>(bytes | (is_strong ? 0x80u : 0u));
  auto const note = [&](column& c, bool is_read) {
    bool const again = c.tag[i] >> 16 == warp && c.when[i] == mine;
    int who = lane;
    if (again && lane_of(c) != lane)  // of parts of a word by several lanes no more is known
      who = bytes_of(c) != bytes ? unknown : is_read ? several : lane;
    c.tag[i] = warp << 16 | who << 8 | mark | (again ? c.tag[i] & 0xff : 0);
    c.when[i] = mine;
  };
  if (writes) note(write_, false);
  if (reads && !(writes && is_strong)) {
    if (read_.tag[i] >> 16 != warp) other_.when[i] = read_.when[i], other_.tag[i] = read_.tag[i];
    note(read_, true);
  }
  return found;
}

}  // namespace softgpu::checks
