#pragma once
#include "shunt/core/compiler.hpp"

#include <concepts>
#include <cstdint>

#include "shunt/core/abi.hpp"
#include "shunt/core/shape.hpp"

namespace shunt {

/// Where and how a primitive runs. A policy names its memory; the backend that serves it is found
/// by its type.
template <class P>
concept execution = requires {
  { P::memory } -> std::convertible_to<space>;
};

/// Instruction sets of the host backend. `best` is the fastest that the processor has, decided by its vendor and
/// family (instruction_choice_of says which, and why), or what the environment variable SHUNT_ISA names (portable,
/// avx2, avx512, avx512_vnni, avx512_bf16, amx), where the processor has it. avx512_vnni is avx512 with
/// products of rows in int8 by dot products of four bytes; avx512_bf16 is that with the forward product of
/// experts, where both operands are bf16, by dot products of pairs; amx is avx512_vnni with every matrix product of two
/// bf16 operands, gradients too, by tiles. Both have other bits (docs/numerics.md), within the same bound. All else is
/// the same bits on each.
enum class isa : std::uint8_t { best, portable, avx2, avx512, avx512_vnni, avx512_bf16, amx };

/// The name of the enumerator, as SHUNT_ISA spells it.
[[nodiscard]] constexpr char const* to_string(isa which) noexcept {
  switch (which) {
    case isa::portable: return "portable";
    case isa::avx2: return "avx2";
    case isa::avx512: return "avx512";
    case isa::avx512_vnni: return "avx512_vnni";
    case isa::avx512_bf16: return "avx512_bf16";
    case isa::amx: return "amx";
    case isa::best: break;
  }
  return "best";
}

/// An engine's own thread pool, plugged in by one hook: `run` calls `body(context, w)` once for each
/// w in [0, workers), on any threads, together or one after another, and returns when all are done.
struct host_runner {
  void* self = nullptr;  ///< handed to `run`
  int workers = 1;       ///< how many workers the pool likes to be given
  /// Calls the body for every worker; returns when all are done.
  void (*run)(void* self, int workers, void (*body)(void* context, int worker),
              void* context) = nullptr;
};

inline namespace SHUNT_ABI {
/// The host backend. Results never depend on any of these three. Its full name tells what its
/// translation unit was compiled for, and so do those of all templates that take it: two units
/// compiled for different processors keep a copy each (backend/host/abi.hpp).
struct on_host {
  static constexpr space memory = space::host;  ///< where views must point
  int threads = 0;                              ///< 0: all cores (or the runner's workers)
  host_runner const* runner = nullptr;          ///< null: Shunt's own pool
  isa instructions = isa::best;                 ///< which instruction set runs; see isa
};
}  // namespace SHUNT_ABI

}  // namespace shunt
