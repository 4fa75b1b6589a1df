#pragma once
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "shunt/backend/host/isa.hpp"
#include "shunt/core/policy.hpp"

namespace shunt::test {

/// Every instruction set that this machine can run: each test runs on each.
[[nodiscard]] inline std::vector<isa> instruction_sets() {
  std::vector<isa> sets{isa::portable};
  for (isa which : {isa::avx2, isa::avx512}) {
    if (host::available_isa() >= which) sets.push_back(which);
  }
  return sets;
}

/// One thread on each instruction set, then 2 and 7 threads on the best: results must be equal.
[[nodiscard]] inline std::vector<on_host> host_worlds() {
  std::vector<on_host> worlds;
  for (isa which : instruction_sets()) worlds.push_back({.threads = 1, .instructions = which});
  for (int threads : {2, 7}) worlds.push_back({.threads = threads});
  return worlds;
}

[[nodiscard]] inline std::string name_of(on_host const& on) {
  return std::string(to_string(instructions_of(on))) + " with " + std::to_string(on.threads) +
         " threads";
}

/// SHUNT_TEST_SCALE=small: slow builds (sanitizers) take smaller sizes and fewer repetitions.
[[nodiscard]] inline bool small_scale() {
  char const* const scale = std::getenv("SHUNT_TEST_SCALE");
  return scale != nullptr && std::strcmp(scale, "small") == 0;
}

}  // namespace shunt::test
