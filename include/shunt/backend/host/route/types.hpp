#pragma once
#include <cstdint>

#include "shunt/core/shape.hpp"
#include "shunt/route/rules.hpp"

namespace shunt::host {

using shunt::detail::route_strip;
using shunt::detail::strips_of;

using shunt::detail::route_rule;

/// One worker's rows, padded to whole strips.
struct route_buffers {
  float *z = nullptr, *s = nullptr, *key = nullptr, *noise = nullptr;  // [E]
  float *group = nullptr, *load = nullptr;                             // [E]
  float *peaks = nullptr, *group_peaks = nullptr;                      // [E / 32]
  float *chosen = nullptr, *gate = nullptr, *slope = nullptr;          // [K]
  index_t *id = nullptr, *group_id = nullptr, *bin = nullptr;          // [K], [E], [E]
};

/// What a row turned out to be.
struct route_facts {
  float peak = 0.0f;   ///< largest logit; -Inf where all are masked
  float total = 0.0f;  ///< sum of exp(logit - peak)
  float z = 0.0f;      ///< log of the sum of exp(logit)
  float cutoff = 0.0f;
  std::int32_t non_finite = 0;
  bool second_dropped = false;
};

}  // namespace shunt::host
