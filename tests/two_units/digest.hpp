#pragma once
// One computation over the library, compiled into each translation unit of the program: what it
// answers must not depend on the flags, the instruction set or the number of threads.
#include <cstdint>
#include <vector>

#include <shunt/backend/host/regions.hpp>

#define SHUNT_REGION_FILE "two_units/kernels.inl"
#include "shunt/backend/host/for_each_region.inl"

namespace {

// Both units have their own copy: it is the library's functions that must get along.
std::uint64_t digest_on(shunt::on_host const& on) {
  constexpr std::int64_t count = 1003;
  std::vector<float> x(count), y(count);
  std::vector<shunt::bf16> b(count);
  std::vector<shunt::fp16> h(count);
  std::uint32_t draw = 1;
  for (float& v : x) {
    draw = draw * 1664525u + 1013904223u;
    v = static_cast<float>(static_cast<std::int32_t>(draw)) * 0x1p-28f;  // in (-8, 8)
  }
  return SHUNT_ISA_PICK(on, lanes_digest)(x.data(), y.data(), b.data(), h.data(), count);
}

}  // namespace
