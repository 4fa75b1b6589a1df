// mma.sync: PTX manual, "Matrix multiply-accumulate". With g = lane/4 and t = lane%4, and P elements
// to a 32-bit register:
//   A register r, element e: row g + 8·(r odd), column 4P·(r/2) + P·t + e
//   B register r, element e: row 4P·r + P·t + e, column g
//   C register r: row g + 8·(r/2), column 2t + (r odd)   (f16: register r, element e: 8·r, e)
// Each element of D is one chain of fused multiply-adds in float over ascending k, begun with C;
// integers wrap, or saturate with .satfinite.
#include <bit>
#include <cmath>
#include <cstring>

#include "checks/faults.hpp"
#include "machine/families/lanewise.hpp"
#include "machine/families/vector_families.hpp"
#include "machine/formats.hpp"

namespace softgpu::SOFTGPU_ISA {
namespace {

constexpr lane_mask all_tokens[lanes_per_warp] = {
    all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes,
    all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes,
    all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes,
    all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes, all_lanes};

bool whole_warp(warp& w, op const& o) {
  w.mask = w.meet(all_tokens, o);
  if (w.mask == 0) return false;
  if (w.mask != all_lanes)
    raise_fault(w, o, w.mask, fault::inactive_lane, "mma.sync is not executed by all 32 lanes");
  return true;
}

// Element types: how many bits, and their value.
struct half_element {
  static constexpr int bits = 16;
  static f32 value(u32 x) {
    u32 const m = (x & 0x7fff) << 13;
    f32 const scaled = std::bit_cast<f32>(m) * 0x1p112f;
    u32 const magnitude = (x & 0x7c00) == 0x7c00 ? m | 0x7f800000u : std::bit_cast<u32>(scaled);
    return std::bit_cast<f32>(magnitude | (x & 0x8000) << 16);
  }
};
struct bf16_element {
  static constexpr int bits = 16;
  static f32 value(u32 x) { return std::bit_cast<f32>(x << 16); }
};
struct tf32_element {
  static constexpr int bits = 32;
  static f32 value(u32 x) { return std::bit_cast<f32>(x & 0xffffe000u); }  // low bits are ignored
};
struct e4m3_element {
  static constexpr int bits = 8;
  static f32 value(u32 x) { return static_cast<f32>(decode<e4m3_format>(x)); }
};
struct e5m2_element {
  static constexpr int bits = 8;
  static f32 value(u32 x) { return static_cast<f32>(decode<e5m2_format>(x)); }
};
template <class T> struct byte_element {
  static constexpr int bits = 8;
  static s32 value(u32 x) { return static_cast<T>(x); }
};

/// Sixteen (or eight) rows of A and eight columns of B; `Sum` is float or s32.
template <class Sum, int M, int K> struct tiles {
  alignas(64) Sum a[M][K];
  alignas(64) Sum b[K][8];
  alignas(64) Sum c[M][8];
};

template <class E, class Sum, int M, int K>
void load_a(warp const& w, ref const* rows, tiles<Sum, M, K>& t) {
  constexpr int per = 32 / E::bits, both = M / 8, registers = M * K / 32 / per;
  constexpr u32 low = E::bits == 32 ? ~0u : (1u << (E::bits % 32)) - 1;
  for (int r = 0; r < registers; ++r) {
    u32 const* const row = w.row<u32>(rows[r]);
    for (int lane = 0; lane < lanes_per_warp; ++lane)
      for (int e = 0; e < per; ++e)
        t.a[lane / 4 + 8 * (r % both)][4 * per * (r / both) + per * (lane % 4) + e] =
            E::value(row[lane] >> (e * (E::bits % 32)) & low);
  }
}
template <class E, class Sum, int M, int K>
void load_b(warp const& w, ref const* rows, tiles<Sum, M, K>& t) {
  constexpr int per = 32 / E::bits, registers = K * 8 / 32 / per;
  constexpr u32 low = E::bits == 32 ? ~0u : (1u << (E::bits % 32)) - 1;
  for (int r = 0; r < registers; ++r) {
    u32 const* const row = w.row<u32>(rows[r]);
    for (int lane = 0; lane < lanes_per_warp; ++lane)
      for (int e = 0; e < per; ++e)
        t.b[4 * per * r + per * (lane % 4) + e][lane / 4] =
            E::value(row[lane] >> (e * (E::bits % 32)) & low);
  }
}

template <int M, int K> void multiply(tiles<f32, M, K>& t) {
  for (int i = 0; i < M; ++i) {
    f32 acc[8];
    for (int j = 0; j < 8; ++j) acc[j] = t.c[i][j];
    for (int k = 0; k < K; ++k)
      for (int j = 0; j < 8; ++j) acc[j] = std::fma(t.a[i][k], t.b[k][j], acc[j]);
    for (int j = 0; j < 8; ++j)
      t.c[i][j] = acc[j] != acc[j] ? std::bit_cast<f32>(0x7fffffffu) : acc[j];
  }
}

template <int M, int K> void multiply(tiles<s32, M, K>& t, bool saturate) {
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < 8; ++j) {
      s64 sum = t.c[i][j];
      for (int k = 0; k < K; ++k) sum += s64{t.a[i][k]} * t.b[k][j];
      if (saturate)
        sum = sum > 0x7fffffff ? 0x7fffffff : sum < -0x7fffffff - 1 ? -0x7fffffff - 1 : sum;
      t.c[i][j] = static_cast<s32>(static_cast<u32>(sum));
    }
}

// Extras of an op: D, A, B, C registers in this order.
template <class EA, class EB, class Sum, int M, int K, bool HalfSum>
void mma(warp& w, op const& o) {
  if (!whole_warp(w, o)) return;
  constexpr int accumulators = HalfSum ? M / 8 : M / 4;
  constexpr int registers_a = M * K * EA::bits / 1024, registers_b = 8 * K * EB::bits / 1024;
  ref const* const d = w.here.code->extras.data() + o.extra;
  ref const *const a = d + accumulators, *const b = a + registers_a, *const c = b + registers_b;
  tiles<Sum, M, K> t;
  load_a<EA>(w, a, t);
  load_b<EB>(w, b, t);
  for (int r = 0; r < accumulators; ++r)
    for (int lane = 0; lane < lanes_per_warp; ++lane) {
      u32 const word = w.row<u32>(c[r])[lane];
      if constexpr (HalfSum) {
        for (int e = 0; e < 2; ++e)
          t.c[lane / 4 + 8 * r][2 * (lane % 4) + e] =
              half_element::value(word >> (16 * e) & 0xffff);
      } else {
        t.c[lane / 4 + 8 * (r / 2)][2 * (lane % 4) + r % 2] = std::bit_cast<Sum>(word);
      }
    }
  if constexpr (std::is_same_v<Sum, f32>)
    multiply(t);
  else
    multiply(t, o.flags != 0);
  for (int r = 0; r < accumulators; ++r) {
    u32* const row = w.row<u32>(d[r]);
    for (int lane = 0; lane < lanes_per_warp; ++lane) {
      u32 word = 0;
      if constexpr (HalfSum) {
        for (int e = 0; e < 2; ++e)
          word |= encode<f16_format>(t.c[lane / 4 + 8 * r][2 * (lane % 4) + e]) << (16 * e);
      } else {
        word = std::bit_cast<u32>(t.c[lane / 4 + 8 * (r / 2)][2 * (lane % 4) + r % 2]);
      }
      if (w.mask >> lane & 1) row[lane] = word;
    }
  }
}

// In f64, one element to a register: as above with P = 1; m8n8k4 has one row of eight.
template <int M, int K> void mma_f64(warp& w, op const& o) {
  if (!whole_warp(w, o)) return;
  constexpr int both = M / 8, registers_d = M / 4, registers_a = M * K / 32;
  ref const* const d = w.here.code->extras.data() + o.extra;
  ref const *const a = d + registers_d, *const b = a + registers_a, *const c = b + K / 4;
  f64 r[registers_d][lanes_per_warp];
  for (int lane = 0; lane < lanes_per_warp; ++lane)
    for (int e = 0; e < registers_d; ++e) {
      f64 acc = w.row<f64>(c[e])[lane];
      for (int k = 0; k < K; ++k)
        acc = std::fma(w.row<f64>(a[k / 4 * both + e / 2])[lane / 4 * 4 + k % 4],
                       w.row<f64>(b[k / 4])[(2 * (lane % 4) + e % 2) * 4 + k % 4], acc);
      r[e][lane] = acc;
    }
  for (int e = 0; e < registers_d; ++e)
    for (int lane = 0; lane < lanes_per_warp; ++lane)
      if (w.mask >> lane & 1) w.row<f64>(d[e])[lane] = r[e][lane];
}

void emit_mma(builder& b, handler h, int bits) {
  std::vector<ref> rows;
  for (std::size_t k = 0; k < 4; ++k) {
    ptx::operand const& v = b.operand(k);
    auto const add = [&](ptx::operand const& p) {
      rows.push_back(k == 0 ? b.output(p, {'b', bits}) : b.input(p, {'b', bits}));
    };
    if (v.kind == ptx::operand_kind::vector)
      for (ptx::operand const& p : v.parts) add(p);
    else
      add(v);
  }
  op& o = b.emit(h);
  o.flags = b.has("satfinite");
  for (ref const r : rows) b.extra(o, r);
}

template <class EA, class EB, int K> handler real_mma(builder& b) {
  return b.type_word(3) == "f16" ? &mma<EA, EB, f32, 16, K, true> : &mma<EA, EB, f32, 16, K, false>;
}
template <int K> handler half_mma(builder& b) {
  return b.type_word(2) == "bf16" ? real_mma<bf16_element, bf16_element, K>(b)
                                  : real_mma<half_element, half_element, K>(b);
}
template <int K> handler fp8_mma(builder& b) {
  bool const a4 = b.type_word(2) == "e4m3", b4 = b.type_word(1) == "e4m3";
  if (a4 && b4) return real_mma<e4m3_element, e4m3_element, K>(b);
  if (a4) return real_mma<e4m3_element, e5m2_element, K>(b);
  if (b4) return real_mma<e5m2_element, e4m3_element, K>(b);
  return real_mma<e5m2_element, e5m2_element, K>(b);
}
template <int M, int K> handler byte_mma(builder& b) {
  bool const a_signed = b.type_word(2) == "s8", b_signed = b.type_word(1) == "s8";
  if (a_signed && b_signed) return &mma<byte_element<s8>, byte_element<s8>, s32, M, K, false>;
  if (a_signed) return &mma<byte_element<s8>, byte_element<u8>, s32, M, K, false>;
  if (b_signed) return &mma<byte_element<u8>, byte_element<s8>, s32, M, K, false>;
  return &mma<byte_element<u8>, byte_element<u8>, s32, M, K, false>;
}

void build_half8(builder& b) { emit_mma(b, half_mma<8>(b), 32); }
void build_half16(builder& b) { emit_mma(b, half_mma<16>(b), 32); }
void build_tf4(builder& b) { emit_mma(b, real_mma<tf32_element, tf32_element, 4>(b), 32); }
void build_tf8(builder& b) { emit_mma(b, real_mma<tf32_element, tf32_element, 8>(b), 32); }
void build_fp8_16(builder& b) { emit_mma(b, fp8_mma<16>(b), 32); }
void build_fp8_32(builder& b) { emit_mma(b, fp8_mma<32>(b), 32); }
void build_byte16(builder& b) { emit_mma(b, byte_mma<16, 16>(b), 32); }
void build_byte32(builder& b) { emit_mma(b, byte_mma<16, 32>(b), 32); }
void build_byte8(builder& b) { emit_mma(b, byte_mma<8, 16>(b), 32); }
void build_f64(builder& b) {
  emit_mma(b,
           b.has("m8n8k4")    ? &mma_f64<8, 4>
           : b.has("m16n8k4") ? &mma_f64<16, 4>
           : b.has("m16n8k8") ? &mma_f64<16, 8>
                              : &mma_f64<16, 16>,
           64);
}

constexpr form rows[] = {
    {"mma.sync.aligned.m16n8k8.row.col.f16|f32.f16.f16.f16|f32 d, a, b, c", kind::mma, build_half8},
    {"mma.sync.aligned.m16n8k16.row.col.f16|f32.f16.f16.f16|f32 d, a, b, c", kind::mma,
     build_half16},
    {"mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 d, a, b, c", kind::mma, build_half8},
    {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 d, a, b, c", kind::mma, build_half16},
    {"mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32 d, a, b, c", kind::mma, build_tf4},
    {"mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 d, a, b, c", kind::mma, build_tf8},
    {"mma.sync.aligned.m16n8k16.row.col.f16|f32.e4m3|e5m2.e4m3|e5m2.f16|f32 d, a, b, c", kind::mma,
     build_fp8_16},
    {"mma.sync.aligned.m16n8k32.row.col.f16|f32.e4m3|e5m2.e4m3|e5m2.f16|f32 d, a, b, c", kind::mma,
     build_fp8_32},
    {"mma.sync.aligned.m16n8k16.row.col{.satfinite}.s32.u8|s8.u8|s8.s32 d, a, b, c", kind::mma,
     build_byte16},
    {"mma.sync.aligned.m16n8k32.row.col{.satfinite}.s32.u8|s8.u8|s8.s32 d, a, b, c", kind::mma,
     build_byte32},
    {"mma.sync.aligned.m8n8k16.row.col{.satfinite}.s32.u8|s8.u8|s8.s32 d, a, b, c", kind::mma,
     build_byte8},
    {"mma.sync.aligned.m8n8k4|m16n8k4|m16n8k8|m16n8k16.row.col.f64.f64.f64.f64 d, a, b, c",
     kind::mma, build_f64},
};

}  // namespace

std::span<form const> mma() { return rows; }

}  // namespace softgpu::SOFTGPU_ISA
