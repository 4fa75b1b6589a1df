#pragma once
#include <vector>

#include "shunt/route/options.hpp"

namespace shunt::test {

/// Every score with every kind of gates that it takes.
inline std::vector<route_options> score_options() {
  std::vector<route_options> all;
  for (score_kind score : {score_kind::softmax, score_kind::sigmoid, score_kind::sqrt_softplus}) {
    for (gate_kind gates : {gate_kind::raw, gate_kind::renormalized, gate_kind::softmax_chosen}) {
      all.push_back({.score = score, .gates = gates});
    }
  }
  all.push_back({.score = score_kind::logits, .gates = gate_kind::softmax_chosen});
  return all;
}

}  // namespace shunt::test
