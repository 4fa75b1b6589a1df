// Control flow: PTX manual, "Control Flow Instructions".
#include "machine/families/control.hpp"

#include <bit>
#include <cstring>

#include "checks/faults.hpp"
#include "machine/builder.hpp"
#include "machine/builtins.hpp"
#include "machine/families/families.hpp"

namespace softgpu {

void run_off_the_end(warp& w, op const& o) {
  raise_fault(w, o, w.mask, fault::trap, "control ran off the end of the function");
  w.exit_lanes(w.active);
}

namespace {

void branch(warp& w, op const& o) { w.split(w.mask, static_cast<std::uint32_t>(o.value)); }

void build_bra(builder& b) {
  std::string_view const label = b.operand(0).name;
  op& o = b.emit(&branch);
  b.branch_to(o, label);
}

// brx.idx: each lane takes the table's entry of its index.
void branch_table(warp& w, op const& o) {
  std::uint32_t const* const index = w.row<std::uint32_t>(o.a);
  std::int64_t const* const table = w.here.code->tables.data() + o.value;
  lane_mask left = w.mask;
  std::uint32_t const next = w.pc;
  while (left != 0) {
    std::uint32_t const i = index[std::countr_zero(left)];
    lane_mask same = 0;
    for (int lane = 0; lane < lanes_per_warp; ++lane)
      if ((left >> lane & 1) != 0 && index[lane] == i) same |= lane_mask{1} << lane;
    left &= ~same;
    if (i >= o.aux) {
      raise_fault(w, o, same, fault::trap, "a branch table has no entry " + std::to_string(i));
      w.exit_lanes(same);
      continue;
    }
    auto const target = static_cast<std::uint32_t>(table[i]);
    if (left == 0 && same == w.active) return w.jump(target);
    group& g = w.groups[std::size_t(w.group_count++)];  // settled when groups are chosen again
    g = {};
    g.lanes = same;
    g.at = w.here;
    g.at.pc = target;
    w.active &= ~same;
  }
  w.pc = next;
  w.limit = 0;
}
void build_brx(builder& b) {
  std::string_view const table = b.operand(1).name;
  auto const found = b.function().branch_targets.find(table);
  std::size_t const entries = found == b.function().branch_targets.end() ? 0 : found->second.size();
  ref const a = b.input(0, {'u', 32});
  std::int64_t const first = b.branch_table(table);
  op& o = b.emit(&branch_table);
  o.a = a, o.value = first, o.aux = static_cast<std::uint32_t>(entries);
}

void exit_thread(warp& w, op const&) { w.exit_lanes(w.mask); }
void return_thread(warp& w, op const&) { w.return_lanes(w.mask); }
void build_exit(builder& b) { b.emit(&exit_thread); }
void build_ret(builder& b) { b.emit(&return_thread); }

void trap(warp& w, op const& o) {
  raise_fault(w, o, w.mask, fault::trap,
              o.flags != 0 ? "the kernel executed brkpt" : "the kernel executed trap");
  w.exit_lanes(w.mask);
}
void build_trap(builder& b) {
  op& o = b.emit(&trap);
  o.flags = b.in->opcode == "brkpt";
}

void sleep(warp& w, op const&) { w.give_way(); }
void build_sleep(builder& b) { b.emit(&sleep); }
void nothing(warp&, op const&) {}
void build_nothing(builder& b) { b.emit(&nothing); }

// Calls. An op's extras are the frame offsets of the arguments, then of the returned values: both
// live in local memory, the caller's in the caller's frame and the callee's in its own.

code const* callee_of(warp& w, op const& o, int id, lane_mask lanes) {
  auto const& functions = w.block->launch->kernel->functions;
  auto const found = functions.find(id);
  if (found != functions.end() && found->second) return found->second.get();
  raise_fault(w, o, lanes, fault::trap, "an indirect call goes to no function");
  return nullptr;
}

/// Copies arguments into the callee's frame, which begins where the caller's ends.
void call_function(warp& w, op const& o, code const& callee) {
  ptx::function const& f = *callee.source;
  std::size_t const returned = f.returns.size();
  std::size_t const arguments = f.parameters.size();
  ref const* const extras = w.here.code->extras.data() + o.extra;
  std::int64_t const caller_frame = w.here.local,
                     callee_frame = caller_frame + w.here.code->local_bytes;
  if (static_cast<std::size_t>(o.extra_count) != arguments + returned) {
    raise_fault(w, o, w.mask, fault::trap,
                "a call's arguments do not match " + std::string(f.name));
    return w.exit_lanes(w.mask);
  }
  bool const fits = callee_frame + callee.local_bytes <= w.local_stride;
  for (std::size_t k = 0; k < arguments && fits; ++k) {
    std::int64_t const from = caller_frame + extras[returned + k].at;
    std::int64_t const to = callee_frame + callee.local_offsets[returned + k];
    for (int lane = 0; lane < lanes_per_warp; ++lane)
      if (w.mask >> lane & 1)
        std::memcpy(w.local + lane * w.local_stride + to, w.local + lane * w.local_stride + from,
                    std::size_t(f.parameters[k].bytes));
  }
  w.call(callee);
}

void call_direct(warp& w, op const& o) {
  if (code const* const callee = callee_of(w, o, static_cast<int>(o.value), w.mask))
    call_function(w, o, *callee);
  else
    w.exit_lanes(w.mask);
}

// Lanes that call different functions go one function after the other.
void call_indirect(warp& w, op const& o) {
  std::uint64_t const* const handle = w.row<std::uint64_t>(o.a);
  std::uint64_t const first = handle[std::countr_zero(w.mask)];
  lane_mask same = 0;
  for (int lane = 0; lane < lanes_per_warp; ++lane)
    if ((w.mask >> lane & 1) != 0 && handle[lane] == first) same |= lane_mask{1} << lane;
  lane_mask const rest = w.mask & ~same;
  if (rest != 0) {  // they execute this op again
    group& g = w.groups[std::size_t(w.group_count++)];
    g = {};
    g.lanes = rest;
    g.at = w.here;
    g.at.pc = w.pc - 1;
    w.active &= ~rest;
    w.limit = 0;
    w.mask = same;
  }
  auto const id = static_cast<int>((first - map::code_window) / 16) - 1;
  code const* const callee = callee_of(w, o, id, same);
  if (callee == nullptr) return w.exit_lanes(same);
  call_function(w, o, *callee);
  if (rest != 0) w.limit = 0;
}

/// After a call: fetches the returned values from where the callee left them.
void fetch_returns(warp& w, op const& o) {
  ref const* const extras = w.here.code->extras.data() + o.extra;
  std::int64_t const callee_frame = w.here.local + w.here.code->local_bytes;
  for (int k = 0; k < o.extra_count; k += 3) {  // to, from, bytes
    for (int lane = 0; lane < lanes_per_warp; ++lane)
      if (w.mask >> lane & 1) {
        std::byte* const mine = w.local + lane * w.local_stride;
        std::memcpy(mine + w.here.local + extras[k].at, mine + callee_frame + extras[k + 1].at,
                    std::size_t(extras[k + 2].at));
      }
  }
}

std::vector<ref> places(builder& b, ptx::operand const& list) {
  std::vector<ref> out;
  for (ptx::operand const& o : list.parts) {
    if (o.kind != ptx::operand_kind::local) b.fail("a call's argument is no .param variable");
    std::int64_t const at = b.out().local_offsets[std::size_t(o.index)];
    out.push_back({static_cast<std::int32_t>(at)});
  }
  return out;
}

void build_call(builder& b) {
  // call (returns), target, (arguments), prototype: every list may be missing.
  std::size_t i = 0;
  std::vector<ref> returned, arguments;
  std::vector<ptx::variable const*> results;
  if (b.operand(i).kind == ptx::operand_kind::list) {
    for (ptx::operand const& o : b.operand(i).parts)
      if (o.kind == ptx::operand_kind::local)
        results.push_back(&b.function().locals[std::size_t(o.index)]);
    returned = places(b, b.operand(i++));
  }
  ptx::operand const& target = b.operand(i++);
  if (i < b.operand_count() && b.operand(i).kind == ptx::operand_kind::list)
    arguments = places(b, b.operand(i++));
  op* o = nullptr;
  if (target.kind == ptx::operand_kind::reg) {
    ref const a = b.input(target, {'b', 64});
    o = &b.emit(&call_indirect);
    o->a = a;
  } else {
    int const id = b.owner().function_id(target.name);
    if (id < 0) b.fail("unknown function " + std::string(target.name));
    if (!b.owner().module().functions[std::size_t(id)].has_body) {
      handler const h = find_builtin(target.name);
      if (h == nullptr) b.fail("function " + std::string(target.name) + " is not supported");
      o = &b.emit(h);
      for (ref const r : returned) b.extra(*o, r);
      for (ref const r : arguments) b.extra(*o, r);
      return;
    }
    o = &b.emit(&call_direct);
    o->value = id;
  }
  for (ref const r : returned) b.extra(*o, r);
  for (ref const r : arguments) b.extra(*o, r);
  if (returned.empty()) return;
  op& fetch = b.emit(&fetch_returns);
  std::int32_t at = 0;  // returned values lie at the start of the callee's frame, in order
  for (std::size_t k = 0; k < returned.size(); ++k) {
    at = (at + results[k]->alignment - 1) / results[k]->alignment * results[k]->alignment;
    b.extra(fetch, returned[k]);
    b.extra(fetch, {at});
    b.extra(fetch, {static_cast<std::int32_t>(results[k]->bytes)});
    at += static_cast<std::int32_t>(results[k]->bytes);
  }
}

constexpr form rows[] = {
    {"bra{.uni} label", kind::control, build_bra},
    {"brx.idx{.uni} index, table", kind::control, build_brx},
    {"call{.uni} a{, b}{, c}{, d}", kind::control, build_call},
    {"ret{.uni}", kind::control, build_ret},
    {"exit", kind::control, build_exit},
    {"trap", kind::control, build_trap},
    {"brkpt", kind::control, build_trap},
    {"nanosleep.u32 t", kind::control, build_sleep},
    {"pmevent a", kind::control, build_nothing},
};

}  // namespace

std::span<form const> control_family() { return rows; }

}  // namespace softgpu
