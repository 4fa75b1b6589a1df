// Instructions of a whole warp: shfl, vote, match, redux, activemask, elect.
#include <bit>
#include <cmath>

#include "checks/faults.hpp"
#include "machine/builder.hpp"
#include "machine/families/families.hpp"

namespace softgpu {
namespace {

using u32 = std::uint32_t;
using u64 = std::uint64_t;

/// The lanes that execute now: those whose members (row m) are all here. Sets w.mask to them.
bool gather(warp& w, op const& o, ref m) {
  w.mask = w.meet(w.row<lane_mask>(m), o);
  return w.mask != 0;
}

void set_predicate(warp& w, ref d, lane_mask r) {
  lane_mask& p = w.predicate(d);
  p = (p & ~w.mask) | (r & w.mask);
}

// shfl: a value, b lane or distance, c clamp and segment mask; extras: members, predicate.
enum class shuffle : std::uint8_t { up, down, bfly, idx };
template <shuffle Mode, bool Sync> void shfl(warp& w, op const& o) {
  ref const* const extras = w.here.code->extras.data() + o.extra;
  if (Sync && !gather(w, o, extras[0])) return;
  u32 const *a = w.row<u32>(o.a), *b = w.row<u32>(o.b), *c = w.row<u32>(o.c);
  u32* const d = w.row<u32>(o.d);
  u32 result[lanes_per_warp];
  lane_mask in_range = 0, bad = 0;
  for (u32 lane = 0; lane < lanes_per_warp; ++lane) {
    if ((w.mask >> lane & 1) == 0) continue;
    u32 const distance = b[lane] & 31, clamp = c[lane] & 31, segment = c[lane] >> 8 & 31;
    u32 const most = (lane & segment) | (clamp & ~segment), least = lane & segment;
    u32 j = 0;
    bool inside = false;
    switch (Mode) {
      case shuffle::up:
        j = lane - distance;
        inside = static_cast<int>(j) >= static_cast<int>(most);
        break;
      case shuffle::down:
        j = lane + distance;
        inside = j <= most;
        break;
      case shuffle::bfly:
        j = lane ^ distance;
        inside = j <= most;
        break;
      case shuffle::idx:
        j = least | (distance & ~segment);
        inside = j <= most;
        break;
    }
    if (!inside) j = lane;
    if ((w.mask >> j & 1) == 0) bad |= u32{1} << lane;
    result[lane] = a[j & 31];
    in_range |= u32{inside} << lane;
  }
  if (bad != 0)
    raise_fault(w, o, bad, fault::inactive_lane, "a shuffle reads a lane that does not take part");
  for (int i = 0; i < lanes_per_warp; ++i)
    if (w.mask >> i & 1) d[i] = result[i];
  if (o.flags != 0) set_predicate(w, extras[1], in_range);
}

template <bool Sync> void build_shfl(builder& b) {
  ptx::operand const& to = b.operand(0);
  bool const pair = to.kind == ptx::operand_kind::pair;
  ref const d = b.output(pair ? to.parts[0] : to, {'b', 32});
  ref const p = pair ? b.predicate_output(to.parts[1]) : b.scratch();
  ref const a = b.input(1, {'b', 32}), lane = b.input(2, {'b', 32}), c = b.input(3, {'b', 32});
  ref const members = Sync ? b.input(4, {'b', 32}) : b.constant(all_lanes, 32);
  std::string_view const mode = b.one_of({"up", "down", "bfly", "idx"});
  op& o = b.emit(mode == "up"     ? &shfl<shuffle::up, Sync>
                 : mode == "down" ? &shfl<shuffle::down, Sync>
                 : mode == "bfly" ? &shfl<shuffle::bfly, Sync>
                                  : &shfl<shuffle::idx, Sync>);
  o.d = d, o.a = a, o.b = lane, o.c = c, o.flags = pair;
  b.extra(o, members);
  b.extra(o, p);
}

// vote: a predicate, b members. Lanes with different members vote apart.
enum class vote_mode : std::uint8_t { all, any, uni, ballot };
template <vote_mode Mode> void vote(warp& w, op const& o) {
  if (!gather(w, o, o.b)) return;
  lane_mask const truth = (w.predicate(o.a) ^ o.aux) & w.mask;
  lane_mask const* const members = w.row<lane_mask>(o.b);
  lane_mask r = 0;
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((w.mask >> i & 1) == 0) continue;
    lane_mask const mine = members[i] & w.mask, yes = truth & mine;
    if constexpr (Mode == vote_mode::ballot) {
      w.row<u32>(o.d)[i] = yes;
    } else {
      bool const result = Mode == vote_mode::all   ? yes == mine
                          : Mode == vote_mode::any ? yes != 0
                                                   : yes == 0 || yes == mine;
      r |= lane_mask{result} << i;
    }
  }
  if constexpr (Mode != vote_mode::ballot) set_predicate(w, o.d, r);
}
void build_vote(builder& b) {
  std::string_view const mode = b.one_of({"all", "any", "uni", "ballot"});
  u32 flip = 0;
  ref const d = mode == "ballot" ? b.output(0, {'b', 32}) : b.predicate_output(b.operand(0));
  ref const a = b.predicate_input(b.operand(1), flip), members = b.input(2, {'b', 32});
  op& o = b.emit(mode == "all"   ? &vote<vote_mode::all>
                 : mode == "any" ? &vote<vote_mode::any>
                 : mode == "uni" ? &vote<vote_mode::uni>
                                 : &vote<vote_mode::ballot>);
  o.d = d, o.a = a, o.b = members, o.aux = flip;
}

// match: a value, b members; the lanes among them that hold the same value.
template <class T, bool All> void match(warp& w, op const& o) {
  if (!gather(w, o, o.b)) return;
  T const* const a = w.row<T>(o.a);
  lane_mask const* const members = w.row<lane_mask>(o.b);
  lane_mask r[lanes_per_warp], uniform = 0;
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((w.mask >> i & 1) == 0) continue;
    lane_mask const mine = members[i] & w.mask;
    lane_mask equal = 0;
    for (int j = 0; j < lanes_per_warp; ++j)
      if ((mine >> j & 1) != 0 && a[j] == a[i]) equal |= lane_mask{1} << j;
    if (equal == mine) uniform |= lane_mask{1} << i;
    r[i] = !All ? equal : equal == mine ? mine : 0;
  }
  u32* const d = w.row<u32>(o.d);
  for (int i = 0; i < lanes_per_warp; ++i)
    if (w.mask >> i & 1) d[i] = r[i];
  if (All && o.flags != 0) set_predicate(w, w.here.code->extras[std::size_t(o.extra)], uniform);
}
void build_match(builder& b) {
  bool const all = b.has("all"), wide = b.type().bits == 64;
  ptx::operand const& to = b.operand(0);
  bool const pair = to.kind == ptx::operand_kind::pair;
  ref const d = b.output(pair ? to.parts[0] : to, {'b', 32});
  ref const p = pair ? b.predicate_output(to.parts[1]) : b.scratch();
  ref const a = b.input(1, b.type()), members = b.input(2, {'b', 32});
  op& o = b.emit(all ? (wide ? &match<u64, true> : &match<u32, true>)
                     : (wide ? &match<u64, false> : &match<u32, false>));
  o.d = d, o.a = a, o.b = members, o.flags = pair;
  b.extra(o, p);
}

