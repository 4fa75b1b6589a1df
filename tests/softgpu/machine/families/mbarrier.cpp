// mbarrier: PTX manual, "mbarrier". The object's 64 bits, which PTX leaves open: arrivals still
// missing (20), arrivals of a phase (20), bytes still missing (21, signed), the phase's parity (1).
// A token is the object as it was before the arrival.
#include <bit>
#include <cstring>

#include "checks/faults.hpp"
#include "machine/async.hpp"
#include "machine/families/addresses.hpp"
#include "machine/families/families.hpp"
#include "machine/families/lanewise.hpp"

namespace softgpu {
namespace {

using namespace words;

constexpr u32 most = (1u << 20) - 1;  // arrivals

struct phase_state {
  u32 pending = 0, expected = 0;
  s32 bytes = 0;
  bool phase = false;

  phase_state() = default;
  explicit phase_state(u64 x)
      : pending(u32(x) & most),
        expected(u32(x >> 20) & most),
        bytes(static_cast<s32>(static_cast<s64>(x << 3) >> 43)),
        phase(x >> 63 != 0) {}
  [[nodiscard]] u64 word() const {
    return u64{pending} | u64{expected} << 20 | (u64(s64{bytes}) & 0x1fffff) << 40 |
           u64{phase} << 63;
  }
  /// Ends the phase once everybody and everything has arrived.
  void settle() {
    if (pending != 0 || bytes != 0) return;
    phase = !phase;
    pending = expected;
  }
};

// flags are the address's; the rest of what an op does is in c.at.
enum : std::int32_t {
  drop = 1,       // the barrier expects that many less from now on
  transfer = 2,   // more bytes are expected before the arrival
  incomplete = 4  // the phase must not end by it
};

/// The 64-bit objects that the lanes name; the lanes that may touch them.
lane_mask objects(access& a, ptx::space space) {
  a.space = space;
  a.strong = a.kind != access_kind::store;
  fill_addresses(a);
  return admit(a);
}
ptx::space space_in(op const& o) { return static_cast<ptx::space>(o.aux); }

u64 load(std::byte const* at) {
  u64 x;
  std::memcpy(&x, at, 8);
  return x;
}
void store(std::byte* at, u64 x) { std::memcpy(at, &x, 8); }

// b: the count.
void initialize(warp& w, op const& o) {
  access a(w, o, ptx::space::generic, access_kind::store, 8);
  lane_mask const good = objects(a, space_in(o));
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((good >> i & 1) == 0) continue;
    u32 const count = w.row<u32>(o.b)[i];
    if (count == 0 || count > most)
      raise_fault(w, o, lane_mask{1} << i, fault::invalid_use,
                  "mbarrier.init with a count of " + std::to_string(count));
    phase_state s;
    s.pending = s.expected = count & most;
    store(a.host[i], s.word());
  }
}

void arrive_once(warp& w, op const& o, int lane, std::byte* at, u32 count) {
  phase_state s(load(at));
  bool const too_many = count > s.pending || (count == s.pending && (o.c.at & incomplete) != 0);
  if (too_many)
    raise_fault(w, o, lane_mask{1} << lane, fault::invalid_use,
                "an arrival of " + std::to_string(count) + " at an mbarrier that waits for " +
                    std::to_string(s.pending));
  s.pending -= count > s.pending ? s.pending : count;
  if ((o.c.at & drop) != 0) s.expected -= count > s.expected ? s.expected : count;
  s.settle();
  store(at, s.word());
}

// d: the token, b: the count, extras: the bytes expected first.
void arrive(warp& w, op const& o) {
  access a(w, o, ptx::space::generic, access_kind::atomic, 8);
  lane_mask const good = objects(a, space_in(o));
  ref const bytes = w.here.code->extras[std::size_t(o.extra)];
  u32 counts[lanes_per_warp];  // the token's row may overlap nothing, but d may be b's
  std::memcpy(counts, w.row<u32>(o.b), sizeof counts);
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((good >> i & 1) == 0) continue;
    u64 const before = load(a.host[i]);
    if ((o.c.at & transfer) != 0) {
      phase_state s(before);
      s.bytes += static_cast<s32>(w.row<u32>(bytes)[i]);
      store(a.host[i], s.word());
    }
    arrive_once(w, o, i, a.host[i], counts[i]);
    w.row<u64>(o.d)[i] = before;
  }
}

// b: bytes; c.at: 1 expected, −1 arrived.
void transfer_bytes(warp& w, op const& o) {
  access a(w, o, ptx::space::generic, access_kind::atomic, 8);
  lane_mask const good = objects(a, space_in(o));
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((good >> i & 1) == 0) continue;
    phase_state s(load(a.host[i]));
    s.bytes += o.c.at * static_cast<s32>(w.row<u32>(o.b)[i]);
    if (o.c.at < 0) s.settle();
    store(a.host[i], s.word());
  }
}

// d: whether the phase is over; b: a token, or the parity of the phase.
template <class T> void wait(warp& w, op const& o) {
  access a(w, o, ptx::space::generic, access_kind::atomic, 8);
  lane_mask const good = objects(a, space_in(o));
  lane_mask over = 0;
  std::byte const* finished = nullptr;  // mostly all lanes ask for one object
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((good >> i & 1) == 0) continue;
    if (a.host[i] != finished) finish_copies_for(*w.block, finished = a.host[i]);
    T const b = w.row<T>(o.b)[i];
    bool const phase = sizeof(T) == 8 ? phase_state(b).phase : (b & 1) != 0;
    over |= lane_mask{phase_state(load(a.host[i])).phase != phase} << i;
  }
  lane_mask& d = w.predicate(o.d);
  d = (d & ~w.mask) | over;
  if (over != w.mask) w.give_way();  // who waits lets the others arrive
}

