#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace lm {

/// What makes a run what it is: with the same settings and the same text comes the same model, bit
/// for bit. Stored in each checkpoint.
struct settings {
  int experts = 16, top_k = 2, intermediate = 128;
  int layers = 3, width = 96, heads = 3, kv_heads = 1;
  int sequence = 128, batch = 8;
  std::int64_t steps = 2800, warm_up = 60;
  double learning_rate = 2e-3, weight_decay = 0.05, clip = 1.0;
  std::uint64_t seed = 1;
  std::string balance = "bias";  ///< aux, bias or none
  double aux = 0.01;             ///< weight of the auxiliary loss
  double bias_rate = 0.005;      ///< step of the balancing bias at the highest learning rate
  bool bf16 = false;
  std::uint64_t domain_bytes = 1'000'000;
  std::vector<std::string> text;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(settings, experts, top_k, intermediate, layers, width, heads,
                                   kv_heads, sequence, batch, steps, warm_up, learning_rate,
                                   weight_decay, clip, seed, balance, aux, bias_rate, bf16,
                                   domain_bytes, text)

/// What a run has seen so far: the curves of the report.
struct history {
  // Every few steps of the training.
  std::vector<std::int64_t> step;
  std::vector<double> loss, rate, gradient_norm, seconds;
  // Every few hundred: bits per byte of held-out text.
  std::vector<std::int64_t> eval_step;
  std::vector<double> eval_bits;
  // Expert load: shares of the slots since the last sample, [sample][layer][expert].
  std::vector<std::int64_t> load_step;
  std::vector<std::vector<std::vector<double>>> load;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(history, step, loss, rate, gradient_norm, seconds, eval_step,
                                   eval_bits, load_step, load)

}  // namespace lm
