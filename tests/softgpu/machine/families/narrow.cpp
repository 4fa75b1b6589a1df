// cvt to and from the small formats: f16, bf16, tf32, e4m3 and e5m2, alone and in pairs.
#include <algorithm>
#include <cstring>

#include "machine/families/families.hpp"
#include "machine/families/lanewise.hpp"
#include "machine/formats.hpp"

namespace softgpu {
namespace {

using namespace baseline;

/// How a value lies in a register: its format and the bits it takes.
enum class shape : std::uint8_t {
  f16,
  bf16,
  tf32,
  e4m3,
  e5m2,
  e2m3,
  e3m2,
  e2m1,
  ue8m0,
  f32,
  f64,
  integer
};

// ue8m0: a power of two by its exponent alone; 255 is NaN. Signs are ignored.
double decode_power(u32 x) {
  return x == 255 ? std::numeric_limits<double>::quiet_NaN() : std::ldexp(1.0, int(x) - 127);
}
u32 encode_power(double x, rounding how, bool finite) {
  if (x != x) return 255;
  if (std::isinf(x)) return finite ? 254 : 255;
  int e = 0;
  double const f = std::frexp(std::fabs(x), &e);
  if (f == 0) return 0;
  int const n = e - 1 + 127 + (how == rounding::up && f != 0.5 ? 1 : 0);
  return n > 254 && finite ? 254 : static_cast<u32>(std::clamp(n, 0, 255));
}

double value_of(shape s, u64 bits) {
  switch (s) {
    case shape::f16: return decode<f16_format>(u32(bits) & 0xffff);
    case shape::bf16: return decode<bf16_format>(u32(bits) & 0xffff);
    case shape::tf32:
    case shape::f32: return std::bit_cast<f32>(u32(bits));
    case shape::e4m3: return decode<e4m3_format>(u32(bits) & 0xff);
    case shape::e5m2: return decode<e5m2_format>(u32(bits) & 0xff);
    case shape::e2m3: return decode<e2m3_format>(u32(bits) & 0x3f);
    case shape::e3m2: return decode<e3m2_format>(u32(bits) & 0x3f);
    case shape::e2m1: return decode<e2m1_format>(u32(bits) & 0xf);
    case shape::ue8m0: return decode_power(u32(bits) & 0xff);
    default: return std::bit_cast<f64>(bits);
  }
}

u64 bits_of(shape s, double x, rounding how, bool finite) {
  switch (s) {
    case shape::f16: return encode<f16_format>(x, how, finite);
    case shape::bf16: return encode<bf16_format>(x, how, finite);
    case shape::tf32: return u64{encode<tf32_format>(x, how, finite)} << 13;
    case shape::e4m3: return encode<e4m3_format>(x, how, finite);
    case shape::e5m2: return encode<e5m2_format>(x, how, finite);
    case shape::e2m3: return encode<e2m3_format>(x, how, finite);
    case shape::e3m2: return encode<e3m2_format>(x, how, finite);
    case shape::e2m1: return encode<e2m1_format>(x, how, finite);
    case shape::ue8m0: return encode_power(x, how, finite);
    case shape::f32: return std::bit_cast<u32>(x != x ? std::bit_cast<f32>(0x7fffffffu) : f32(x));
    default: return std::bit_cast<u64>(x);
  }
}

shape shape_of(std::string_view word) {
  if (word.starts_with("f16")) return shape::f16;
  if (word.starts_with("bf16")) return shape::bf16;
  if (word == "tf32") return shape::tf32;
  if (word.starts_with("e4m3")) return shape::e4m3;
  if (word.starts_with("e5m2")) return shape::e5m2;
  if (word.starts_with("e2m3")) return shape::e2m3;
  if (word.starts_with("e3m2")) return shape::e3m2;
  if (word.starts_with("e2m1")) return shape::e2m1;
  if (word.starts_with("ue8m0")) return shape::ue8m0;
  if (word == "f32") return shape::f32;
  return word == "f64" ? shape::f64 : shape::integer;
}
int bits_of(shape s) {
  switch (s) {
    case shape::f16:
    case shape::bf16: return 16;
    case shape::e4m3:
    case shape::e5m2:
    case shape::e2m3:
    case shape::e3m2:
    case shape::ue8m0: return 8;
    case shape::e2m1: return 4;
    case shape::f64: return 64;
    default: return 32;
  }
}

// Everything a conversion needs, packed into op::value.
struct plan {
  shape to, from;
  rounding how;
  std::uint8_t flags;         // 1 finite, 2 relu, 4 ftz, 8 sat, 16 to integral, 32 signed integer
  std::uint8_t integer_bits;  // of the integer side
  std::uint8_t to_store, from_store;
  std::uint8_t halves;  // 2: a pair; flag 64: from two registers
};
static_assert(sizeof(plan) == 8);

double integral(double x, rounding how) {
  switch (how) {
    case rounding::zero: return std::trunc(x);
    case rounding::down: return std::floor(x);
    case rounding::up: return std::ceil(x);
    default: return std::nearbyint(x);
  }
}

u64 to_integer(double x, plan const& p) {
  bool const is_signed = (p.flags & 32) != 0;
  int const bits = p.integer_bits;
  if (x != x) return bits == 64 ? u64{1} << 63 : 0;
  double const r = integral(x, p.how), high = std::ldexp(1.0, is_signed ? bits - 1 : bits);
  u64 const most = is_signed    ? (u64{1} << (bits - 1)) - 1
                   : bits == 64 ? ~u64{0}
                                : (u64{1} << bits) - 1;
  if (r >= high) return most;
  if (r < (is_signed ? -high : 0.0)) return is_signed ? ~most : 0;
  return is_signed ? static_cast<u64>(static_cast<s64>(r)) : static_cast<u64>(r);
}

/// Past 53 bits rounded to odd, so that rounding it again is correct.
double from_integer(u64 raw, plan const& p) {
  int const shift = 64 - p.integer_bits;
  u64 magnitude = raw << shift >> shift;
  bool const negative = (p.flags & 32) != 0 && (magnitude >> (p.integer_bits - 1) & 1) != 0;
  if (negative) magnitude = (0 - magnitude) << shift >> shift;
  int const excess = static_cast<int>(std::bit_width(magnitude)) - 53;
  if (excess > 0) {
    u64 const cut = magnitude & ((u64{1} << excess) - 1);
    magnitude = ((magnitude >> excess) | u64{cut != 0}) << excess;
  }
  double const x = static_cast<double>(magnitude);
  return negative ? -x : x;
}

u64 convert_one(u64 raw, plan const& p) {
  if (p.to == shape::integer) {
    double x = value_of(p.from, raw);
    if ((p.flags & 4) != 0 && std::fabs(x) < 0x1p-14) x = 0;
    return to_integer(x, p);
  }
  double x = p.from == shape::integer ? from_integer(raw, p) : value_of(p.from, raw);
  if ((p.flags & 4) != 0 && p.from == shape::f32 && std::fabs(x) < 0x1p-126)
    x = std::copysign(0.0, x);
  if ((p.flags & 16) != 0) x = integral(x, p.how);
  if ((p.flags & 8) != 0) x = x > 0 ? std::min(x, 1.0) : 0.0;
  if ((p.flags & 2) != 0 && x == x && !(x > 0)) x = 0;
  return bits_of(p.to, x, (p.flags & 16) != 0 ? rounding::nearest : p.how, (p.flags & 1) != 0);
}

void convert_lanes(warp& w, op const& o) {
  plan p;
  std::memcpy(&p, &o.value, sizeof p);
  std::byte *const d = w.row<std::byte>(o.d), *const a = w.row<std::byte>(o.a),
                   *const b = w.row<std::byte>(o.b);
  int const to_bits = bits_of(p.to), from_bits = bits_of(p.from);
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((w.mask >> i & 1) == 0) continue;
    u64 x = 0, y = 0, r = 0;
    std::memcpy(&x, a + i * p.from_store, p.from_store);
    if ((p.flags & 64) != 0) {  // d = {hi: a, lo: b}
      std::memcpy(&y, b + i * p.from_store, p.from_store);
      r = convert_one(x, p) << to_bits | convert_one(y, p);
    } else if (p.halves == 2) {
      u64 const low = (u64{1} << from_bits) - 1;
      r = convert_one(x & low, p) | convert_one(x >> from_bits & low, p) << to_bits;
    } else {
      r = convert_one(x, p);
    }
    std::memcpy(d + i * p.to_store, &r, p.to_store);
  }
}

void build(builder& b) {
  std::string_view const to = b.type_word(1), from = b.type_word(0);
  plan p{};
  p.to = shape_of(to), p.from = shape_of(from);
  p.halves = to.ends_with("x2") ? 2 : 1;
  bool const two_sources = b.operand_count() == 3;
  std::string_view const r = b.one_of({"rn", "rz", "rm", "rp", "rna", "rni", "rzi", "rmi", "rpi"});
  p.how = r.starts_with("rz")   ? rounding::zero
          : r.starts_with("rm") ? rounding::down
          : r.starts_with("rp") ? rounding::up
          : r == "rna"          ? rounding::away
                                : rounding::nearest;
  bool const to_integral = r.ends_with("i") && p.to != shape::integer;
  p.flags = static_cast<std::uint8_t>((b.has("satfinite") ? 1 : 0) | (b.has("relu") ? 2 : 0) |
                                      (b.has("ftz") ? 4 : 0) | (b.has("sat") ? 8 : 0) |
                                      (to_integral ? 16 : 0) | (two_sources ? 64 : 0));
  for (int side = 0; side < 2; ++side) {
    ptx::scalar const t = b.type(side);
    if (shape_of(b.type_word(side)) != shape::integer) continue;
    p.integer_bits = static_cast<std::uint8_t>(t.bits);
    if (t.kind == 's') p.flags |= 32;
  }
  int to_bits = 0, from_bits = 0;
  ref const d = b.any_row(b.operand(0), to_bits);
  ref const a = b.any_row(b.operand(1), from_bits);
  int const needed_to = p.to == shape::integer ? p.integer_bits : bits_of(p.to) * p.halves;
  int const needed_from = p.from == shape::integer ? p.integer_bits
                          : two_sources            ? bits_of(p.from)
                                                   : bits_of(p.from) * p.halves;
  if (to_bits < needed_to || from_bits < needed_from)
    b.fail("a register is narrower than its type");
  p.to_store = static_cast<std::uint8_t>(to_bits / 8);
  p.from_store = static_cast<std::uint8_t>(from_bits / 8);
  ref const second = two_sources ? b.input(2, {'b', from_bits}) : a;
  op& o = b.emit(&convert_lanes);
  o.d = d, o.a = a, o.b = second;
  std::memcpy(&o.value, &p, sizeof p);
}

// cvt.pack: a and b, clamped, above what c brings. aux: bits, and 256 where signed.
void pack(warp& w, op const& o) {
  u32 const bits = o.aux & 255;
  bool const is_signed = (o.aux & 256) != 0;
  s64 const most = (s64{1} << (is_signed ? bits - 1 : bits)) - 1, least = is_signed ? -most - 1 : 0;
  u32 const field = static_cast<u32>((u64{1} << bits) - 1);
  s32 const *a = w.row<s32>(o.a), *b = w.row<s32>(o.b);
  u32 const* const c = w.row<u32>(o.c);
  u32* const d = w.row<u32>(o.d);
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((w.mask >> i & 1) == 0) continue;
    auto const high = static_cast<u32>(std::clamp(s64{a[i]}, least, most)) & field;
    auto const low = static_cast<u32>(std::clamp(s64{b[i]}, least, most)) & field;
    d[i] = high << bits | low | (bits < 16 ? c[i] << (2 * bits) : 0);
  }
}
void build_pack(builder& b) {
  std::string_view const to = b.in->modifiers[2];
  ref const d = b.output(0, {'b', 32}), a = b.input(1, {'s', 32}), second = b.input(2, {'s', 32});
  ref const c = b.operand_count() > 3 ? b.input(3, {'b', 32}) : a;
  op& o = b.emit(&pack);
  o.d = d, o.a = a, o.b = second, o.c = c;
  u32 const bits = to.size() == 3 ? 16 : static_cast<u32>(to[1] - '0');
  o.aux = bits | (to[0] == 's' ? 256u : 0u);
}