template <class = void> constexpr auto pending_of = [](u64 token) { return u32(token) & most; };

void invalidate(warp& w, op const& o) {
  access a(w, o, ptx::space::generic, access_kind::store, 8);
  lane_mask const good = objects(a, space_in(o));
  for (int i = 0; i < lanes_per_warp; ++i)
    if (good >> i & 1) store(a.host[i], 0);
}

// cp.async.mbarrier.arrive: an arrival of each lane once its copies so far are there. Without
// .noinc one more is expected from now on, so that the phase cannot end before.
void copies_arrive(warp& w, op const& o) {
  access a(w, o, ptx::space::generic, access_kind::atomic, 8);
  lane_mask const good = objects(a, space_in(o));
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((good >> i & 1) == 0) continue;
    if (o.b.at == 0) {
      phase_state s(load(a.host[i]));
      s.pending = (s.pending + 1) & most;
      store(a.host[i], s.word());
    }
    arrive_after_copies(w, i, a.host[i]);
  }
}

/// An op with its address filled in; named in shared memory or generic.
op& emit_at(builder& b, handler h, std::size_t operand) {
  ptx::space const named = space_of(b);
  op at;
  b.address(at, b.operand(operand), named);
  op& o = b.emit(h);
  o.a = at.a, o.value = at.value, o.flags = at.flags;
  o.aux = static_cast<u32>(checked_space(named, b.function().is_entry));
  return o;
}

void build_init(builder& b) {
  ref const count = b.input(1, {'u', 32});
  op& o = emit_at(b, &initialize, 0);
  o.b = count;
}
void build_inval(builder& b) { emit_at(b, &invalidate, 0); }

void build_arrive(builder& b) {
  bool const bytes_first = b.has("expect_tx"), remote = b.has("shared::cluster");
  if (remote && b.operand(0).kind != ptx::operand_kind::sink)
    b.fail("an arrival in shared::cluster returns no state");
  ref const d = b.output(0, {'b', 64});
  ref const last = b.operand_count() > 2 ? b.input(2, {'u', 32}) : b.constant(1, 32);
  ref const count = bytes_first ? b.constant(1, 32) : last;
  op& o = emit_at(b, &arrive, 1);
  o.d = d, o.b = count;
  o.c.at = (b.in->modifiers[0] == "arrive_drop" ? drop : 0) | (bytes_first ? transfer : 0) |
           (b.has("noComplete") ? incomplete : 0);
  b.extra(o, last);
}

void build_transfer(builder& b) {
  ref const bytes = b.input(1, {'u', 32});
  op& o = emit_at(b, &transfer_bytes, 0);
  o.b = bytes, o.c.at = b.has("complete_tx") ? -1 : 1;
}

void build_wait(builder& b) {
  bool const parity = b.has("parity");
  ref const d = b.predicate_output(b.operand(0));
  ref const which = b.input(2, {'b', parity ? 32 : 64});
  op& o = emit_at(b, parity ? &wait<u32> : &wait<u64>, 1);
  o.d = d, o.b = which;
}

void build_copies(builder& b) {
  op& o = emit_at(b, &copies_arrive, 0);
  o.b.at = b.has("noinc");
}

#define SOFTGPU_OBJECT "{.shared|shared::cta|shared::cluster}.b64"
#define SOFTGPU_RELEASE "{.release|relaxed}{.cta|cluster}"
#define SOFTGPU_ACQUIRE "{.acquire|relaxed}{.cta|cluster}"

constexpr form rows[] = {
    {"mbarrier.init" SOFTGPU_OBJECT " [a], n", kind::control, build_init},
    {"mbarrier.inval" SOFTGPU_OBJECT " [a]", kind::control, build_inval},
    {"mbarrier.arrive|arrive_drop" SOFTGPU_RELEASE SOFTGPU_OBJECT " d, [a]{, n}", kind::control,
     build_arrive},
    {"mbarrier.arrive|arrive_drop.expect_tx" SOFTGPU_RELEASE SOFTGPU_OBJECT " d, [a], n",
     kind::control, build_arrive},
    {"mbarrier.arrive|arrive_drop.noComplete" SOFTGPU_RELEASE SOFTGPU_OBJECT " d, [a], n",
     kind::control, build_arrive},
    {"mbarrier.expect_tx|complete_tx{.relaxed}{.cta|cluster}" SOFTGPU_OBJECT " [a], n",
     kind::control, build_transfer},
    {"mbarrier.test_wait|try_wait" SOFTGPU_ACQUIRE SOFTGPU_OBJECT " p, [a], s{, t}", kind::control,
     build_wait},
    {"mbarrier.test_wait|try_wait.parity" SOFTGPU_ACQUIRE SOFTGPU_OBJECT " p, [a], s{, t}",
     kind::control, build_wait},
    {"mbarrier.pending_count.b64 d, s", kind::control, baseline::emit1<pending_of<>, u32, u64>},
    {"cp.async.mbarrier.arrive{.noinc}{.shared|shared::cta}.b64 [a]", kind::control, build_copies},
};

}  // namespace

void arrive_at(std::byte* object) {
  phase_state s(load(object));
  if (s.pending > 0) --s.pending;
  s.settle();
  store(object, s.word());
}

std::span<form const> mbarrier_family() { return rows; }

}  // namespace softgpu
