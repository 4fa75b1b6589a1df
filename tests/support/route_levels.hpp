#pragma once
#include <cstddef>
#include <iterator>
#include <vector>

#include "shunt/core/shape.hpp"
#include "support/random.hpp"

/// Logits over the whole range that a router may see, for its tests on every backend.
namespace shunt::test {

/// Where a sigmoid, its square root or a quotient of them changes its form, underflows or saturates.
inline constexpr float logit_levels[] = {-3e38f, -1e4f,  -1e3f,  -300.f, -209.f, -200.f, -175.f,
                                         -150.f, -120.f, -104.f, -100.f, -96.f,  -92.f,  -88.f,
                                         -87.f,  -60.f,  -17.5f, -17.f,  -16.f,  -1.f,   0.f,
                                         1.f,    16.f,   88.f,   100.f,  1e3f,   1e4f,   1e30f};

/// Rows of `experts` logits: at each level, narrow and wide, then rows of all levels mixed.
inline std::vector<float> logits_of_all_levels(offset_t experts) {
  rng d(11);
  std::vector<float> z;
  for (float level : logit_levels) {
    for (double spread : {0.25, 3.0, 40.0}) {
      for (offset_t e = 0; e < experts; ++e) {
        z.push_back(level + static_cast<float>(spread * d.normal()));
      }
    }
  }
  for (int row = 0; row < 60; ++row) {
    for (offset_t e = 0; e < experts; ++e) {
      z.push_back(logit_levels[d.below(std::size(logit_levels))] + static_cast<float>(d.normal()));
    }
  }
  return z;
}

}  // namespace shunt::test
