// Spaces, hints and fences: isspacep, prefetch, cache policies, discard, membar, fence. Hints change
// nothing here.
#include <cstring>
#include <vector>

#include "machine/families/addresses.hpp"
#include "machine/families/families.hpp"

namespace softgpu {
namespace {

void nothing(warp&, op const&) {}
void build_nothing(builder& b) { b.emit(&nothing); }
void fence(warp&, op const&) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void build_fence(builder& b) { b.emit(&fence); }

// Cache policies are only handed on: any number will do.
void policy(warp& w, op const& o) {
  for (int i = 0; i < lanes_per_warp; ++i)
    if (w.mask >> i & 1) w.row<std::uint64_t>(o.d)[i] = 0x1000000000000000u;
}
void build_policy(builder& b) {
  ref const d = b.output(0, {'b', 64});
  op& o = b.emit(&policy);
  o.d = d;
}

// discard: what 128 bytes hold is nobody's to read any more.
void discard(warp& w, op const& o) {
  access a(w, o, static_cast<ptx::space>(o.aux), access_kind::store, 128);
  fill_addresses(a);
  lane_mask const good = admit(a);
  for (int i = 0; i < lanes_per_warp; ++i)
    if (good >> i & 1) std::memset(a.host[i], 0xdb, 128);
}
void build_discard(builder& b) {
  if (b.operand(1).kind != ptx::operand_kind::integer || b.operand(1).value != 128)
    b.fail("discard takes 128 bytes");
  op at;
  b.address(at, b.operand(0), space_of(b));
  op& o = b.emit(&discard);
  o.a = at.a, o.value = at.value, o.flags = at.flags;
  o.aux = static_cast<std::uint32_t>(space_of(b));
}

// isspacep: whether a generic address lies in a space. aux: the ranges of it in code::tables.
enum : std::int64_t { in_global, in_shared, in_local, in_parameters, in_ranges };
void is_space(warp& w, op const& o) {
  std::uint64_t const* const a = w.row<std::uint64_t>(o.a);
  launch const& l = *w.block->launch;
  lane_mask r = 0;
  for (int i = 0; i < lanes_per_warp; ++i) {
    bool const shared = a[i] - map::shared_window < map::window_bytes;
    bool const local = a[i] - map::local_window < map::window_bytes;
    bool yes = !shared && !local;
    if (o.value == in_shared) yes = shared;
    if (o.value == in_local) yes = local;
    if (o.value == in_parameters)
      yes = a[i] - l.parameters < static_cast<std::uint64_t>(l.kernel->parameter_bytes);
    if (o.value >= in_ranges) {
      std::int64_t const* range = w.here.code->tables.data() + (o.value - in_ranges);
      yes = false;
      for (std::uint32_t k = 0; k < o.aux; ++k, range += 2)
        yes |= a[i] - static_cast<std::uint64_t>(range[0]) < static_cast<std::uint64_t>(range[1]);
    }
    r |= lane_mask{yes} << i;
  }
  lane_mask& d = w.predicate(o.d);
  d = (d & ~w.mask) | (r & w.mask);
}
void build_is_space(builder& b) {
  ref const d = b.predicate_output(b.operand(0)), a = b.input(1, {'u', 64});
  op& o = b.emit(&is_space);
  o.d = d, o.a = a;
  switch (space_of(b)) {
    case ptx::space::shared: o.value = in_shared; return;
    case ptx::space::local: o.value = in_local; return;
    case ptx::space::parameter: o.value = in_parameters; return;
    case ptx::space::constant: break;
    default: o.value = in_global; return;
  }
  std::vector<std::int64_t>& tables = b.out().tables;  // begin and bytes of each constant
  o.value = in_ranges + static_cast<std::int64_t>(tables.size());
  for (ptx::variable const& v : b.owner().module().variables) {
    if (v.space != ptx::space::constant) continue;
    tables.push_back(static_cast<std::int64_t>(b.owner().variable(v.name)));
    tables.push_back(v.bytes);
    ++o.aux;
  }
}

constexpr form rows[] = {
    {"prefetch{.global|local}.L1|L2|L2::evict_last|L2::evict_normal [a]", kind::memory,
     build_nothing},
    {"prefetchu.L1 [a]", kind::memory, build_nothing},
    {"applypriority{.global}.L2::evict_normal [a], n", kind::memory, build_nothing},
    {"createpolicy.fractional.L2::evict_last|L2::evict_normal|L2::evict_first|L2::evict_unchanged"
     "{.L2::evict_first|L2::evict_unchanged}.b64 d{, f}",
     kind::move, build_policy},
    {"createpolicy.range{.global}.L2::evict_last|L2::evict_normal|L2::evict_first|L2::evict_"
     "unchanged{.L2::evict_first|L2::evict_unchanged}.b64 d, [a], n, m",
     kind::move, build_policy},
    {"createpolicy.cvt.L2.b64 d, a", kind::move, build_policy},
    {"discard{.global}.L2 [a], n", kind::memory, build_discard},
    {"isspacep.global|shared|shared::cta|shared::cluster|local|const|param|param::entry p, a",
     kind::integer, build_is_space},
    {"membar.cta|gl|sys", kind::control, build_fence},
    {"fence{.sc|acq_rel|acquire|release}.cta|cluster|gpu|sys", kind::control, build_fence},
    {"fence.mbarrier_init.release.cluster", kind::control, build_fence},
    {"fence.proxy.alias|async", kind::control, build_fence},
    {"fence.proxy.async.global|shared::cta|shared::cluster", kind::control, build_fence},
};

}  // namespace

std::span<form const> space_family() { return rows; }

}  // namespace softgpu
