#pragma once
#include <cmath>
#include <vector>

#include "shunt/core/numeric.hpp"
#include "support/host_configs.hpp"

namespace shunt::test {

/// What the tiles of AMX count as zero, of its sign.
inline float without_subnormal(float x) {
  return std::abs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x;
}
inline float tile_fma(float a, float b, float sum) {
  return without_subnormal(
      std::fmaf(without_subnormal(a), without_subnormal(b), without_subnormal(sum)));
}
inline float tile_add(float a, float b) {
  return without_subnormal(without_subnormal(a) + without_subnormal(b));
}

/// The definition of docs/numerics.md: of each 32 terms the even ones, the odd ones, their sum, and that onto the output's;
/// zeros behind the last term. a(i), b(i): the operands of term i.
template <class A, class B> float tile_chain(int count, A a, B b) {
  float sum = 0.0f;
  for (int first = 0; first < count; first += 32) {
    float part[2] = {0.0f, 0.0f};
    for (int i = 0; i < 32; ++i) {
      bool const there = first + i < count;
      part[i % 2] = tile_fma(there ? to_float(a(first + i)) : 0.0f,
                             there ? to_float(b(first + i)) : 0.0f, part[i % 2]);
    }
    sum = tile_add(sum, tile_add(part[0], part[1]));
  }
  return sum;
}

}  // namespace shunt::test
