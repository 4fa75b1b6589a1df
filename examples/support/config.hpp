#pragma once
#include <cstdint>
#include <string>

#include "problem.hpp"
#include "settings.hpp"
#include "shunt/nn/model_config.hpp"

namespace lm {

/// Throws the sentence of a status that is not ok.
inline void require(shunt::status const& answer) {
  if (!answer.ok()) throw problem(answer.message());
}

/// Of a dense network as wide as `matrices` experts, and what their gate costs on top. In 64 bits: a
/// checkpoint's settings may be any numbers.
[[nodiscard]] inline int dense_intermediate(std::int64_t matrices, std::int64_t each,
                                            std::int64_t experts) {
  std::int64_t const wide = matrices * each + (experts + 2) / 3;
  if (wide < 1 || wide > std::int64_t{1} << 24) {
    throw problem("a dense model as wide as the experts is " + std::to_string(wide) +
                  " wide; it must be 1 to 2^24");
  }
  return static_cast<int>(wide);
}

/// The library's configuration of a run's model: the mixture of experts, or the dense one.
[[nodiscard]] inline shunt::nn::model_config config_of(settings const& s, bool mixed) {
  shunt::nn::model_config c;
  c.vocabulary = 256;
  c.layers = s.layers;
  c.width = s.width;
  c.heads = s.heads;
  c.kv_heads = s.kv_heads;
  c.context = s.sequence;
  c.experts = s.experts;
  c.top_k = s.top_k;
  c.intermediate = s.intermediate;
  if (s.balance == "bias") {  // as DeepSeek-V3: scores that do not compete, a bias that chooses
    c.route = {.score = shunt::score_kind::sigmoid, .gates = shunt::gate_kind::renormalized};
  }
  c.balance_loss = s.balance == "aux" ? static_cast<float>(s.aux) : 0.0f;
  if (!mixed) {
    // As wide as the active experts together, and what the gate costs on top: the dense model has no
    // fewer parameters than one byte meets in the mixture.
    c.dense = true;
    c.intermediate = dense_intermediate(s.top_k, s.intermediate, s.experts);
    c.experts = c.top_k = 1;
    c.balance_loss = 0;
  }
  require(shunt::nn::check_config(c));
  return c;
}

/// A dense model with as many parameters as the mixture has in all: each byte meets all of them.
[[nodiscard]] inline shunt::nn::model_config dense_with_all(shunt::nn::model_config c) {
  c.dense = true;
  c.intermediate = dense_intermediate(c.experts, c.intermediate, c.experts);
  return c;
}

/// What a model costs.
struct model_size {
  double parameters = 0;
  double active = 0;          ///< parameters that one byte meets
  double flops_per_byte = 0;  ///< in training: forward and backward
};

[[nodiscard]] inline model_size size_of(shunt::nn::model_config const& c) {
  return {double(shunt::nn::parameter_count(c)), double(shunt::nn::active_parameters(c)),
          3 * shunt::nn::forward_flops(c, c.context)};
}

}  // namespace lm