// redux: a value, b members; one result for all of them.
enum class reduce : std::uint8_t { add, min, max, and_, or_, xor_ };
template <class T, reduce F> void redux(warp& w, op const& o) {
  if (!gather(w, o, o.b)) return;
  T const* const a = w.row<T>(o.a);
  lane_mask const* const members = w.row<lane_mask>(o.b);
  T r[lanes_per_warp];
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((w.mask >> i & 1) == 0) continue;
    lane_mask const mine = members[i] & w.mask;
    u64 sum = static_cast<u64>(a[std::countr_zero(mine)]);
    T acc = a[std::countr_zero(mine)];
    for (int j = std::countr_zero(mine) + 1; j < lanes_per_warp; ++j) {
      if ((mine >> j & 1) == 0) continue;
      sum += static_cast<u64>(a[j]);
      if (F == reduce::min) acc = a[j] < acc ? a[j] : acc;
      if (F == reduce::max) acc = a[j] > acc ? a[j] : acc;
      if (F == reduce::and_) acc = static_cast<T>(acc & a[j]);
      if (F == reduce::or_) acc = static_cast<T>(acc | a[j]);
      if (F == reduce::xor_) acc = static_cast<T>(acc ^ a[j]);
    }
    r[i] = F == reduce::add ? static_cast<T>(sum) : acc;
  }
  T* const d = w.row<T>(o.d);
  for (int i = 0; i < lanes_per_warp; ++i)
    if (w.mask >> i & 1) d[i] = r[i];
}
void build_redux(builder& b) {
  ref const d = b.output(0, b.type()), a = b.input(1, b.type()), members = b.input(2, {'b', 32});
  std::string_view const f = b.one_of({"add", "min", "max", "and", "or", "xor"});
  bool const is_signed = b.type().kind == 's';
  using s32 = std::int32_t;
  handler const h = f == "add"   ? &redux<u32, reduce::add>
                    : f == "min" ? (is_signed ? &redux<s32, reduce::min> : &redux<u32, reduce::min>)
                    : f == "max" ? (is_signed ? &redux<s32, reduce::max> : &redux<u32, reduce::max>)
                    : f == "and" ? &redux<u32, reduce::and_>
                    : f == "or"  ? &redux<u32, reduce::or_>
                                 : &redux<u32, reduce::xor_>;
  op& o = b.emit(h);
  o.d = d, o.a = a, o.b = members;
}

