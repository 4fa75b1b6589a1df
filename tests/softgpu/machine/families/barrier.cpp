// bar, barrier and bar.warp: PTX manual, "bar", "barrier".
#include <array>
#include <bit>

#include "checks/block_checks.hpp"
#include "checks/faults.hpp"
#include "machine/block.hpp"
#include "machine/builder.hpp"
#include "machine/families/families.hpp"

namespace softgpu {
namespace {

// flags: what the barrier does. a: its number, b: threads (or 0), c: the reduction's predicate.
enum : std::uint8_t { sync = 0, arrive = 1, popc = 2, and_ = 3, or_ = 4, aligned = 8 };

std::uint32_t uniform(warp& w, op const& o, ref r, char const* what) {
  std::uint32_t const* const row = w.row<std::uint32_t>(r);
  std::uint32_t const first = row[std::countr_zero(w.mask)];
  for (int i = 0; i < lanes_per_warp; ++i)
    if ((w.mask >> i & 1) != 0 && row[i] != first) {
      raise_fault(w, o, w.mask, fault::divergent_barrier,
                  std::string("lanes of one warp name different ") + what + " at a barrier");
      break;
    }
  return first;
}

constexpr auto all_tokens = [] {
  std::array<lane_mask, lanes_per_warp> out{};
  out.fill(all_lanes);
  return out;
}();

void barrier(warp& w, op const& o) {
  // An aligned barrier takes the whole warp: lanes wait for those that are still on their way.
  if ((o.flags & aligned) != 0 && !w.block->apart) {
    w.mask = w.meet(all_tokens.data(), o);
    if (w.mask == 0) return;
  }
  std::uint32_t const number = uniform(w, o, o.a, "barriers"),
                      threads = uniform(w, o, o.b, "thread counts");
  if (number > 15) {
    raise_fault(w, o, w.mask, fault::trap, "barrier " + std::to_string(number) + " is past 15");
    return w.exit_lanes(w.mask);
  }
  int const what = o.flags & 7;
  lane_mask const truth = what >= popc ? w.predicate(o.c) ^ o.aux : 0;
  w.block->arrive(w, static_cast<int>(number), threads, truth, what != arrive,
                  what >= popc ? &o : nullptr);
}

void build_barrier(builder& b) {
  bool const is_arrive = b.has("arrive"), is_red = b.has("red");
  std::size_t next = is_red ? 1 : 0;
  ref const number = b.input(next++, {'u', 32});
  std::size_t const left = b.operand_count() - next;
  bool const counted = is_red ? left == 2 : left == 1;
  ref const threads = counted ? b.input(next++, {'u', 32}) : b.constant(0, 32);
  if (is_arrive && !counted) b.fail("bar.arrive needs a thread count");
  std::uint32_t flip = 0;
  ref c = b.always(), d = b.scratch();
  std::uint8_t what = is_arrive ? arrive : sync;
  if (is_red) {
    c = b.predicate_input(b.operand(next), flip);
    what = b.has("popc") ? popc : b.has("and") ? and_ : or_;
    d = what == popc ? b.output(0, {'u', 32}) : b.predicate_output(b.operand(0));
  }
  op& o = b.emit(&barrier);
  o.a = number, o.b = threads, o.c = c, o.d = d, o.aux = flip;
  bool const is_aligned = b.in->opcode == "bar" || b.has("aligned");
  o.flags = static_cast<std::uint8_t>(what | (is_aligned ? aligned : 0));
}

/// Whether an op is a barrier that the whole warp must execute together.
bool is_aligned_barrier(op const& o) { return o.full == &barrier && (o.flags & aligned) != 0; }

void warp_barrier(warp& w, op const& o) {
  checks::warp_synced(*w.block, w);
  w.meet_anywhere(w.row<lane_mask>(o.a));
}
void build_warp_barrier(builder& b) {
  ref const members = b.input(0, {'b', 32});
  op& o = b.emit(&warp_barrier);
  o.a = members;
}

constexpr form rows[] = {
    {"bar.warp.sync m", kind::control, build_warp_barrier},
    {"bar{.cta}.sync a{, n}", kind::control, build_barrier},
    {"bar{.cta}.arrive a, n", kind::control, build_barrier},
    {"bar{.cta}.red.popc.u32 d, a{, n}, p", kind::control, build_barrier},
    {"bar{.cta}.red.and|or.pred d, a{, n}, p", kind::control, build_barrier},
    {"barrier{.cta}.sync{.aligned} a{, n}", kind::control, build_barrier},
    {"barrier{.cta}.arrive{.aligned} a, n", kind::control, build_barrier},
    {"barrier{.cta}.red.popc{.aligned}.u32 d, a{, n}, p", kind::control, build_barrier},
    {"barrier{.cta}.red.and|or{.aligned}.pred d, a{, n}, p", kind::control, build_barrier},
};

}  // namespace

bool report_divergent_barriers(block& b) {
  bool found = false;
  for (auto const& w : b.warps)
    for (int i = 0; i < w->group_count; ++i) {
      group& g = w->groups[std::size_t(i)];
      if (g.state != state::meeting || !is_aligned_barrier(g.at.code->ops[g.at.pc])) continue;
      found = true;
      w->here = g.at;
      raise_fault(*w, g.at.code->ops[g.at.pc], g.lanes, fault::divergent_barrier,
                  std::to_string(std::popcount(g.lanes)) + " of " +
                      std::to_string(std::popcount(~w->idle)) +
                      " living threads of the warp are at an aligned barrier: it must be all");
      g.state = state::runnable;
    }
  b.apart |= found;
  return found;
}

void deliver_reduction(warp& w, group const& waiting, op const& o, std::uint32_t true_count,
                       std::uint32_t threads) {
  std::byte* const frame = w.registers + waiting.at.registers;
  int const what = o.flags & 7;
  if (what == popc) {
    auto* const d = reinterpret_cast<std::uint32_t*>(frame + o.d.at);
    for (int i = 0; i < lanes_per_warp; ++i)
      if (waiting.lanes >> i & 1) d[i] = true_count;
    return;
  }
  bool const result = what == and_ ? true_count == threads : true_count != 0;
  auto& d = *reinterpret_cast<lane_mask*>(frame + o.d.at);
  d = (d & ~waiting.lanes) | (result ? waiting.lanes : 0);
}

std::span<form const> barrier_family() { return rows; }

}  // namespace softgpu
