#pragma once
#include "shunt/core/compiler.hpp"

#include <concepts>
#include <cstdint>
#include <type_traits>

#include "shunt/backend/host/counter.hpp"
#include "shunt/core/check.hpp"
#include "shunt/core/concepts.hpp"

/// Numbers that change from step to step and are read when a kernel runs: the optimizer's step, the
/// positions of new tokens, the router's seed and first token. A captured CUDA graph freezes every
/// argument of the host's; it advances these itself.
namespace shunt {
inline namespace SHUNT_ABI {

/// counter[i] += by, for every i; integers wrap.
/// Shapes   counter [N], any stride: int32, int64 or uint64
/// Order    after what was enqueued before it on the same stream, before what follows
/// Aliasing counter is input and output
/// Errors   null pointer, an address that is not aligned
/// Cost     one element a thread; never allocates, never synchronizes
template <execution P, output<P, 1> Counter>
[[nodiscard]] status advance(P const& on, Counter&& counter,
                             std::type_identity_t<element_t<Counter>> by = 1) noexcept {
  using number = element_t<Counter>;
  static_assert(std::same_as<number, std::int32_t> || std::same_as<number, std::int64_t> ||
                    std::same_as<number, std::uint64_t>,
                "shunt::advance: a counter is int32, int64 or uint64");
  auto const at = as_output<P, 1>(counter);
  if (status bad = first_of(check::policy(on), check::memory("advance.counter", at)); !bad.ok()) {
    return bad;
  }
  return detail::counter_backend<P>::template advance<number>(on, at, by);
}

}  // namespace SHUNT_ABI
}  // namespace shunt
