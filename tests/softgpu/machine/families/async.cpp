// cp.async: PTX manual, "Data Movement: Asynchronous copy". A copy happens when it is waited for
// and not before, so that a missing wait shows up as data that is not there.
#include "machine/async.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "checks/memory_checks.hpp"
#include "machine/families/addresses.hpp"
#include "machine/families/families.hpp"

namespace softgpu {

namespace {

// An arrival at an mbarrier waits among the copies, as one of no bytes that comes after them.
bool is_arrival(pending_copy const& c) { return c.bytes == 0; }

template <class Due> void finish(warp& w, Due due) {
  for (pending_copy const& c : w.copies) {
    if (!due(c)) continue;
    if (is_arrival(c)) {
      arrive_at(c.to);
      continue;
    }
    if (c.source_bytes != 0) std::memcpy(c.to, c.from, c.source_bytes);
    std::memset(c.to + c.source_bytes, 0, std::size_t(c.bytes - c.source_bytes));
    checks::shared_arrive(*w.block, c.to - w.block->shared, c.bytes);
  }
  w.copies.erase(std::remove_if(w.copies.begin(), w.copies.end(), due), w.copies.end());
}

}  // namespace

void finish_copies(warp& w, lane_mask lanes, std::uint32_t keep) {
  finish(w, [&](pending_copy const& c) {
    return (lanes >> c.lane & 1) != 0 && c.group + keep < w.copy_groups[c.lane];
  });
}

void arrive_after_copies(warp& w, int lane, std::byte* object) {
  pending_copy c;
  c.to = object;
  c.lane = static_cast<std::uint8_t>(lane);
  c.group = w.copy_groups[lane];
  w.copies.push_back(c);
}

void finish_copies_for(block& b, std::byte const* object) {
  for (auto const& w : b.warps) {
    lane_mask arriving = 0;
    for (pending_copy const& c : w->copies)
      if (is_arrival(c) && c.to == object) arriving |= lane_mask{1} << c.lane;
    if (arriving != 0)
      finish(*w, [&](pending_copy const& c) { return (arriving >> c.lane & 1) != 0; });
  }
}

namespace {

// a, value, flags: the destination in shared memory; extras: the source's row, bytes taken from it;
// b.at and c.at: the source's offset and addressing; d: where true (xor ignored_flip), nothing is
// read and zeros are written; aux: bytes.
constexpr std::uint32_t ignored_flip = 1u << 31;
void copy(warp& w, op const& o) {
  ref const* const extras = w.here.code->extras.data() + o.extra;
  auto const bytes = static_cast<unsigned>(o.aux & ~ignored_flip);
  lane_mask const ignored = w.predicate(o.d) ^ ((o.aux & ignored_flip) != 0 ? all_lanes : 0);
  lane_mask const asked = w.mask;
  std::uint32_t const* const taken = w.row<std::uint32_t>(extras[1]);
  op from = o;  // the same op with the source's address
  from.a = extras[0];
  from.flags = static_cast<std::uint8_t>(o.c.at);
  from.value = o.b.at;
  access to(w, o, ptx::space::shared, access_kind::store, bytes);
  to.later = true;
  fill_addresses(to);
  lane_mask good = admit(to);
  lane_mask reads = 0;
  for (int i = 0; i < lanes_per_warp; ++i)
    if (((good & ~ignored) >> i & 1) != 0 && taken[i] != 0) reads |= lane_mask{1} << i;
  access source(w, from, ptx::space::global, access_kind::load, bytes);
  source.lanes = reads;
  if (reads != 0) {
    fill_addresses(source);
    good &= admit(source) | ~reads;
  }
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((good & asked) >> i & 1) {
      pending_copy c;
      c.to = to.host[i];
      if (reads >> i & 1) c.from = source.host[i];
      c.lane = static_cast<std::uint8_t>(i);
      c.bytes = static_cast<std::uint8_t>(bytes);
      std::uint32_t const from_source = (ignored >> i & 1) != 0 ? 0 : taken[i];
      c.source_bytes = static_cast<std::uint8_t>(std::min(from_source, std::uint32_t{bytes}));
      c.group = w.copy_groups[i];
      w.copies.push_back(c);
    }
  }
}

void build_copy(builder& b) {
  if (b.operand(2).kind != ptx::operand_kind::integer) b.fail("cp.async needs a constant size");
  auto const bytes = static_cast<std::uint32_t>(b.operand(2).value);
  if (bytes != 4 && bytes != 8 && bytes != 16) b.fail("cp.async copies 4, 8 or 16 bytes");
  if (b.has("cg") && bytes != 16) b.fail("cp.async.cg copies 16 bytes");
  ref taken = b.constant(bytes, 32), ignored = b.always();
  std::uint32_t flip = ~0u;
  if (b.operand_count() > 3) {
    ptx::operand const& last = b.operand(3);
    bool const predicate = last.kind == ptx::operand_kind::negated ||
                           (last.kind == ptx::operand_kind::reg &&
                            b.function().registers[std::size_t(last.index)].kind == 'p');
    bool const policy = b.has("L2::cache_hint") && b.operand_count() == 4;
    if (predicate)
      ignored = b.predicate_input(last, flip);
    else if (!policy)
      taken = b.input(3, {'u', 32});
  }
  op to, from;
  b.address(to, b.operand(0), ptx::space::shared);
  b.address(from, b.operand(1), ptx::space::global);
  if (from.value < INT32_MIN || from.value > INT32_MAX) b.fail("cp.async from a fixed address");
  op& o = b.emit(&copy);
  o.a = to.a, o.value = to.value, o.flags = to.flags;
  o.c.at = from.flags, o.b.at = static_cast<std::int32_t>(from.value), o.d = ignored;
  o.aux = bytes | (flip & ignored_flip);
  b.extra(o, from.a);
  b.extra(o, taken);
}

void commit(warp& w, op const&) {
  for (int i = 0; i < lanes_per_warp; ++i)
    if (w.mask >> i & 1) ++w.copy_groups[i];
}
void build_commit(builder& b) { b.emit(&commit); }

void wait_group(warp& w, op const& o) {
  finish_copies(w, w.mask, static_cast<std::uint32_t>(o.value));
}
void build_wait_group(builder& b) {
  op& o = b.emit(&wait_group);
  o.value = b.operand(0).value;
}
void wait_all(warp& w, op const& o) {  // also for what has not been committed
  commit(w, o);
  finish_copies(w, w.mask, 0);
}
void build_wait_all(builder& b) { b.emit(&wait_all); }

constexpr form rows[] = {
    {"cp.async.ca|cg.shared|shared::cta.global{.L2::cache_hint}{.L2::64B|L2::128B|L2::256B} "
     "[d], [a], n{, s}{, p}",
     kind::memory, build_copy},
    {"cp.async.commit_group", kind::control, build_commit},
    {"cp.async.wait_group n", kind::control, build_wait_group},
    {"cp.async.wait_all", kind::control, build_wait_all},
};

}  // namespace

std::span<form const> async_family() { return rows; }

}  // namespace softgpu