// redux of floats. flags: 1 the greatest, 2 of magnitudes, 4 a NaN wins.
void redux_real(warp& w, op const& o) {
  if (!gather(w, o, o.b)) return;
  u32 const* const a = w.row<u32>(o.a);
  lane_mask const* const members = w.row<lane_mask>(o.b);
  u32 r[lanes_per_warp];
  auto const value = [&](int lane) {
    return std::bit_cast<float>((o.flags & 2) != 0 ? a[lane] & 0x7fffffffu : a[lane]);
  };
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((w.mask >> i & 1) == 0) continue;
    lane_mask const mine = members[i] & w.mask;
    float acc = value(std::countr_zero(mine));
    for (int j = std::countr_zero(mine) + 1; j < lanes_per_warp; ++j) {
      if ((mine >> j & 1) == 0) continue;
      float const x = value(j);
      if (acc != acc || x != x) {
        if ((o.flags & 4) == 0 && acc != acc) acc = x;
        if ((o.flags & 4) != 0 && x != x) acc = x;
        continue;
      }
      bool const less = x < acc || (x == acc && std::signbit(x) && !std::signbit(acc));
      if (less != ((o.flags & 1) != 0)) acc = x;
    }
    r[i] = acc != acc ? 0x7fffffffu : std::bit_cast<u32>(acc);
  }
  u32* const d = w.row<u32>(o.d);
  for (int i = 0; i < lanes_per_warp; ++i)
    if (w.mask >> i & 1) d[i] = r[i];
}
void build_redux_real(builder& b) {
  ref const d = b.output(0, {'f', 32}), a = b.input(1, {'f', 32}), members = b.input(2, {'b', 32});
  op& o = b.emit(&redux_real);
  o.d = d, o.a = a, o.b = members;
  o.flags = static_cast<std::uint8_t>((b.has("max") ? 1 : 0) | (b.has("abs") ? 2 : 0) |
                                      (b.has("NaN") ? 4 : 0));
}

void activemask(warp& w, op const& o) {
  u32* const d = w.row<u32>(o.d);
  for (int i = 0; i < lanes_per_warp; ++i)
    if (w.mask >> i & 1) d[i] = w.mask;
}
void build_activemask(builder& b) {
  ref const d = b.output(0, {'b', 32});
  op& o = b.emit(&activemask);
  o.d = d;
}

// elect: the lowest member; d gets its lane, p is true there.
void elect(warp& w, op const& o) {
  if (!gather(w, o, o.b)) return;
  lane_mask const* const members = w.row<lane_mask>(o.b);
  u32* const d = w.row<u32>(o.d);
  lane_mask r = 0;
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((w.mask >> i & 1) == 0) continue;
    int const leader = std::countr_zero(members[i] & w.mask);
    d[i] = static_cast<u32>(leader);
    r |= lane_mask{leader == i} << i;
  }
  set_predicate(w, w.here.code->extras[std::size_t(o.extra)], r);
}
void build_elect(builder& b) {
  ptx::operand const& to = b.operand(0);
  if (to.kind != ptx::operand_kind::pair) b.fail("elect.sync needs d|p");
  ref const d = b.output(to.parts[0], {'b', 32}), p = b.predicate_output(to.parts[1]);
  ref const members = b.input(1, {'b', 32});
  op& o = b.emit(&elect);
  o.d = d, o.b = members;
  b.extra(o, p);
}

constexpr form rows[] = {
    {"shfl.sync.up|down|bfly|idx.b32 d, a, b, c, m", kind::control, build_shfl<true>},
    {"shfl.up|down|bfly|idx.b32 d, a, b, c", kind::control, build_shfl<false>},
    {"vote.sync.all|any|uni.pred p, a, m", kind::control, build_vote},
    {"vote.sync.ballot.b32 d, a, m", kind::control, build_vote},
    {"vote.ballot.sync.b32 d, a, m", kind::control, build_vote},
    {"vote.all|any|uni.sync.pred p, a, m", kind::control, build_vote},
    {"match.any|all.sync.b32|b64 d, a, m", kind::control, build_match},
    {"redux.sync.add|min|max.u32|s32 d, a, m", kind::control, build_redux},
    {"redux.sync.and|or|xor.b32 d, a, m", kind::control, build_redux},
    {"redux.sync.min|max{.abs}{.NaN}.f32 d, a, m", kind::control, build_redux_real},
    {"activemask.b32 d", kind::control, build_activemask},
    {"elect.sync d, m", kind::control, build_elect},
};

}  // namespace

std::span<form const> warp_family() { return rows; }

}  // namespace softgpu
