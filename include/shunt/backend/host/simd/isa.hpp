#pragma once
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#endif

#include "shunt/backend/host/simd/processor.hpp"
#include "shunt/core/abi.hpp"
#include "shunt/core/policy.hpp"
#include "shunt/core/status.hpp"

namespace shunt {
namespace host {
inline namespace SHUNT_ABI {

/// Asks Linux, for the whole process, that its threads may use tiles. It refuses where a thread has an alternate signal
/// stack that is too small for them, in some sandboxes, and before 5.16; it refuses small alternate stacks afterwards.
inline bool tiles_permitted() noexcept {
#if defined(__x86_64__) && defined(__linux__) && defined(SYS_arch_prctl)
  constexpr long request_permission = 0x1023, tile_data = 18;
  int const before = errno;
  long const refused = syscall(SYS_arch_prctl, request_permission, tile_data);
  errno = before;
  return refused == 0;
#else
  return false;
#endif
}

/// The widest instruction set, up to `most`, that this processor and its operating system run, of those compiled.
inline isa detect_isa(isa most = isa::amx) noexcept {
  isa widest = widest_isa(this_processor(), SHUNT_WIDEST_REGION);
  if (widest == isa::amx && (most < isa::amx || !tiles_permitted())) widest = isa::avx512_bf16;
#if defined(SHUNT_EMULATE_AVX512) && SHUNT_WIDEST_REGION >= 512
  if (widest >= isa::avx2 && widest < isa::avx512_bf16) widest = isa::avx512_bf16;
#endif
#if defined(SHUNT_EMULATE_AMX) && SHUNT_WIDEST_REGION >= 512
  if (widest >= isa::avx512 && widest < isa::amx && ::shunt::test::tiles::emulate()) {
    widest = isa::amx;
  }
#endif
  return widest < most ? widest : most;
}

/// What SHUNT_ISA asks for; isa::best where it is not set, or names none.
inline isa environment_isa() noexcept {
  char const* const asked = std::getenv("SHUNT_ISA");
  for (isa const which :
       {isa::portable, isa::avx2, isa::avx512, isa::avx512_vnni, isa::avx512_bf16, isa::amx}) {
    if (asked != nullptr && std::strcmp(asked, to_string(which)) == 0) return which;
  }
  return isa::best;
}

/// What a policy may ask for, and what isa::best takes.
struct instruction_limits {
  isa available;
  instruction_choice best;
};
/// Of a processor that has `detected`, where SHUNT_ISA asks for `asked` (isa::best: for nothing).
constexpr instruction_limits limits_of(processor const& p, isa detected, isa asked) noexcept {
  if (asked == isa::best) return {detected, choose_instructions(p, detected)};
  if (asked <= detected) return {asked, {asked, "SHUNT_ISA asks for it"}};
  return {detected, {detected, "SHUNT_ISA asks for more than is there, or compiled"}};
}
inline instruction_limits read_instruction_limits() noexcept {
  isa const asked = environment_isa();
  isa const detected = detect_isa(asked == isa::best ? isa::amx : asked);  // tiles only where asked
#if defined(SHUNT_EMULATE_AVX512)
  if (asked == isa::best && detected >= isa::avx512_bf16) {
    return {detected, {isa::avx512_bf16, "AVX-512 is emulated"}};
  }
#endif
  return limits_of(this_processor(), detected, asked);
}
/// Read once.
inline instruction_limits const& instructions_here() noexcept {
  static instruction_limits const limits = read_instruction_limits();
  return limits;
}

/// What the processor has, or less where SHUNT_ISA asks for less: the most that a policy may ask for.
inline isa available_isa() noexcept { return instructions_here().available; }

/// What isa::best stands for: the fastest of what is available, by vendor and family of the processor, or
/// what SHUNT_ISA asks for.
inline isa preferred_isa() noexcept { return instructions_here().best.instructions; }

/// The instruction set that a policy runs with: never one that the processor lacks.
inline isa resolve(isa asked) noexcept {
  if (asked == isa::best) return preferred_isa();
  isa const most = available_isa();
  return asked > most ? most : asked;
}

}  // namespace SHUNT_ABI
}  // namespace host

/// The instruction set that primitives run with under this policy: printable, and what tests check.
[[nodiscard]] inline isa instructions_of(on_host const& on) noexcept {
  return host::resolve(on.instructions);
}

/// The same, and why: for a log. Example: avx512_vnni, "Intel Sapphire Rapids: vdpbf16ps multiplies at half the
/// rate of FMA, so bf16 is widened".
[[nodiscard]] inline instruction_choice instruction_choice_of(on_host const& on) noexcept {
  if (on.instructions == isa::best) return host::instructions_here().best;
  isa const which = host::resolve(on.instructions);
  return {which, which == on.instructions
                     ? "on_host.instructions asks for it"
                     : "on_host.instructions asks for more than is there, or compiled"};
}

inline namespace SHUNT_ABI {
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
}  // namespace SHUNT_ABI

namespace check {
inline namespace SHUNT_ABI {
template <execution P> [[nodiscard]] status policy(P const& on) noexcept {
  return check_policy(on);
}
}  // namespace SHUNT_ABI
}  // namespace check
}  // namespace shunt
