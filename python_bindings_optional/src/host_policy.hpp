#pragma once
/// What Python's on_host comes to.
#include <nanobind/nanobind.h>
#include <pthread.h>

#include "shunt/core/policy.hpp"

namespace bindings {
namespace nb = nanobind;

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

inline shunt::on_host host_policy_of(nb::handle on) {
  shunt::on_host p;
  if (!on.is_none()) {
    auto const& asked = nb::cast<host_policy const&>(on);
    p.threads = asked.threads;
    p.instructions = asked.instructions;
  }
  if (forked()) p.threads = 1;
  return p;
}

}  // namespace bindings