#define SOFTGPU_INTEGERS ".u8|u16|u32|u64|s8|s16|s32|s64"

constexpr form rows[] = {
    {"cvt{.ftz}{.sat}.f32|f64.f16|bf16 d, a", kind::convert, build},
    {"cvt.rn|rz|rm|rp{.ftz}{.sat}.f16.f32|f64 d, a", kind::convert, build},
    {"cvt.rn|rz|rm|rp{.relu}{.satfinite}.bf16.f32 d, a", kind::convert, build},
    {"cvt.rn|rz{.relu}{.satfinite}.f16.f32 d, a", kind::convert, build},
    {"cvt.rn|rz|rm|rp{.sat}.bf16.f16|f64 d, a", kind::convert, build},
    {"cvt.rn|rz|rm|rp.f16.bf16 d, a", kind::convert, build},
    {"cvt.rni|rzi|rmi|rpi{.ftz}{.sat}.f16.f16 d, a", kind::convert, build},
    {"cvt.rni|rzi|rmi|rpi.bf16.bf16 d, a", kind::convert, build},
    {"cvt{.sat}.f16.f16 d, a", kind::convert, build},
    {"cvt.rni|rzi|rmi|rpi{.ftz}{.sat}" SOFTGPU_INTEGERS ".f16|bf16 d, a", kind::convert, build},
    {"cvt.rn|rz|rm|rp{.sat}.f16|bf16" SOFTGPU_INTEGERS " d, a", kind::convert, build},
    {"cvt.rn|rz{.relu}{.satfinite}.f16x2|bf16x2.f32 d, a, b", kind::convert, build},
    {"cvt.rna|rn|rz{.relu}{.satfinite}.tf32.f32 d, a", kind::convert, build},
    {"cvt.rna|rn|rz.satfinite.relu.tf32.f32 d, a", kind::convert, build},
    {"cvt.rn.satfinite{.relu}.e4m3x2|e5m2x2|e2m3x2|e3m2x2|e2m1x2.f32 d, a, b", kind::convert,
     build},
    {"cvt.rn.satfinite{.relu}.e4m3x2|e5m2x2.f16x2 d, a", kind::convert, build},
    {"cvt.rn{.relu}.f16x2.e4m3x2|e5m2x2|e2m3x2|e3m2x2|e2m1x2 d, a", kind::convert, build},
    {"cvt.rz|rp{.satfinite}.ue8m0x2.f32 d, a, b", kind::convert, build},
    {"cvt.rz|rp{.satfinite}.ue8m0x2.bf16x2 d, a", kind::convert, build},
    {"cvt.rn.bf16x2.ue8m0x2 d, a", kind::convert, build},
    {"cvt.pack.sat.u16|s16.s32 d, a, b", kind::convert, build_pack},
    {"cvt.pack.sat.u8|s8|u4|s4|u2|s2.s32.b32 d, a, b, c", kind::convert, build_pack},
};

}  // namespace

std::span<form const> narrow_family() { return rows; }

}  // namespace softgpu
