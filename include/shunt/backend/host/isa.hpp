#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "shunt/backend/host/abi.hpp"
#include "shunt/core/policy.hpp"
#include "shunt/core/status.hpp"

namespace shunt {
namespace host {
inline namespace SHUNT_HOST_ABI {

/// The widest instruction set that this processor and its operating system run, of those compiled.
inline isa detect_isa() noexcept {
#if defined(__x86_64__) && SHUNT_WIDEST_REGION >= 256
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return isa::portable;
  constexpr unsigned fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29;
  if ((c & (fma | osxsave | avx | f16c)) != (fma | osxsave | avx | f16c)) return isa::portable;
  unsigned low = 0;
  __asm__("xgetbv" : "=a"(low) : "c"(0) : "edx");
  if ((low & 0x6u) != 0x6u) return isa::portable;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return isa::portable;
  constexpr unsigned bmi1 = 1u << 3, avx2 = 1u << 5, bmi2 = 1u << 8;
  if ((b & (bmi1 | avx2 | bmi2)) != (bmi1 | avx2 | bmi2)) return isa::portable;
#if defined(SHUNT_EMULATE_AVX512) && SHUNT_WIDEST_REGION >= 512
  return isa::avx512_bf16;
#endif
  constexpr unsigned f = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31;
  bool const wide = (b & (f | dq | bw | vl)) == (f | dq | bw | vl) && (low & 0xe0u) == 0xe0u;
  if (!wide || SHUNT_WIDEST_REGION < 512) return isa::avx2;
  unsigned const leaves = a;  // of 7, behind the first
  constexpr unsigned vnni = 1u << 11;
  if ((c & vnni) == 0) return isa::avx512;
  constexpr unsigned bf16 = 1u << 5;
  bool const dots = leaves >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & bf16) != 0;
  return dots ? isa::avx512_bf16 : isa::avx512_vnni;
#else
  return isa::portable;
#endif
}

/// What the processor has, or less where SHUNT_ISA asks for less. Read once.
inline isa available_isa() noexcept {
  static isa const found = [] {
    isa const detected = detect_isa();
    char const* const asked = std::getenv("SHUNT_ISA");
    if (asked == nullptr) return detected;
    for (isa const which :
         {isa::portable, isa::avx2, isa::avx512, isa::avx512_vnni, isa::avx512_bf16}) {
      if (std::strcmp(asked, to_string(which)) == 0) return which < detected ? which : detected;
    }
    return detected;
  }();
  return found;
}

/// The instruction set that a policy runs with: never one that the processor lacks.
inline isa resolve(isa asked) noexcept {
  isa const most = available_isa();
  return asked == isa::best || asked > most ? most : asked;
}

}  // namespace SHUNT_HOST_ABI
}  // namespace host

/// The instruction set that primitives run with under this policy: printable, and what tests check.
[[nodiscard]] inline isa instructions_of(on_host const& on) noexcept {
  return host::resolve(on.instructions);
}

inline namespace SHUNT_HOST_ABI {
/// The policy asks for nothing that this machine lacks. Each backend says it of its own policy.
[[nodiscard]] inline status check_policy(on_host const& on) noexcept {
  if (on.threads < 0) {
    return status::fail(error::bad_argument, "on_host.threads is %d; it must be 0 or more",
                        on.threads);
  }
  if (on.instructions != isa::best && host::resolve(on.instructions) != on.instructions) {
    return status::fail(error::unsupported,
                        "on_host.instructions is %s; this processor (or SHUNT_ISA) allows %s",
                        to_string(on.instructions), to_string(host::available_isa()));
  }
  if (on.runner != nullptr && (on.runner->run == nullptr || on.runner->workers < 1)) {
    return status::fail(error::bad_argument,
                        "on_host.runner has %d workers%s; it must have at least 1 and a run "
                        "function",
                        on.runner->workers, on.runner->run == nullptr ? " and no run" : "");
  }
  return {};
}
}  // namespace SHUNT_HOST_ABI

namespace check {
inline namespace SHUNT_HOST_ABI {
template <execution P> [[nodiscard]] status policy(P const& on) noexcept {
  return check_policy(on);
}
}  // namespace SHUNT_HOST_ABI
}  // namespace check
}  // namespace shunt
