#include "checks/shared_shadow.hpp"

#include <algorithm>
#include <cstring>

namespace softgpu::checks {
namespace {

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

bool shared_shadow::touch_words(std::size_t first, std::size_t words, int warp, bool writes) {
  stamp const mine = seen[std::size_t(warp)][std::size_t(warp)], tag = warp << 8 | 15;
  if (words % 4 != 0) {
    for (std::size_t i = first; i < first + words; ++i) {
      auto const settled = [&](stamp s) { return s <= floor_ || s == mine; };
      if (!settled(write_.when[i])) return false;
      if (writes && (!settled(read_.when[i]) || !settled(other_.when[i]))) return false;
    }
    for (std::size_t i = first; i < first + words; ++i) {
      if (writes) {
        write_.when[i] = mine, write_.tag[i] = tag;
        continue;
      }
      if (read_.tag[i] >> 8 != warp) other_.when[i] = read_.when[i], other_.tag[i] = read_.tag[i];
      read_.when[i] = mine, read_.tag[i] = tag;
    }
    return true;
  }
  four open{};
  for (std::size_t i = first; i < first + words; i += 4) {
    auto const unsettled = [&](four s) { return (s > floor_) & (s != mine); };
    open |= unsettled(at(write_.when, i));
    if (writes) open |= unsettled(at(read_.when, i)) | unsettled(at(other_.when, i));
  }
  if (any(open)) return false;
  for (std::size_t i = first; i < first + words; i += 4) {
    if (writes) {
      at(write_.when, i) = four{} + mine;
      at(write_.tag, i) = four{} + tag;
      continue;
    }
    four const others = (at(read_.tag, i) >> 8) != warp;
    at(other_.when, i) = (others & at(read_.when, i)) | (~others & at(other_.when, i));
    at(other_.tag, i) = (others & at(read_.tag, i)) | (~others & at(other_.tag, i));
    at(read_.when, i) = four{} + mine;
    at(read_.tag, i) = four{} + tag;
  }
  return true;
}

conflict shared_shadow::touch(std::size_t i, int warp, std::uint32_t bytes, bool reads, bool writes,
                              bool is_strong) {
  conflict found;
  stamps const& known = seen[std::size_t(warp)];
  stamp const mine = known[std::size_t(warp)];
  auto const unordered = [&](column const& c) {
    int const whose = c.tag[i] >> 8;
    return (static_cast<std::uint32_t>(c.tag[i]) & bytes & 15) != 0 && whose != warp &&
           c.when[i] > known[std::size_t(whose)] && !(is_strong && (c.tag[i] & 0x80) != 0);
  };
  if (unordered(write_))
    found = {writes ? "writes what another wrote" : "reads what another wrote", write_.tag[i] >> 8};
  else if (writes && unordered(read_))
    found = {"writes what another read", read_.tag[i] >> 8};
  else if (writes && unordered(other_))
    found = {"writes what another read", other_.tag[i] >> 8};
  stamp const mark = static_cast<stamp>(bytes | (is_strong ? 0x80u : 0u));
  auto const note = [&](column& c) {
    bool const again = c.tag[i] >> 8 == warp && c.when[i] == mine;
    c.tag[i] = warp << 8 | mark | (again ? c.tag[i] & 0xff : 0);
    c.when[i] = mine;
  };
  if (writes) note(write_);
  if (reads && !(writes && is_strong)) {
    if (read_.tag[i] >> 8 != warp) other_.when[i] = read_.when[i], other_.tag[i] = read_.tag[i];
    note(read_);
  }
  return found;
}

}  // namespace softgpu::checks
