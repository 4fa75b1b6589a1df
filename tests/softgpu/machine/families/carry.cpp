// Extended precision: add.cc, addc, sub.cc, subc, mad.cc, madc. The carry flags are one mask in the
// frame; PTX does not keep them across calls.
#include "machine/families/families.hpp"
#include "machine/families/lanewise.hpp"

namespace softgpu {
namespace {

using namespace baseline;

enum : std::uint8_t { takes = 1, gives = 2, subtract = 4, high = 8 };

lane_mask& flags_of(warp& w, op const& o) {
  return w.predicate(w.here.code->extras[std::size_t(o.extra)]);
}

/// d = a ± b ± carry for T unsigned; the bit above the result is the carry or the borrow.
template <class T> void sum(warp& w, op const& o, T* d, T const* a, T const* b) {
  lane_mask& flags = flags_of(w, o);
  lane_mask out = 0;
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((w.mask >> i & 1) == 0) continue;
    u128 const in = (o.flags & takes) != 0 ? flags >> i & 1 : 0;
    u128 const r = (o.flags & subtract) != 0 ? u128{a[i]} - b[i] - in : u128{a[i]} + b[i] + in;
    d[i] = static_cast<T>(r);
    out |= static_cast<lane_mask>(r >> (8 * sizeof(T)) & 1) << i;
  }
  if ((o.flags & gives) != 0) flags = (flags & ~w.mask) | out;
}

template <class T> void add(warp& w, op const& o) {
  sum(w, o, w.row<T>(o.d), w.row<T>(o.a), w.row<T>(o.b));
}

template <class T> void mad(warp& w, op const& o) {
  using plain = std::make_unsigned_t<T>;
  using wide = std::conditional_t<std::is_signed_v<T>, s128, u128>;
  T const *a = w.row<T>(o.a), *b = w.row<T>(o.b);
  plain product[lanes_per_warp];
  for (int i = 0; i < lanes_per_warp; ++i) {
    wide const p = static_cast<wide>(a[i]) * static_cast<wide>(b[i]);
    product[i] = static_cast<plain>((o.flags & high) != 0 ? p >> (8 * sizeof(T)) : p);
  }
  sum(w, o, w.row<plain>(o.d), product, w.row<plain>(o.c));
}

void build(builder& b, bool multiplies) {
  ptx::scalar const t = b.type();
  ref const d = b.output(0, t), a = b.input(1, t), second = b.input(2, t);
  ref const third = multiplies ? b.input(3, t) : ref{};
  bool const wide = t.bits == 64, is_signed = t.kind == 's';
  op& o = b.emit(!multiplies ? (wide ? &add<u64> : &add<u32>)
                 : wide      ? (is_signed ? &mad<s64> : &mad<u64>)
                             : (is_signed ? &mad<s32> : &mad<u32>));
  o.d = d, o.a = a, o.b = second, o.c = third;
  bool const in = b.in->opcode.ends_with('c');  // addc, subc, madc
  o.flags = static_cast<std::uint8_t>((in ? takes : 0) | (b.has("cc") ? gives : 0) |
                                      (b.in->opcode.starts_with("sub") ? subtract : 0) |
                                      (b.has("hi") ? high : 0));
  b.extra(o, b.carry());
}
void build_add(builder& b) { build(b, false); }
void build_mad(builder& b) { build(b, true); }

#define SOFTGPU_WORDS ".u32|s32|u64|s64"

constexpr form rows[] = {
    {"add.cc" SOFTGPU_WORDS " d, a, b", kind::integer, build_add},
    {"addc{.cc}" SOFTGPU_WORDS " d, a, b", kind::integer, build_add},
    {"sub.cc" SOFTGPU_WORDS " d, a, b", kind::integer, build_add},
    {"subc{.cc}" SOFTGPU_WORDS " d, a, b", kind::integer, build_add},
    {"mad.hi|lo.cc" SOFTGPU_WORDS " d, a, b, c", kind::integer, build_mad},
    {"madc.hi|lo{.cc}" SOFTGPU_WORDS " d, a, b, c", kind::integer, build_mad},
};

}  // namespace

std::span<form const> carry_family() { return rows; }

}  // namespace softgpu
