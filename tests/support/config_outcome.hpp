#pragma once
#include <string>

#include "../../examples/support/checkpoint/family.hpp"
#include "../../examples/support/config.hpp"

namespace shunt::test {
namespace config_outcome {

using nlohmann::json;

/// The plan in words, or the sentence with which the configuration is refused.
inline std::string outcome(std::string const& text) {
  try {
    checkpoint::layer_plan const p = checkpoint::plan_of(checkpoint::config("config.json", text));
    preset const& is = p.preset;
    route_options const& r = is.route;
    json const all = {is.name,
                      is.sizes.hidden,
                      is.sizes.intermediate,
                      is.sizes.experts,
                      is.sizes.top_k,
                      {r.score, r.gates, r.scale, r.epsilon, r.groups, r.top_groups, r.group_by},
                      {r.zero_experts, r.gate_on_input},
                      {is.activation, is.activation_limit, p.act.a, p.act.b},
                      {is.choice, is.balance, is.choice_bias, is.gate_bias, is.expert_biases},
                      {is.interleaved, is.model_hidden, is.shared_experts, is.shared_intermediate},
                      {is.shared_gate, p.shared, p.transposed, p.block_rows, p.block_columns}};
    return all.dump();
  } catch (lm::problem const& refused) { return refused.what(); }
}
inline std::string outcome(json const& config) { return outcome(config.dump()); }

inline bool contains(std::string const& text, std::string const& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace config_outcome
}  // namespace shunt::test
