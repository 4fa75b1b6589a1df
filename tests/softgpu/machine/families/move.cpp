// mov: registers, constants, addresses, special registers, and packing to and from vectors.
#include <chrono>
#include <cstring>

#include "machine/block.hpp"
#include "machine/families/lanewise.hpp"
#include "machine/families/vector_families.hpp"

namespace softgpu::SOFTGPU_ISA {
namespace {

constexpr auto same = []<class T>(T a) { return a; };

void copy_predicate(warp& w, op const& o) {
  lane_mask const a = w.predicate(o.a) ^ o.aux;
  lane_mask& d = w.predicate(o.d);
  d = (d & ~w.mask) | (a & w.mask);
}

template <class T, class Value> void fill(warp& w, op const& o, Value&& value) {
  T* const d = w.row<T>(o.d);
  for (int i = 0; i < lanes_per_warp; ++i)
    if (w.mask >> i & 1) d[i] = static_cast<T>(value(i));
}

// Special registers.
enum class special : std::uint8_t {
  tid_x,
  tid_y,
  tid_z,
  ntid_x,
  ntid_y,
  ntid_z,
  ctaid_x,
  ctaid_y,
  ctaid_z,
  nctaid_x,
  nctaid_y,
  nctaid_z,
  laneid,
  warpid,
  nwarpid,
  smid,
  nsmid,
  gridid,
  lanemask_eq,
  lanemask_le,
  lanemask_lt,
  lanemask_ge,
  lanemask_gt,
  clock,
  clock_hi,
  clock64,
  globaltimer,
  globaltimer_lo,
  globaltimer_hi,
  dynamic_smem_size,
  total_smem_size,
  envreg0,
  envreg1,
  envreg2,
  count
};
constexpr std::string_view special_names[] = {"%tid.x",           "%tid.y",
                                              "%tid.z",           "%ntid.x",
                                              "%ntid.y",          "%ntid.z",
                                              "%ctaid.x",         "%ctaid.y",
                                              "%ctaid.z",         "%nctaid.x",
                                              "%nctaid.y",        "%nctaid.z",
                                              "%laneid",          "%warpid",
                                              "%nwarpid",         "%smid",
                                              "%nsmid",           "%gridid",
                                              "%lanemask_eq",     "%lanemask_le",
                                              "%lanemask_lt",     "%lanemask_ge",
                                              "%lanemask_gt",     "%clock",
                                              "%clock_hi",        "%clock64",
                                              "%globaltimer",     "%globaltimer_lo",
                                              "%globaltimer_hi",  "%dynamic_smem_size",
                                              "%total_smem_size", "%envreg0",
                                              "%envreg1",         "%envreg2"};
static_assert(std::size(special_names) == static_cast<std::size_t>(special::count));

u64 now() { return static_cast<u64>(std::chrono::steady_clock::now().time_since_epoch().count()); }

u64 special_value(warp& w, special s, int lane) {
  block const& b = *w.block;
  launch const& l = *b.launch;
  u32 const one = u32{1} << lane;
  switch (s) {
    case special::tid_x: return b.thread(w, lane).x;
    case special::tid_y: return b.thread(w, lane).y;
    case special::tid_z: return b.thread(w, lane).z;
    case special::ntid_x: return l.block.x;
    case special::ntid_y: return l.block.y;
    case special::ntid_z: return l.block.z;
    case special::ctaid_x: return b.index.x;
    case special::ctaid_y: return b.index.y;
    case special::ctaid_z: return b.index.z;
    case special::nctaid_x: return l.grid.x;
    case special::nctaid_y: return l.grid.y;
    case special::nctaid_z: return l.grid.z;
    case special::laneid: return static_cast<u64>(lane);
    case special::warpid: return static_cast<u64>(w.index);
    case special::nwarpid: return b.warps.size();
    case special::smid: return b.linear % 8;
    case special::nsmid: return 8;
    case special::gridid: return l.id;
    case special::lanemask_eq: return one;
    case special::lanemask_le: return one | (one - 1);
    case special::lanemask_lt: return one - 1;
    case special::lanemask_ge: return ~(one - 1);
    case special::lanemask_gt: return ~(one | (one - 1));
    case special::clock: return now() & 0xffffffff;
    case special::clock_hi:
    case special::globaltimer_hi: return now() >> 32;
    case special::globaltimer_lo: return now() & 0xffffffff;
    case special::clock64:
    case special::globaltimer: return now();
    case special::envreg0: return 0;
    case special::envreg1: return l.workspace >> 32;
    case special::envreg2: return l.workspace & 0xffffffff;
    case special::dynamic_smem_size: return static_cast<u64>(l.dynamic_shared);
    default: return static_cast<u64>(l.shared_bytes);
  }
}

bool differs_by_lane(special s) {
  return s <= special::tid_z || s == special::laneid ||
         (s >= special::lanemask_eq && s <= special::lanemask_gt);
}

template <class T> void read_special(warp& w, op const& o) {
  auto const s = static_cast<special>(o.value);
  if (!differs_by_lane(s)) {
    u64 const one = special_value(w, s, 0);
    return fill<T>(w, o, [&](int) { return one; });
  }
  dim const& size = w.block->launch->block;
  if (s == special::tid_x && size.y * size.z == 1) {  // the most frequent one
    int const first = w.index * lanes_per_warp;
    return fill<T>(w, o, [&](int lane) { return first + lane; });
  }
  fill<T>(w, o, [&](int lane) { return special_value(w, s, lane); });
}

// The address of a variable in the frame's local memory, or of a kernel parameter.
template <class T> void frame_address(warp& w, op const& o) {
  u64 const at = static_cast<u64>(o.value) + w.here.local;
  fill<T>(w, o, [&](int) { return at; });
}
template <class T> void parameter_address(warp& w, op const& o) {
  u64 const at = static_cast<u64>(o.value) + w.block->launch->parameters;
  fill<T>(w, o, [&](int) { return at; });
}

// {a, b, …} → d and back: parts of `Part` bits in ascending order.
template <class Part, class Whole> void pack(warp& w, op const& o) {
  ref const* const parts = w.here.code->extras.data() + o.extra;
  unsigned char* const d = w.row<unsigned char>(o.d);
  for (int k = 0; k < o.extra_count; ++k) {
    Part const* const a = w.row<Part>(parts[k]);
    for (int i = 0; i < lanes_per_warp; ++i)
      if (w.mask >> i & 1)
        std::memcpy(d + i * int{sizeof(Whole)} + k * int{sizeof(Part)}, a + i, sizeof(Part));
  }
}
template <class Part, class Whole> void unpack(warp& w, op const& o) {
  ref const* const parts = w.here.code->extras.data() + o.extra;
  unsigned char const* const a = w.row<unsigned char>(o.a);
  for (int k = 0; k < o.extra_count; ++k) {
    Part* const d = w.row<Part>(parts[k]);
    for (int i = 0; i < lanes_per_warp; ++i)
      if (w.mask >> i & 1)
        std::memcpy(d + i, a + i * int{sizeof(Whole)} + k * int{sizeof(Part)}, sizeof(Part));
  }
}

#define SOFTGPU_PACKING(function)                                \
  handler function##_of(builder& b, int whole, int part) {       \
    if (whole == 16 && part == 8) return &function<u8, u16>;     \
    if (whole == 32 && part == 8) return &function<u8, u32>;     \
    if (whole == 32 && part == 16) return &function<u16, u32>;   \
    if (whole == 64 && part == 16) return &function<u16, u64>;   \
    if (whole == 64 && part == 32) return &function<u32, u64>;   \
    if (whole == 128 && part == 32) return &function<u32, u128>; \
    if (whole == 128 && part == 64) return &function<u64, u128>; \
    b.fail("this packing is not supported");                     \
  }
SOFTGPU_PACKING(pack)
SOFTGPU_PACKING(unpack)
#undef SOFTGPU_PACKING

void build_vector(builder& b, bool packing) {
  ptx::operand const& list = b.operand(packing ? 1 : 0);
  int const whole = b.type().bits, part = whole / static_cast<int>(list.parts.size());
  std::vector<ref> parts;
  for (ptx::operand const& p : list.parts)
    parts.push_back(packing ? b.input(p, {'b', part}) : b.output(p, {'b', part}));
  ref const row = packing ? b.output(0, b.type()) : b.input(1, b.type());
  op& o = b.emit(packing ? pack_of(b, whole, part) : unpack_of(b, whole, part));
  (packing ? o.d : o.a) = row;
  for (ref const r : parts) b.extra(o, r);
}

/// A cluster is one block: its registers are constants, or the grid's.
bool build_cluster_special(builder& b, std::string_view& name) {
  constexpr std::string_view of_grid[][2] = {
      {"%clusterid.x", "%ctaid.x"},   {"%clusterid.y", "%ctaid.y"},
      {"%clusterid.z", "%ctaid.z"},   {"%nclusterid.x", "%nctaid.x"},
      {"%nclusterid.y", "%nctaid.y"}, {"%nclusterid.z", "%nctaid.z"}};
  for (auto const& [cluster, grid] : of_grid)
    if (name == cluster) name = grid;
  bool const first = name == "%cluster_ctarank" || name.starts_with("%cluster_ctaid.");
  bool const only = name == "%cluster_nctarank" || name.starts_with("%cluster_nctaid.");
  if (!first && !only) return false;
  if (b.type().bits != 32) b.fail(std::string(name) + " has 32 bits");
  ref const d = b.output(0, b.type()), a = b.constant(only ? 1 : 0, 32);
  op& o = b.emit(both<lanes1<same, u32, u32>>());
  o.d = d, o.a = a;
  return true;
}

void build_special(builder& b) {
  std::string_view name = b.operand(1).name;
  if (build_cluster_special(b, name)) return;
  for (std::size_t i = 0; i < std::size(special_names); ++i) {
    if (name != special_names[i]) continue;
    ref const d = b.output(0, b.type());
    op& o = b.emit(b.type().bits == 64   ? &read_special<u64>
                   : b.type().bits == 16 ? &read_special<u16>
                                         : &read_special<u32>);
    o.d = d, o.value = static_cast<std::int64_t>(i);
    return;
  }
  b.fail("special register " + std::string(name) + " is not supported");
}

/// A local variable's or a parameter's address; false where the operand is neither.
bool build_local_address(builder& b) {
  ptx::operand const& from = b.operand(1);
  if (from.kind != ptx::operand_kind::local) return false;
  auto const index = std::size_t(from.index);
  ptx::function const& f = b.function();
  if (f.locals[index].space == ptx::space::shared) return false;
  bool const parameter = f.is_entry && index < f.parameters.size();
  bool const wide = b.type().bits == 64;
  ref const d = b.output(0, b.type());
  op& o = parameter ? b.emit(wide ? &parameter_address<u64> : &parameter_address<u32>)
                    : b.emit(wide ? &frame_address<u64> : &frame_address<u32>);
  o.d = d;
  o.value = from.value +
            (parameter ? b.owning_kernel().parameter_offsets[index] : b.out().local_offsets[index]);
  return true;
}

void build_mov(builder& b) {
  ptx::operand const &to = b.operand(0), &from = b.operand(1);
  if (to.kind == ptx::operand_kind::vector) return build_vector(b, false);
  if (from.kind == ptx::operand_kind::vector) return build_vector(b, true);
  if (from.kind == ptx::operand_kind::special && from.name != "WARP_SZ") return build_special(b);
  if (build_local_address(b)) return;
  switch (b.type().bits) {
    case 16: return emit1<same, u16, u16>(b);
    case 32: return emit1<same, u32, u32>(b);
    case 64: return emit1<same, u64, u64>(b);
    default: b.fail("mov of this width is not supported");
  }
}

void build_mov_predicate(builder& b) {
  std::uint32_t flip = 0;
  if (b.operand(1).name == "%is_explicit_cluster") {
    ref const d = b.predicate_output(b.operand(0));
    op& o = b.emit(&copy_predicate);
    o.d = d, o.a = b.always(), o.aux = ~0u;
    return;
  }
  ref const d = b.predicate_output(b.operand(0)), a = b.predicate_input(b.operand(1), flip);
  op& o = b.emit(&copy_predicate);
  o.d = d, o.a = a, o.aux = flip;
}

constexpr form rows[] = {
    {"mov.b16|b32|b64|b128|u16|u32|u64|s16|s32|s64|f16|f16x2|f32|f64 d, a", kind::move, build_mov},
    {"mov.pred d, a", kind::move, build_mov_predicate},
};

}  // namespace

std::span<form const> move() { return rows; }

}  // namespace softgpu::SOFTGPU_ISA
