#include "machine/builtins.hpp"

#include <bit>
#include <cstdio>
#include <cstring>
#include <string>

#include "checks/faults.hpp"
#include "memory/arena.hpp"

namespace softgpu {
namespace {

/// An argument or a result in the frame of one lane.
template <class T> T& slot(warp& w, op const& o, int k, int lane) {
  ref const r = w.here.code->extras[std::size_t(o.extra + k)];
  return *reinterpret_cast<T*>(w.local + lane * w.local_stride + w.here.local + r.at);
}

/// A byte of memory a kernel may read, by generic address; null outside.
std::byte const* readable(warp& w, int lane, std::uint64_t at) {
  if (at - map::local_window < map::window_bytes) {
    std::uint64_t const offset = at - map::local_window;
    if (offset >= static_cast<std::uint64_t>(w.local_stride)) return nullptr;
    return w.local + lane * w.local_stride + offset;
  }
  if (at - map::shared_window < map::window_bytes) {
    std::uint64_t const offset = at - map::shared_window;
    if (offset >= static_cast<std::uint64_t>(w.block->shared_bytes)) return nullptr;
    return w.block->shared + offset;
  }
  if (!map::in_arena(at) || *map::shadow_of(at) < map::unwritten) return nullptr;
  return map::host(at);
}

std::string text_at(warp& w, int lane, std::uint64_t at) {
  std::string out;
  for (; out.size() < (1 << 20); ++at) {
    std::byte const* const p = readable(w, lane, at);
    if (p == nullptr) return out + "<unreadable>";
    if (*p == std::byte{0}) return out;
    out.push_back(static_cast<char>(*p));
  }
  return out;
}

/// printf's format with its arguments in memory as CUDA lays them out: 4 or 8 bytes, aligned.
std::string format(warp& w, int lane, std::string const& text, std::uint64_t at) {
  std::string out;
  auto const take = [&](std::uint64_t bytes) {
    at = (at + bytes - 1) / bytes * bytes;
    std::uint64_t v = 0;
    for (std::uint64_t i = 0; i < bytes; ++i)
      if (std::byte const* const p = readable(w, lane, at + i)) v |= std::uint64_t(*p) << (8 * i);
    at += bytes;
    return v;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out.push_back(text[i]);
      continue;
    }
    std::size_t const end = text.find_first_of("diouxXeEfFgGaAcspn%", i + 1);
    if (end == std::string::npos) return out + text.substr(i);
    std::string spec = text.substr(i, end - i + 1);
    char const what = text[end];
    char piece[512];
    int widths[2] = {}, stars = 0;
    for (char c : spec)
      if (c == '*' && stars < 2) widths[stars++] = static_cast<int>(take(4));
    auto const print = [&](auto value) {
      if (stars == 0) std::snprintf(piece, sizeof piece, spec.c_str(), value);
      if (stars == 1) std::snprintf(piece, sizeof piece, spec.c_str(), widths[0], value);
      if (stars == 2) std::snprintf(piece, sizeof piece, spec.c_str(), widths[0], widths[1], value);
      out += piece;
    };
    bool const wide = spec.find_first_of("ljzt") != std::string::npos;
    if (what == '%')
      out.push_back('%');
    else if (what == 's') {
      std::string const s = text_at(w, lane, take(8));
      if (spec == "%s")
        out += s;
      else
        print(s.c_str());
    } else if (what == 'p')
      print(reinterpret_cast<void*>(take(8)));
    else if (what == 'c')
      print(static_cast<int>(take(4)));
    else if (what == 'n')
      take(8);
    else if (std::strchr("eEfFgGaA", what) != nullptr)
      print(std::bit_cast<double>(take(8)));
    else if (wide)
      print(take(8));
    else
      print(static_cast<std::uint32_t>(take(4)));
    i = end;
  }
  return out;
}

void vprintf_builtin(warp& w, op const& o) {
  int const first = o.extra_count - 2;  // a returned value may come before
  for (int lane = 0; lane < lanes_per_warp; ++lane) {
    if ((w.mask >> lane & 1) == 0) continue;
    std::string const text = text_at(w, lane, slot<std::uint64_t>(w, o, first, lane));
    std::string const line = format(w, lane, text, slot<std::uint64_t>(w, o, first + 1, lane));
    std::fwrite(line.data(), 1, line.size(), stdout);
    if (first == 1) slot<std::int32_t>(w, o, 0, lane) = 0;
  }
}

void assert_builtin(warp& w, op const& o) {
  int const lane = std::countr_zero(w.mask);
  std::string const condition = text_at(w, lane, slot<std::uint64_t>(w, o, 0, lane));
  std::string const file = text_at(w, lane, slot<std::uint64_t>(w, o, 1, lane));
  std::string const function = text_at(w, lane, slot<std::uint64_t>(w, o, 3, lane));
  raise_fault(w, o, w.mask, fault::assertion,
              file + ":" + std::to_string(slot<std::uint32_t>(w, o, 2, lane)) + ": " + function +
                  ": assertion `" + condition + "` failed");
  w.exit_lanes(w.mask);
}

void malloc_builtin(warp& w, op const& o) {
  for (int lane = 0; lane < lanes_per_warp; ++lane) {
    if ((w.mask >> lane & 1) == 0) continue;
    allocation kind;
    kind.what = "device malloc";
    slot<std::uint64_t>(w, o, 0, lane) = arena::allocate(slot<std::uint64_t>(w, o, 1, lane), kind);
  }
}

void free_builtin(warp& w, op const& o) {
  for (int lane = 0; lane < lanes_per_warp; ++lane) {
    if ((w.mask >> lane & 1) == 0) continue;
    std::uint64_t const at = slot<std::uint64_t>(w, o, 0, lane);
    if (at != 0 && !arena::release(at))
      raise_fault(w, o, lane_mask{1} << lane, fault::invalid_use,
                  "free of an address that malloc did not give");
  }
}

}  // namespace

handler find_builtin(std::string_view name) {
  if (name == "vprintf") return &vprintf_builtin;
  if (name == "__assertfail") return &assert_builtin;
  if (name == "malloc") return &malloc_builtin;
  if (name == "free") return &free_builtin;
  return nullptr;
}

}  // namespace softgpu
