#pragma once
#include <cstdlib>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "shunt/backend/host/simd/isa.hpp"
#include "shunt/core/numeric.hpp"
#include "shunt/core/policy.hpp"

namespace shunt::test {

/// Every instruction set that this machine can run: each test runs on each. But isa::amx, all of whose products of two
/// bf16 operands have other bits: see tile_configs.
[[nodiscard]] inline std::vector<isa> instruction_sets() {
  std::vector<isa> sets{isa::portable};
  for (isa which : {isa::avx2, isa::avx512, isa::avx512_vnni, isa::avx512_bf16}) {
    if (host::available_isa() >= which) sets.push_back(which);
  }
  return sets;
}

/// One thread on each instruction set, then 2 and 7 threads on the best but for tiles: results must be equal.
[[nodiscard]] inline std::vector<on_host> host_configs() {
  std::vector<on_host> configs;
  for (isa which : instruction_sets()) configs.push_back({.threads = 1, .instructions = which});
  bool const tiles = host::preferred_isa() == isa::amx;
  for (int threads : {2, 7}) {
    configs.push_back({.threads = threads, .instructions = tiles ? isa::avx512_vnni : isa::best});
  }
  return configs;
}

/// By tiles, with 1, 2 and 7 threads, where this machine has or emulates them.
[[nodiscard]] inline std::vector<on_host> tile_configs() {
  std::vector<on_host> configs;
  if (host::available_isa() != isa::amx) return configs;
  for (int threads : {1, 2, 7}) configs.push_back({.threads = threads, .instructions = isa::amx});
  return configs;
}

/// Of products whose bits tiles do not change.
[[nodiscard]] inline std::vector<on_host> host_and_tile_configs() {
  std::vector<on_host> configs = host_configs();
  for (on_host const& on : tile_configs()) configs.push_back(on);
  return configs;
}

/// The same configs, in groups that promise the same bits of forward products of experts where both operands
/// are T: a processor with dot products of bf16 has two kinds of arithmetic for them (contract 2).
template <class T> [[nodiscard]] std::vector<std::vector<on_host>> host_arithmetics() {
  std::vector<on_host> const all = host_configs();
  if (!std::is_same_v<T, bf16> || host::available_isa() < isa::avx512_bf16) return {all};
  std::vector<on_host> dots, chains;
  for (on_host on : all) {
    if (on.instructions != isa::avx512_bf16) {
      chains.push_back(on);
      if (on.threads > 1) chains.back().instructions = isa::avx512_vnni;
    }
    if (on.threads == 1 && on.instructions != isa::avx512_bf16) continue;
    on.instructions = isa::avx512_bf16;  // also where isa::best leaves it out
    dots.push_back(on);
  }
  return {chains, dots};
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
