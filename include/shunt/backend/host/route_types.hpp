#pragma once
#include <cstdint>

#include "shunt/core/shape.hpp"
#include "shunt/route/options.hpp"

namespace shunt::host {

inline constexpr std::int64_t route_strip = 32;  // the strip of lanes.inl: rows are padded to it
constexpr std::int64_t strips_of(std::int64_t n) noexcept {
  return (n + route_strip - 1) / route_strip * route_strip;
}

/// What the kernels need to know of a call, worked out once.
struct route_rule {
  std::int64_t experts = 0, top_k = 0;
  std::int64_t padded = 0, padded_k = 0;  ///< both, up to whole strips
  score_kind score = score_kind::softmax;
  gate_kind gates = gate_kind::raw;
  float scale = 1.0f, epsilon = 0.0f;
  std::int64_t groups = 1, top_groups = 1;
  group_rule group_by = group_rule::best;
  float jitter = 0.0f;
  bool random_second = false;

  float const* choice_bias = nullptr;
  /// Renormalised softmax without epsilon is the softmax of the chosen logits: no other logit matters.
  bool chosen_logits = false;
  bool choose_by_score = false;  ///< else by the logit: the same order, never rounded to a tie
  bool exponentials = false;     ///< the softmax denominator is needed
  bool scores = false;           ///< every expert's score is needed
  bool importance = false, z = false;

  std::int64_t bins = 0;  ///< of the histogram; 0: none wanted
  float lowest = 0.0f, bins_per_unit = 0.0f;
};

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
