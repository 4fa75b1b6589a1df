// ld and st of every type and vector, in shared, local and generic addresses: what is extended, what
// is cut, what stays.
#include "instruction_check.hpp"

namespace instruction_check {
namespace instructions_memory_test {

// x: the address of eight bytes of the thread's own, which hold the first source.
#define SHARED_CELL(...)                                                                    \
  "{.reg .b32 x, y; .shared .align 16 .b64 cell[256]; mov.u32 x, %%tid.x; shl.b32 x, x, 3;" \
  " mov.u32 y, cell; add.u32 x, x, y; st.shared.b64 [x], %1; " __VA_ARGS__ "}"
#define LOCAL_CELL(...) "{.local .align 8 .b8 cell[8]; st.local.b64 [cell], %1; " __VA_ARGS__ "}"
#define GENERIC_CELL(...) \
  SHARED_CELL(".reg .b64 g; cvt.u64.u32 g, x; cvta.shared.u64 g, g; " __VA_ARGS__)

// A value of a type at an offset, extended to the register it goes to.
#define LOAD(t, T, D, at)                                                                          \
  INSTRUCTION1(ld_shared_##t##_to_##D##_at_##at, SHARED_CELL("ld.shared." #t " %0, [x+" #at "];"), \
               D, u64, ([](u64 a) { return D(T(a >> 8 * at)); }))                                  \
  INSTRUCTION1(ld_local_##t##_to_##D##_at_##at, LOCAL_CELL("ld.local." #t " %0, [cell+" #at "];"), \
               D, u64, ([](u64 a) { return D(T(a >> 8 * at)); }))                                  \
  INSTRUCTION1(ld_##t##_to_##D##_at_##at, GENERIC_CELL("ld." #t " %0, [g+" #at "];"), D, u64,      \
               ([](u64 a) { return D(T(a >> 8 * at)); }))
LOAD(u8, u8, u32, 3)
LOAD(s8, s8, s32, 1)
LOAD(b8, u8, u16, 7)
LOAD(s8, s8, s16, 6)
LOAD(u8, u8, u64, 5)
LOAD(s8, s8, s64, 2)
LOAD(u16, u16, u16, 2)
LOAD(u16, u16, u32, 4)
LOAD(s16, s16, s32, 6)
LOAD(s16, s16, s64, 0)
LOAD(u32, u32, u32, 4)
LOAD(u32, u32, u64, 4)
LOAD(s32, s32, s64, 0)
LOAD(b64, u64, u64, 0)

// The low bits of a register at an offset; the bytes around stay.
#define STORE(t, S, bytes, at)                                                                    \
  INSTRUCTION2(st_shared_##t##_of_##S##_at_##at,                                                  \
               SHARED_CELL("st.shared." #t " [x+" #at "], %2; ld.shared.b64 %0, [x];"), u64, u64, \
               S, ([](u64 a, S b) { return stored(a, u64(b), bytes, at); }))                      \
  INSTRUCTION2(st_local_##t##_of_##S##_at_##at,                                                   \
               LOCAL_CELL("st.local." #t " [cell+" #at "], %2; ld.local.b64 %0, [cell];"), u64,   \
               u64, S, ([](u64 a, S b) { return stored(a, u64(b), bytes, at); }))                 \
  INSTRUCTION2(st_##t##_of_##S##_at_##at,                                                         \
               GENERIC_CELL("st." #t " [g+" #at "], %2; ld.b64 %0, [g];"), u64, u64, S,           \
               ([](u64 a, S b) { return stored(a, u64(b), bytes, at); }))
u64 stored(u64 a, u64 b, int bytes, int at) {
  for (int i = 0; i < bytes; ++i) {
    int const bit = 8 * (at + i);
    a = (a & ~(u64(255) << bit)) | (b >> 8 * i & 255) << bit;
  }
  return a;
}
STORE(u8, u32, 1, 3)
STORE(b8, u16, 1, 6)
STORE(s8, u64, 1, 0)
STORE(u16, u16, 2, 4)
STORE(b16, u32, 2, 2)
STORE(u32, u32, 4, 4)
STORE(b32, u64, 4, 0)
STORE(b64, u64, 8, 0)

INSTRUCTION1(ld_v2_u32,
             SHARED_CELL(".reg .b32 p, q; ld.shared.v2.u32 {p, q}, [x]; mov.b64 %0, {q, p};"), u64,
             u64, ([](u64 a) { return a << 32 | a >> 32; }))
INSTRUCTION1(ld_v2_s16, GENERIC_CELL(".reg .s32 p, q; ld.v2.s16 {p, q}, [g+4]; sub.s32 %0, p, q;"),
             s32, u64, ([](u64 a) { return s32(s16(a >> 32)) - s32(s16(a >> 48)); }))
INSTRUCTION1(ld_v4_u8,
             SHARED_CELL(".reg .b16 p, q, r, s; ld.shared.v4.u8 {p, q, r, s}, [x+4];"
                         " mov.b64 %0, {s, r, q, p};"),
             u64, u64, ([](u64 a) {
               u64 const b = a >> 32;
               return (b >> 24 & 255) | (b >> 16 & 255) << 16 | (b >> 8 & 255) << 32 |
                      (b & 255) << 48;
             }))
INSTRUCTION1(ld_v4_u16,
             LOCAL_CELL(".reg .b16 p, q, r, s; ld.local.v4.u16 {p, q, r, s}, [cell];"
                        " mov.b64 %0, {s, r, q, p};"),
             u64, u64, ([](u64 a) {
               return a >> 48 | (a >> 32 & 0xffff) << 16 | (a >> 16 & 0xffff) << 32 | a << 48;
             }))
INSTRUCTION2(st_v2_u32, SHARED_CELL("st.shared.v2.u32 [x], {%2, 7}; ld.shared.b64 %0, [x];"), u64,
             u64, u32, ([](u64, u32 b) { return u64(7) << 32 | b; }))
INSTRUCTION2(st_v4_u8,
             GENERIC_CELL(".reg .b16 p; cvt.u16.u32 p, %2; st.v4.u8 [g], {p, 1, p, 2};"
                          " ld.b64 %0, [g];"),
             u64, u64, u32, ([](u64 a, u32 b) {
               u64 const byte = b & 255;
               return (a >> 32 << 32) | byte | 1u << 8 | byte << 16 | 2u << 24;
             }))
// A vector may overwrite the register that holds its address.
INSTRUCTION1(ld_over_its_address, SHARED_CELL("ld.shared.v2.u32 {y, x}, [x]; add.u32 %0, x, y;"),
             u32, u64, ([](u64 a) { return u32(a) + u32(a >> 32); }))

// A pointer of 64 bits whose sum with the offset matters, and a base below the cell.
INSTRUCTION1(ld_negative_offset, SHARED_CELL("add.u32 x, x, 100; ld.shared.u32 %0, [x+-96];"), u32,
             u64, ([](u64 a) { return u32(a >> 32); }))

}  // namespace instructions_memory_test
}  // namespace instruction_check
