// wmma: PTX manual, "wmma.load", "wmma.store", "wmma.mma". Which lane holds which element is left
// open by PTX; here lane l holds the elements from l·n on, in rows, n being what its registers
// hold, and begins anew where the fragment holds the matrix more than once (f16 A and B).
#include <bit>
#include <cmath>

#include "checks/faults.hpp"
#include "machine/families/addresses.hpp"
#include "machine/families/families.hpp"
#include "machine/families/lanewise.hpp"
#include "machine/formats.hpp"

namespace softgpu {
namespace {

using namespace words;

struct shape {
  std::string_view name;
  int m, n, k;
};
constexpr shape shapes[] = {{"m16n16k16", 16, 16, 16},
                            {"m32n8k16", 32, 8, 16},
                            {"m8n32k16", 8, 32, 16},
                            {"m16n16k8", 16, 16, 8},
                            {"m8n8k4", 8, 8, 4}};

enum class element : std::uint8_t { f16, bf16, tf32, f32, f64, s8, u8, s32 };
constexpr std::string_view element_names[] = {"f16", "bf16", "tf32", "f32",
                                              "f64", "s8",   "u8",   "s32"};
constexpr int element_bytes[] = {2, 2, 4, 4, 8, 1, 1, 4};

element element_of(builder& b, std::string_view word) {
  for (std::size_t i = 0; i < std::size(element_names); ++i)
    if (word == element_names[i]) return static_cast<element>(i);
  b.fail("wmma on elements of type " + std::string(word) + " is not supported");
}

double value_of(element e, u64 x) {
  switch (e) {
    case element::f16: return decode<f16_format>(u32(x));
    case element::bf16: return decode<bf16_format>(u32(x));
    case element::tf32: return std::bit_cast<f32>(u32(x) & 0xffffe000u);  // low bits are ignored
    case element::f32: return std::bit_cast<f32>(u32(x));
    case element::f64: return std::bit_cast<f64>(x);
    case element::s8: return static_cast<s8>(x);
    case element::u8: return static_cast<u8>(x);
    default: return static_cast<s32>(x);
  }
}

/// One of the matrices of an instruction, and how lanes hold it.
struct fragment {
  int rows = 0, columns = 0, registers = 0;
  element type{};
  [[nodiscard]] int bytes() const { return element_bytes[static_cast<int>(type)]; }
  [[nodiscard]] int per() const { return bytes() == 8 ? 1 : 4 / bytes(); }  // in a register
  [[nodiscard]] int held() const { return registers * per(); }
  [[nodiscard]] int index(int lane, int i) const { return (lane * held() + i) % (rows * columns); }
};

fragment fragment_of(shape const& s, char matrix, element type) {
  fragment f;
  f.rows = matrix == 'b' ? s.k : s.m;
  f.columns = matrix == 'a' ? s.k : s.n;
  f.type = type;
  bool const doubled = type == element::f16 && matrix != 'c';
  f.registers = doubled ? 8 : f.rows * f.columns / lanes_per_warp / f.per();
  return f;
}

u64 element_at(warp const& w, fragment const& f, ref const* rows, int lane, int i) {
  if (f.bytes() == 8) return w.row<u64>(rows[i])[lane];
  int const bits = 8 * f.bytes(), shift = bits * (i % f.per()) % 32;
  return w.row<u32>(rows[i / f.per()])[lane] >> shift & (~u64{0} >> (64 - bits));
}
void set_element(warp const& w, fragment const& f, ref const* rows, int lane, int i, u64 x) {
  if (f.bytes() == 8) return void(w.row<u64>(rows[i])[lane] = x);
  int const bits = 8 * f.bytes(), shift = bits * (i % f.per()) % 32;
  u32 const mask = static_cast<u32>(~u64{0} >> (64 - bits)) << shift;
  u32& word = w.row<u32>(rows[i / f.per()])[lane];
  word = (word & ~mask) | (static_cast<u32>(x) << shift & mask);
}

// aux of a load or a store: shape, matrix, element, layout, space.
u32 packed(std::size_t s, char matrix, element e, bool column, ptx::space space) {
  return u32(s) | u32(matrix - 'a') << 4 | u32(e) << 8 | u32{column} << 12 | u32(space) << 16;
}

bool whole_warp(warp& w, op const& o) {
  lane_mask all_tokens[lanes_per_warp];
  for (lane_mask& m : all_tokens) m = all_lanes;
  w.mask = w.meet(all_tokens, o);
  if (w.mask == 0) return false;
  if (w.mask != all_lanes)
    raise_fault(w, o, w.mask, fault::inactive_lane,
                "a wmma instruction is executed by " + std::to_string(std::popcount(w.mask)) +
                    " lanes: it takes all 32");
  return true;
}

// extras: the stride's row, then the fragment's registers.
template <bool Load> void transfer(warp& w, op const& o) {
  if (!whole_warp(w, o)) return;
  ref const* const extras = w.here.code->extras.data() + o.extra;
  fragment const f = fragment_of(shapes[o.aux & 15], static_cast<char>('a' + (o.aux >> 4 & 15)),
                                 static_cast<element>(o.aux >> 8 & 15));
  bool const column = (o.aux >> 12 & 1) != 0;
  u32 const* const stride = w.row<u32>(extras[0]);
  auto const bytes = static_cast<unsigned>(f.bytes());
  for (int i = 0; i < f.held(); ++i) {
    access a(w, o, static_cast<ptx::space>(o.aux >> 16),
             Load ? access_kind::load : access_kind::store, bytes);
    fill_addresses(a);
    for (int lane = 0; lane < lanes_per_warp; ++lane) {
      int const e = f.index(lane, i), r = e / f.columns, c = e % f.columns;
      u64 const line = static_cast<u64>(column ? c : r), at = static_cast<u64>(column ? r : c);
      if (w.mask >> lane & 1) a.address[lane] += (line * stride[lane] + at) * bytes;
    }
    if (w.mask != all_lanes)  // who does not ask points where another one does
      for (int lane = 0; lane < lanes_per_warp; ++lane)
        if ((w.mask >> lane & 1) == 0) a.address[lane] = a.address[std::countr_zero(w.mask)];
    lane_mask const good = admit(a);
    for (int lane = 0; lane < lanes_per_warp; ++lane) {
      if ((good >> lane & 1) == 0) continue;
      u64 x = 0;
      if (Load) {
        std::memcpy(&x, a.host[lane], bytes);
        set_element(w, f, extras + 1, lane, i, x);
      } else {
        x = element_at(w, f, extras + 1, lane, i);
        std::memcpy(a.host[lane], &x, bytes);
      }
    }
  }
}

/// The rows of a vector operand, each as wide as the fragment's registers.
void add_rows(builder& b, ptx::operand const& o, fragment const& f, bool output,
              std::vector<ref>& to) {
  std::vector<ptx::operand> const one{o};
  auto const& parts = o.kind == ptx::operand_kind::vector ? o.parts : one;
  if (static_cast<int>(parts.size()) != f.registers)
    b.fail("a fragment takes " + std::to_string(f.registers) + " registers");
  ptx::scalar const t{'b', f.bytes() == 8 ? 64 : 32};
  for (ptx::operand const& p : parts) to.push_back(output ? b.output(p, t) : b.input(p, t));
}

std::size_t shape_of(builder& b) {
  for (std::size_t i = 0; i < std::size(shapes); ++i)
    if (b.has(shapes[i].name)) return i;
  b.fail("this shape is not supported");
}

void build_transfer(builder& b) {
  bool const is_load = b.in->modifiers[0] == "load", column = b.has("col");
  char const named = b.in->modifiers[1][0];  // a, b, c or d
  std::size_t const s = shape_of(b);
  element const e = element_of(b, b.in->modifiers.back());
  fragment const f = fragment_of(shapes[s], named == 'd' ? 'c' : named, e);
  std::vector<ref> rows;
  add_rows(b, b.operand(is_load ? 0 : 1), f, is_load, rows);
  auto const closed = static_cast<u64>(column ? f.rows : f.columns);
  ref const stride = b.operand_count() > 2 ? b.input(2, {'u', 32}) : b.constant(closed, 32);
  ptx::space const space = space_of(b);
  op at;
  b.address(at, b.operand(is_load ? 1 : 0), space);
  op& o = b.emit(is_load ? &transfer<true> : &transfer<false>);
  o.a = at.a, o.value = at.value, o.flags = at.flags;
  o.aux =
      packed(s, named == 'd' ? 'c' : named, e, column, checked_space(space, b.function().is_entry));
  b.extra(o, stride);
  for (ref const r : rows) b.extra(o, r);
}

// aux of an mma: shape, then the elements of A, B, C and D; flags: saturate.
void gather(warp const& w, fragment const& f, ref const* rows, double* to) {
  for (int lane = 0; lane < lanes_per_warp; ++lane)
    for (int i = 0; i < f.held(); ++i)
      to[f.index(lane, i)] = value_of(f.type, element_at(w, f, rows, lane, i));
}

u64 result_of(element e, double x, bool saturate) {
  switch (e) {
    case element::f16: return encode<f16_format>(x);
    case element::f32: return std::bit_cast<u32>(x != x ? std::bit_cast<f32>(0x7fffffffu) : f32(x));
    case element::f64: return std::bit_cast<u64>(x);
    default: break;
  }
  if (saturate) x = std::fmin(std::fmax(x, -0x1p31), 0x1p31 - 1);
  return static_cast<u32>(static_cast<s64>(x));
}

// Sums of products in double, rounded once: exact for integers, better than a device for halves.
void multiply(warp& w, op const& o) {
  if (!whole_warp(w, o)) return;
  shape const& s = shapes[o.aux & 15];
  auto const type = [&](int i) { return static_cast<element>(o.aux >> (4 * i + 4) & 15); };
  fragment const a = fragment_of(s, 'a', type(0)), b = fragment_of(s, 'b', type(1)),
                 c = fragment_of(s, 'c', type(2)), d = fragment_of(s, 'c', type(3));
  ref const* const to = w.here.code->extras.data() + o.extra;
  double x[512], y[512], z[256];
  gather(w, a, to + d.registers, x);
  gather(w, b, to + d.registers + a.registers, y);
  gather(w, c, to + d.registers + a.registers + b.registers, z);
  for (int i = 0; i < s.m; ++i)
    for (int k = 0; k < s.k; ++k)
      for (int j = 0; j < s.n; ++j) {
        double& sum = z[i * s.n + j];
        double const p = x[i * s.k + k], q = y[k * s.n + j];
        sum = d.type == element::f64 ? std::fma(p, q, sum) : sum + p * q;
      }
  for (int lane = 0; lane < lanes_per_warp; ++lane)
    for (int i = 0; i < d.held() && (w.mask >> lane & 1) != 0; ++i)
      set_element(w, d, to, lane, i, result_of(d.type, z[d.index(lane, i)], o.flags != 0));
}

void build_multiply(builder& b) {
  std::size_t const s = shape_of(b);
  std::vector<element> types;  // D, A, B, C; or D, C where A and B are f16
  for (std::string_view const m : b.in->modifiers)
    for (std::string_view const name : element_names)
      if (m == name) types.push_back(element_of(b, m));
  bool const halves = types.size() == 2;
  element const e[] = {halves ? element::f16 : types[1], halves ? element::f16 : types[2],
                       types.back(), types.front()};
  std::vector<ref> rows;
  constexpr char matrices[] = {'c', 'a', 'b', 'c'};
  constexpr int type_of[] = {3, 0, 1, 2};
  for (std::size_t k = 0; k < 4; ++k)
    add_rows(b, b.operand(k), fragment_of(shapes[s], matrices[k], e[type_of[k]]), k == 0, rows);
  op& o = b.emit(&multiply);
  o.aux = u32(s);
  for (int i = 0; i < 4; ++i) o.aux |= u32(e[i]) << (4 * i + 4);
  o.flags = b.has("satfinite");
  for (ref const r : rows) b.extra(o, r);
}

#define SOFTGPU_WMMA_SPACE "{.global|shared|shared::cta}"
#define SOFTGPU_SHAPES ".m16n16k16|m32n8k16|m8n32k16"
#define SOFTGPU_LAYOUTS ".sync.aligned.row|col.row|col"

constexpr form rows[] = {
    {"wmma.load.a|b.sync.aligned.row|col" SOFTGPU_SHAPES SOFTGPU_WMMA_SPACE
     ".f16|bf16|s8|u8 d, [a]{, n}",
     kind::memory, build_transfer},
    {"wmma.load.c.sync.aligned.row|col" SOFTGPU_SHAPES SOFTGPU_WMMA_SPACE
     ".f16|f32|s32 d, [a]{, n}",
     kind::memory, build_transfer},
    {"wmma.store.d.sync.aligned.row|col" SOFTGPU_SHAPES SOFTGPU_WMMA_SPACE
     ".f16|f32|s32 [a], b{, n}",
     kind::memory, build_transfer},
    {"wmma.load.a|b.sync.aligned.row|col.m16n16k8" SOFTGPU_WMMA_SPACE ".tf32 d, [a]{, n}",
     kind::memory, build_transfer},
    {"wmma.load.c.sync.aligned.row|col.m16n16k8" SOFTGPU_WMMA_SPACE ".f32 d, [a]{, n}",
     kind::memory, build_transfer},
    {"wmma.store.d.sync.aligned.row|col.m16n16k8" SOFTGPU_WMMA_SPACE ".f32 [a], b{, n}",
     kind::memory, build_transfer},
    {"wmma.load.a|b|c.sync.aligned.row|col.m8n8k4" SOFTGPU_WMMA_SPACE ".f64 d, [a]{, n}",
     kind::memory, build_transfer},
    {"wmma.store.d.sync.aligned.row|col.m8n8k4" SOFTGPU_WMMA_SPACE ".f64 [a], b{, n}", kind::memory,
     build_transfer},
    {"wmma.mma" SOFTGPU_LAYOUTS SOFTGPU_SHAPES ".f16|f32.f16|f32 d, a, b, c", kind::mma,
     build_multiply},
    {"wmma.mma" SOFTGPU_LAYOUTS SOFTGPU_SHAPES ".f16|f32.f16.f16.f16|f32 d, a, b, c", kind::mma,
     build_multiply},
    {"wmma.mma" SOFTGPU_LAYOUTS SOFTGPU_SHAPES ".f32.bf16.bf16.f32 d, a, b, c", kind::mma,
     build_multiply},
    {"wmma.mma" SOFTGPU_LAYOUTS SOFTGPU_SHAPES ".s32.s8.s8.s32{.satfinite} d, a, b, c", kind::mma,
     build_multiply},
    {"wmma.mma" SOFTGPU_LAYOUTS SOFTGPU_SHAPES ".s32.u8.u8.s32{.satfinite} d, a, b, c", kind::mma,
     build_multiply},
    {"wmma.mma" SOFTGPU_LAYOUTS ".m16n16k8.f32.tf32.tf32.f32 d, a, b, c", kind::mma,
     build_multiply},
    {"wmma.mma" SOFTGPU_LAYOUTS ".m8n8k4{.rn}.f64.f64.f64.f64{.rn} d, a, b, c", kind::mma,
     build_multiply},
};

}  // namespace

std::span<form const> wmma_family() { return rows; }

}  // namespace softgpu
