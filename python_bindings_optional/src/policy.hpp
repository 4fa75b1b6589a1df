#pragma once
/// Where primitives run. One set of sources serves the host and, compiled by nvcc, CUDA.
#include <pthread.h>

#include "array.hpp"
#include "shunt/core/policy.hpp"

namespace bindings {

using policy = shunt::on_host;
inline constexpr place here = place::host;
inline constexpr shunt::space S = policy::memory;

/// A process that was forked has none of the pool's threads: it works alone, with the same bits.
inline bool& forked() noexcept {
  static bool in_child = [] {
    ::pthread_atfork(nullptr, nullptr, [] { forked() = true; });
    return false;
  }();
  return in_child;
}

/// What Python's on_host holds.
struct host_policy {
  int threads = 0;
  shunt::isa instructions = shunt::isa::best;
};

inline policy policy_of(nb::handle on) {
  policy p;
  if (!on.is_none()) {
    auto const& asked = nb::cast<host_policy const&>(on);
    p.threads = asked.threads;
    p.instructions = asked.instructions;
  }
  if (forked()) p.threads = 1;
  return p;
}

}  // namespace bindings
