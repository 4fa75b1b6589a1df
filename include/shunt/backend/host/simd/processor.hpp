#pragma once
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "shunt/core/abi.hpp"
#include "shunt/core/policy.hpp"

// Which instruction sets a processor has, and which of them is the fastest: functions of what CPUID says, so
// that a test can ask them for any processor. Never a measurement: bf16 products have other bits on
// isa::avx512_bf16, and one machine must always give the same.
namespace shunt {

/// An instruction set and, in one sentence, why it is taken.
struct instruction_choice {
  isa instructions = isa::portable;  ///< the set that runs
  char const* reason = "";           ///< of static storage
};

namespace host {
inline namespace SHUNT_ABI {

/// What CPUID and XGETBV say of a processor. All zeros: one without them.
struct processor {
  char vendor[13] = {};  ///< "AuthenticAMD", "GenuineIntel", ...
  unsigned family = 0;   ///< with the extended family added
  unsigned model = 0;    ///< with the extended model in front
  unsigned leaf1_ecx = 0, leaf7_ebx = 0, leaf7_ecx = 0, leaf7_edx = 0, leaf7_1_eax = 0;
  unsigned xcr0 = 0;  ///< the register files that the operating system saves
};

/// The processor that runs this.
inline processor this_processor() noexcept {
  processor p;
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(0, &a, &b, &c, &d) == 0) return p;
  unsigned const name[3] = {b, d, c};
  __builtin_memcpy(p.vendor, name, sizeof name);
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return p;
  p.leaf1_ecx = c;
  unsigned const family = (a >> 8) & 15u;
  p.family = family == 15 ? 15 + ((a >> 20) & 255u) : family;
  p.model = ((a >> 4) & 15u) | (family == 6 || family == 15 ? (a >> 12) & 0xf0u : 0u);
  constexpr unsigned osxsave = 1u << 27;
  if ((c & osxsave) != 0) __asm__("xgetbv" : "=a"(p.xcr0) : "c"(0) : "edx");
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return p;
  p.leaf7_ebx = b;
  p.leaf7_ecx = c;
  p.leaf7_edx = d;
  if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0) p.leaf7_1_eax = a;
#endif
  return p;
}

/// The widest instruction set that the processor and its operating system run, of those compiled up to
/// `widest_region` bits (SHUNT_WIDEST_REGION). For isa::amx the operating system must also permit it: tiles_permitted().
constexpr isa widest_isa(processor const& p, int widest_region) noexcept {
  auto const all = [](unsigned have, unsigned need) { return (have & need) == need; };
  constexpr unsigned fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29;
  constexpr unsigned bmi1 = 1u << 3, avx2 = 1u << 5, bmi2 = 1u << 8;
  if (widest_region < 256 || !all(p.leaf1_ecx, fma | osxsave | avx | f16c) ||
      !all(p.leaf7_ebx, bmi1 | avx2 | bmi2) || !all(p.xcr0, 0x6u)) {
    return isa::portable;
  }
  constexpr unsigned f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31;
  if (widest_region < 512 || !all(p.leaf7_ebx, f | dq | bw | vl) || !all(p.xcr0, 0xe6u)) {
    return isa::avx2;
  }
  constexpr unsigned vnni = 1u << 11, bf16 = 1u << 5;
  if (!all(p.leaf7_ecx, vnni)) return isa::avx512;
  if (!all(p.leaf7_1_eax, bf16)) return isa::avx512_vnni;
  constexpr unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24, amx_int8 = 1u << 25;
  constexpr unsigned tile_shapes = 1u << 17, tile_data = 1u << 18;
  bool const tiles =
      all(p.leaf7_edx, amx_bf16 | amx_tile | amx_int8) && all(p.xcr0, tile_shapes | tile_data);
  return tiles ? isa::amx : isa::avx512_bf16;
}

/// What isa::best stands for on a processor whose widest instruction set is `widest`: that one, or
/// isa::avx512_vnni where vdpbf16ps is not known to be faster than FMA on widened bf16. In the same time as an
/// FMA it does twice the work on AMD; on Sapphire Rapids a quarter of its rate is left, half of FMA's work. Never
/// isa::amx: tiles multiply at 16 times FMA's rate, but no processor has timed Shunt's yet, so they run where they are asked
/// for.
constexpr instruction_choice choose_instructions(processor const& p, isa widest) noexcept {
  if (widest == isa::amx) widest = isa::avx512_bf16;
  switch (widest) {
    case isa::best:
    case isa::portable:
      return {isa::portable, "AVX2 with FMA, F16C and BMI2 is not there, or not compiled"};
    case isa::avx2: return {widest, "AVX2 is there; AVX-512 is not, or not compiled"};
    case isa::avx512: return {widest, "AVX-512 is there; VNNI is not"};
    case isa::avx512_vnni: return {widest, "AVX-512 with VNNI is there; vdpbf16ps is not"};
    case isa::amx:
    case isa::avx512_bf16: break;
  }
  auto const vendor_is = [&](char const* name) { return __builtin_strcmp(p.vendor, name) == 0; };
  constexpr isa widened = isa::avx512_vnni;
  if (vendor_is("AuthenticAMD")) {
    if (p.family == 0x19) {
      return {widest, "AMD Zen 4: vdpbf16ps multiplies at twice the rate of FMA"};
    }
    if (p.family == 0x1a) {
      return {widest, "AMD Zen 5: vdpbf16ps multiplies at twice the rate of FMA"};
    }
    return {widest,
            "AMD, a family not measured: taken as Zen 5, vdpbf16ps at twice the rate of FMA"};
  }
  if (vendor_is("GenuineIntel") && p.family == 6) {
    switch (p.model) {
      case 0x55:
        return {widened, "Intel Cooper Lake: vdpbf16ps is not measured there, so bf16 is widened"};
      case 0x8f:
        return {widened,
                "Intel Sapphire Rapids: vdpbf16ps multiplies at half the rate of FMA, so bf16 is "
                "widened"};
      case 0xcf:
        return {widened,
                "Intel Emerald Rapids: vdpbf16ps multiplies at half the rate of FMA, so bf16 is "
                "widened"};
      case 0xad:
      case 0xae:
        return {
            widened,
            "Intel Granite Rapids: taken as Sapphire Rapids, vdpbf16ps at half the rate of FMA, "
            "so bf16 is widened"};
      default: break;
    }
  }
  if (vendor_is("GenuineIntel")) {
    return {widened,
            "Intel, a model not measured: taken as Sapphire Rapids, vdpbf16ps at half the rate of "
            "FMA, so bf16 is widened"};
  }
  return {widened, "a vendor not measured: bf16 is widened"};
}

}  // namespace SHUNT_ABI
}  // namespace host
}  // namespace shunt
