// mov, packing and unpacking, and the atomics on one word of shared memory each.
#include "instruction_models.hpp"

namespace instruction_check {
namespace instructions_move_test {

#define MOV(t, T) INSTRUCTION1(mov_##t, "mov." #t " %0, %1;", T, T, ([](T a) { return a; }))
MOV(b16, u16)
MOV(u16, u16)
MOV(s16, s16)
MOV(b32, u32)
MOV(u32, u32)
MOV(s32, s32)
MOV(f32, f32)
MOV(b64, u64)
MOV(u64, u64)
MOV(s64, s64)
MOV(f64, f64)
INSTRUCTION1(mov_constant, "mov.u32 %0, 0xabcdef01;", u32, u32, ([](u32) { return 0xabcdef01u; }))
INSTRUCTION1(mov_negative, "mov.s64 %0, -5;", s64, s64, ([](s64) { return s64(-5); }))
INSTRUCTION1(mov_f32_constant, "mov.f32 %0, 0fC0490FDB;", f32, f32,
             ([](f32) { return -3.14159274f; }))
INSTRUCTION1(mov_bits_of_f32, "mov.b32 %0, %1;", u32, f32, ([](f32 a) { return u32(bits_of(a)); }))

INSTRUCTION2(pack_32, "mov.b32 %0, {%1, %2};", u32, u16, u16,
             ([](u16 a, u16 b) { return u32(a) | u32(b) << 16; }))
INSTRUCTION2(pack_64, "mov.b64 %0, {%1, %2};", u64, u32, u32,
             ([](u32 a, u32 b) { return u64(a) | u64(b) << 32; }))
INSTRUCTION4(pack_four, "mov.b64 %0, {%1, %2, %3, %4};", u64, u16, u16, u16, u16,
             ([](u16 a, u16 b, u16 c, u16 d) {
               return u64(a) | u64(b) << 16 | u64(c) << 32 | u64(d) << 48;
             }))
INSTRUCTION1(unpack_32, "{.reg .b16 x, y; mov.b32 {x, y}, %1; mov.b32 %0, {y, x};}", u32, u32,
             ([](u32 a) { return a << 16 | a >> 16; }))
INSTRUCTION1(unpack_64, "{.reg .b32 x, y; mov.b64 {x, y}, %1; mov.b64 %0, {y, x};}", u64, u64,
             ([](u64 a) { return a << 32 | a >> 32; }))
INSTRUCTION1(unpack_part, "{.reg .b32 x; mov.b64 {_, x}, %1; mov.b32 %0, x;}", u32, u64,
             ([](u64 a) { return u32(a >> 32); }))
INSTRUCTION1(unpack_bytes,
             "{.reg .b8 a, b, c, d; mov.b32 {a, b, c, d}, %1; mov.b32 %0, {d, c, b, a};}", u32, u32,
             ([](u32 a) { return a << 24 | a >> 24 | (a & 0xff00) << 8 | (a >> 8 & 0xff00); }))
INSTRUCTION2(through_128,
             "{.reg .b128 q; .reg .b64 x, y; mov.b128 q, {%1, %2};"
             " mov.b128 {x, y}, q; sub.u64 %0, x, y;}",
             u64, u64, u64, ([](u64 a, u64 b) { return a - b; }))

// One word each in shared memory: what was there below, what is there then above.
#define CELL(bits, instruction)                                             \
  "{.reg .b32 x, y; .reg .b" #bits                                          \
  " o, n; .shared .align 16 .b64 cell[256];"                                \
  " mov.u32 x, %%tid.x; shl.b32 x, x, 3; mov.u32 y, cell; add.u32 x, x, y;" \
  " st.shared.b" #bits " [x], %1; " instruction " ld.shared.b" #bits " n, [x]; "
#define ATOM32(name, t, T, ...)                                                                  \
  INSTRUCTION2(atom_##name##_##t,                                                                \
               CELL(32, "atom.shared." #name "." #t " o, [x], %2;") "mov.b64 %0, {o, n};}", u64, \
               T, T, ([](T a, T b) {                                                             \
                 auto const f = __VA_ARGS__;                                                     \
                 return bits_of(a) | bits_of(T(f(a, b))) << 32;                                  \
               }))                                                                               \
  INSTRUCTION2(red_##name##_##t,                                                                 \
               CELL(32, "red.shared." #name "." #t " [x], %2;") "mov.b32 %0, n;}", u32, T, T,    \
               ([](T a, T b) {                                                                   \
                 auto const f = __VA_ARGS__;                                                     \
                 return u32(bits_of(T(f(a, b))));                                                \
               }))
#define ATOM64(name, t, T, ...)                                                                 \
  INSTRUCTION2(atom_##name##_##t,                                                               \
               CELL(64, "atom.shared." #name "." #t " o, [x], %2;") "mad.lo.u64 %0, o, 3, n;}", \
               u64, T, T, ([](T a, T b) {                                                       \
                 auto const f = __VA_ARGS__;                                                    \
                 return bits_of(a) * 3 + bits_of(T(f(a, b)));                                   \
               }))
#define ATOM_BITS(M, t, T)                     \
  M(and, t, T, [](T a, T b) { return a & b; }) \
  M(or, t, T, [](T a, T b) { return a | b; })  \
  M(xor, t, T, [](T a, T b) { return a ^ b; })
#define ATOM_ORDER(M, t, T)                            \
  M(min, t, T, [](T a, T b) { return a < b ? a : b; }) \
  M(max, t, T, [](T a, T b) { return a > b ? a : b; })
ATOM32(add, u32, u32, [](u32 a, u32 b) { return a + b; })
ATOM32(add, s32, s32, [](s32 a, s32 b) { return s32(u32(a) + u32(b)); })
ATOM32(inc, u32, u32, [](u32 a, u32 b) { return a >= b ? 0 : a + 1; })
ATOM32(dec, u32, u32, [](u32 a, u32 b) { return a == 0 || a > b ? b : a - 1; })
ATOM_BITS(ATOM32, b32, u32)
ATOM_ORDER(ATOM32, u32, u32)
ATOM_ORDER(ATOM32, s32, s32)
ATOM64(add, u64, u64, [](u64 a, u64 b) { return a + b; })
ATOM64(exch, b64, u64, [](u64, u64 b) { return b; })
ATOM_BITS(ATOM64, b64, u64)
ATOM_ORDER(ATOM64, u64, u64)
ATOM_ORDER(ATOM64, s64, s64)
INSTRUCTION2(atom_exch_b32, CELL(32, "atom.shared.exch.b32 o, [x], %2;") "mov.b64 %0, {o, n};}",
             u64, u32, u32, ([](u32 a, u32 b) { return u64(b) << 32 | a; }))
INSTRUCTION3(atom_cas_b32, CELL(32, "atom.shared.cas.b32 o, [x], %2, %3;") "mov.b64 %0, {o, n};}",
             u64, u32, u32, u32,
             ([](u32 a, u32 b, u32 c) { return u64(a == b ? c : a) << 32 | a; }))
INSTRUCTION3(atom_cas_b64,
             CELL(64, "atom.shared.cas.b64 o, [x], %2, %3;") "mad.lo.u64 %0, o, 3, n;}", u64, u64,
             u64, u64, ([](u64 a, u64 b, u64 c) { return a * 3 + (a == b ? c : a); }))
INSTRUCTION3(atom_cas_b16, CELL(16, "atom.shared.cas.b16 o, [x], %2, %3;") "mov.b32 %0, {o, n};}",
             u32, u16, u16, u16,
             ([](u16 a, u16 b, u16 c) { return u32(a == b ? c : a) << 16 | a; }))
INSTRUCTION2(atom_add_f32, CELL(32, "atom.shared.add.f32 o, [x], %2;") "mov.b32 %0, n;}", f32, f32,
             f32, ([](f32 a, f32 b) { return a + b; }))
INSTRUCTION2(atom_add_f64, CELL(64, "atom.shared.add.f64 o, [x], %2;") "mov.b64 %0, n;}", f64, f64,
             f64, ([](f64 a, f64 b) { return a + b; }))
INSTRUCTION2(atom_add_f16, CELL(16, "atom.shared.add.noftz.f16 o, [x], %2;") "mov.b32 %0, {o, n};}",
             u32, f16, f16, ([](f16 a, f16 b) {
               double const sum = value(half_format, u32(a)) + value(half_format, u32(b));
               return u32(a) | rounded(half_format, sum) << 16;
             }))
INSTRUCTION2(atom_add_bf16x2,
             CELL(32, "atom.shared.add.noftz.bf16x2 o, [x], %2;") "mov.b32 %0, n;}", bf16x2, bf16x2,
             bf16x2, ([](bf16x2 a, bf16x2 b) {
               auto const one = [](u32 x, u32 y) {
                 return rounded(brain_format,
                                fma_cut(value(brain_format, x), 1, value(brain_format, y)));
               };
               return bf16x2(one(u32(a) & 0xffff, u32(b) & 0xffff) | one(u32(a) >> 16, u32(b) >> 16)
                                                                         << 16);
             }))

// 128 bits, and vectors of floats in global memory: sm_90.
INSTRUCTION3(
    atom_exch_b128,
    "{.reg .b32 x, y; .reg .b128 o, n; .reg .b64 a, b, c, d; .shared .align 16 .b8 cell[4096];"
    " mov.u32 x, %%tid.x; shl.b32 x, x, 4; mov.u32 y, cell; add.u32 x, x, y;"
    " st.shared.v2.b64 [x], {%1, %2}; mov.b128 n, {%2, %3};"
    " atom.shared.exch.b128 o, [x], n; mov.b128 {a, b}, o; ld.shared.v2.b64 {c, d}, [x];"
    " mad.lo.u64 a, a, 3, b; mad.lo.u64 a, a, 3, c; mad.lo.u64 %0, a, 3, d;}",
    u64, u64, u64, u64, ([](u64 a, u64 b, u64 c) { return ((a * 3 + b) * 3 + b) * 3 + c; }))
INSTRUCTION3(
    atom_cas_b128,
    "{.reg .b32 x, y; .reg .b128 o, n, e; .reg .b64 c, d; .shared .align 16 .b8 cell[4096];"
    " mov.u32 x, %%tid.x; shl.b32 x, x, 4; mov.u32 y, cell; add.u32 x, x, y;"
    " st.shared.v2.b64 [x], {%1, %2}; mov.b128 e, {%1, %3}; mov.b128 n, {%3, 5};"
    " atom.shared.cas.b128 o, [x], e, n; ld.shared.v2.b64 {c, d}, [x];"
    " mad.lo.u64 %0, c, 3, d;}",
    u64, u64, u64, u64, ([](u64 a, u64 b, u64 c) { return b == c ? c * 3 + 5 : a * 3 + b; }))
__global__ void add_vector(f32* at, f32 const* b, f32* old) {
  int const i = 4 * threadIdx.x;
  asm volatile("atom.global.add.v4.f32 {%0, %1, %2, %3}, [%4], {%5, %6, %7, %8};"
               : "=f"(old[i]), "=f"(old[i + 1]), "=f"(old[i + 2]), "=f"(old[i + 3])
               : "l"(at + i), "f"(b[i]), "f"(b[i + 1]), "f"(b[i + 2]), "f"(b[i + 3])
               : "memory");
  asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(at + i + 2), "f"(b[i]), "f"(b[i + 1])
               : "memory");
}
__global__ void add_in_place(f32* at, f32* values) {  // results go where the sources come from
  f32 a = values[0], b = values[1];
  asm volatile("atom.global.add.v2.f32 {%0, %1}, [%2], {%1, %0};"
               : "+f"(a), "+f"(b)
               : "l"(at)
               : "memory");
  values[0] = a, values[1] = b;
}
instruction const sums_in_place("atom_add_v2_f32_in_place", [] {
  buffer<f32> const cells({10, 20}), values({1, 2});
  add_in_place<<<1, 1>>>(cells.data, values.data);
  if (!device_is_done()) return;
  if (cells.host() != std::vector<f32>{12, 21} || values.host() != std::vector<f32>{10, 20})
    complain("the second element took the first one's result");
});
__global__ void least_and_most(u16* at, u16 const* b, u16* old) {  // of bf16, and of pairs of f16
  asm volatile("atom.global.min.noftz.v4.bf16 {%0, %1, %2, %3}, [%4], {%5, %6, %7, %8};"
               : "=h"(old[0]), "=h"(old[1]), "=h"(old[2]), "=h"(old[3])
               : "l"(at), "h"(b[0]), "h"(b[1]), "h"(b[2]), "h"(b[3])
               : "memory");
  auto const* const pairs = reinterpret_cast<u32 const*>(b + 4);
  asm volatile("red.global.max.noftz.v2.f16x2 [%0], {%1, %2};" ::"l"(at + 4), "r"(pairs[0]),
               "r"(pairs[1])
               : "memory");
}
instruction const extremes("atom_min_max_of_halves", [] {
  // bf16: 1, -0, NaN, 3; f16: 2, -inf, 0, 5.
  std::vector<u16> const a{0x3f80, 0x8000, 0x7fff, 0x4040, 0x4000, 0xfc00, 0x0000, 0x4500};
  std::vector<u16> const b{0xbf80, 0x0000, 0x4000, 0x7fff, 0x4200, 0x3c00, 0x8000, 0x4400};
  buffer<u16> const da(a), db(b), old(std::vector<u16>(4, 9));
  least_and_most<<<1, 1>>>(da.data, db.data, old.data);
  if (!device_is_done()) return;
  if (da.host() != std::vector<u16>{0xbf80, 0x8000, 0x4000, 0x4040, 0x4200, 0x3c00, 0x0000, 0x4500})
    complain("a minimum or a maximum is wrong");
  if (old.host() != std::vector<u16>(a.begin(), a.begin() + 4)) complain("what was there is wrong");
});
instruction const vector_sums("atom_add_v4_f32", [] {
  std::vector<f32> a, b;
  for (int i = 0; i < 128; ++i) a.push_back(f32(i)), b.push_back(f32(i * i));
  buffer<f32> const da(a), db(b), old(std::vector<f32>(128, -1));
  add_vector<<<1, 32>>>(da.data, db.data, old.data);
  if (!device_is_done()) return;
  auto const sums = da.host(), before = old.host();
  for (int i = 0; i < 128; ++i) {
    f32 const expected = a[i] + b[i] + (i % 4 >= 2 ? b[i - 2] : 0);
    if (sums[i] != expected || before[i] != a[i])
      complain("element " + std::to_string(i) + ": " + std::to_string(sums[i]) + ", before " +
               std::to_string(before[i]));
  }
});

// In global memory a sum of f32 flushes subnormals.
__global__ void add_in_global(f32* at, f32 b, f32* old) {
  asm volatile("atom.global.add.f32 %0, [%1], %2;" : "=f"(*old) : "l"(at), "f"(b) : "memory");
}
instruction const global_sums("atom_add_f32_in_global", [] {
  f32 const cases[][3] = {
      {1, 2, 3}, {0x1p-127f, 1, 1}, {0x1p-127f, 0x1p-127f, 0}, {0x1.8p-126f, -0x1p-126f, 0}};
  for (auto const& [a, b, sum] : cases) {
    buffer<f32> cell({a}), old({9});
    add_in_global<<<1, 1>>>(cell.data, b, old.data);
    if (!device_is_done()) return;
    if (cell.host()[0] != sum || old.host()[0] != a)
      complain("of " + hex(bits_of(a)) + " and " + hex(bits_of(b)) + ": got " +
               hex(bits_of(cell.host()[0])) + ", and before " + hex(bits_of(old.host()[0])));
  }
});

}  // namespace instructions_move_test
}  // namespace instruction_check
