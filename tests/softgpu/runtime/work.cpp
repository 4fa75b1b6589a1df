#include "runtime/work.hpp"

#include <atomic>
#include <cstring>

#include "checks/report.hpp"
#include "memory/arena.hpp"
#include "runtime/error.hpp"

namespace softgpu {
namespace {

thread_local bool inside = false;
std::atomic<bool> ending = false;

struct host_function_scope {
  host_function_scope() { inside = true; }
  ~host_function_scope() { inside = false; }
};

/// Where the host finds an address.
std::byte* host_of(std::uint64_t address) {
  return map::in_arena(address) ? map::host(address) : reinterpret_cast<std::byte*>(address);
}

/// Stream-ordered memory may have gone, or not have come, by the time its turn is.
bool may_touch(plane const& p, box const& size, char const* call, char const* end) {
  if (!map::in_arena(p.address) || arena::is_open(p.address, size.span(p))) return true;
  auto const found = arena::find(p.address);
  report r;
  r.what = found ? fault::out_of_bounds : fault::use_after_free;
  r.sentence = std::string(call) + ": its " + end +
               (found ? " has not been allocated in the order of the streams"
                      : " had been freed by the time the stream came to it");
  file_report(std::move(r));
  poison(cudaErrorIllegalAddress);
  return false;
}

template <class F> void for_each_row(box const& size, F&& row) {
  for (std::size_t z = 0; z < size.depth; ++z)
    for (std::size_t y = 0; y < size.height; ++y) row(y, z);
}

std::uint64_t row_of(plane const& p, std::size_t y, std::size_t z) {
  return p.address + z * p.slice + y * p.pitch;
}

void act(empty_action const&) {}
void act(child_action const&) {}  // its nodes have works of their own

void act(kernel_action const& a) { execute(a.request, a.parameters); }

void act(copy_action const& a) {
  if (sticky() != cudaSuccess) return;
  if (!may_touch(a.to, a.size, a.call, "destination")) return;
  if (!may_touch(a.from, a.size, a.call, "source")) return;
  for_each_row(a.size, [&](std::size_t y, std::size_t z) {
    std::uint64_t const to = row_of(a.to, y, z), from = row_of(a.from, y, z);
    std::byte const* const source =
        a.staged.empty() ? host_of(from) : a.staged.data() + (from - a.from.address);
    std::memmove(host_of(to), source, a.size.width);
    if (!map::in_arena(to)) return;
    if (map::in_arena(from))  // unwritten bytes stay unwritten
      std::memmove(map::shadow_of(to), map::shadow_of(from), a.size.width);
    else
      arena::mark_written(to, a.size.width);
  });
}

void act(fill_action const& a) {
  if (sticky() != cudaSuccess || !may_touch(a.to, a.size, a.call, "destination")) return;
  for_each_row(a.size, [&](std::size_t y, std::size_t z) {
    std::uint64_t const to = row_of(a.to, y, z);
    std::byte* const bytes = host_of(to);
    if (a.element == 1)
      std::memset(bytes, static_cast<int>(a.value), a.size.width);
    else
      for (std::size_t i = 0; i < a.size.width; i += static_cast<std::size_t>(a.element))
        std::memcpy(bytes + i, &a.value, static_cast<std::size_t>(a.element));
    arena::mark_written(to, a.size.width);
  });
}

void act(host_action const& a) {
  if (sticky() != cudaSuccess || ending) return;
  host_function_scope const scope;
  a.function(a.data);
}

void act(callback_action const& a) {  // unlike a host function, it hears of errors
  if (ending) return;
  host_function_scope const scope;
  a.function(a.stream, sticky(), a.data);
}

void act(open_action const& a) { arena::open(a.address); }
void act(free_action const& a) { arena::release(a.address); }

}  // namespace

reservation::~reservation() { arena::disown(address); }

void perform(action const& what) {
  std::visit([](auto const& a) { act(a); }, what);
}

bool in_host_function() { return inside; }
void skip_host_functions() { ending = true; }

}  // namespace softgpu
