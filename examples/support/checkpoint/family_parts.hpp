#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "config.hpp"
#include "quantization.hpp"
#include "shunt/experts.hpp"
#include "shunt/route/presets.hpp"

namespace checkpoint {

/// Where a layer's tensors stand: PREFIX layers.N. BLOCK and then the names here.
struct naming {
  std::string_view block, gate = "gate.weight";
  std::string_view choice_bias = "gate.e_score_correction_bias";  ///< where the preset has one
};

/// What a config.json says of a mixture-of-experts layer, before any tensor is looked at.
struct layer_plan {
  shunt::preset preset{};  ///< sizes and routing from the configuration; the name is the family's
  shunt::activation act = shunt::activation_kind::swiglu;
  std::vector<naming> namings;        ///< the published one, then that of transformers' modules
  std::string_view shared = {};       ///< the block of the shared expert
  std::string_view unread = {};       ///< a tensor that the reference does not compute with either
  bool transposed = false;            ///< matrices of all experts in one tensor lie [E,K,N]
  std::uint64_t block_rows = 128;     ///< an fp8 scale is that of so many rows ...
  std::uint64_t block_columns = 128;  ///< ... and columns
  quantization quantized{};
};

/// What the reference's configuration class (transformers' configuration_*.py) holds of keys that a
/// config.json leaves out. Sizes and the number of chosen experts have no default here: without them
/// a file is refused.
struct key_defaults {
  bool norm_topk_prob = true;
  float routed_scaling_factor = 1.0f;
  shunt::index_t n_group = 1, topk_group = 1;
  shunt::index_t n_shared_experts = 1;
};

namespace detail {

inline constexpr std::string_view before_layers[] = {
    "model.", "language_model.model.", "model.language_model.", "backbone.", "", "language_model."};

/// The sizes that every family has, under the keys of this one.
inline void sizes(layer_plan& p, config const& c, char const* experts, char const* intermediate,
                  char const* top_k = "num_experts_per_tok") {
  p.preset.sizes.hidden = c.count("hidden_size");
  p.preset.sizes.experts = c.count(experts);
  p.preset.sizes.intermediate = c.count(intermediate);
  p.preset.sizes.top_k = c.count(top_k);
}

inline void renormalize(layer_plan& p, bool yes, float epsilon = 0.0f) {
  p.preset.route.gates = yes ? shunt::gate_kind::renormalized : shunt::gate_kind::raw;
  p.preset.route.epsilon = yes ? epsilon : 0.0f;
}

inline void scale(layer_plan& p, config const& c, float otherwise) {
  p.preset.route.scale = c.number_or("routed_scaling_factor", otherwise);
}

inline void chosen_fit(layer_plan const& p, config const& c) {
  if (p.preset.sizes.top_k <= p.preset.sizes.experts) return;
  c.refuse("it chooses " + std::to_string(p.preset.sizes.top_k) + " experts of " +
           std::to_string(p.preset.sizes.experts));
}

/// After sizes(). Refused here, as the router would at the first run: groups that are not equal, and
/// fewer experts in the chosen ones than each token takes.
inline void groups(layer_plan& p, config const& c, shunt::group_rule by, char const* key,
                   shunt::index_t groups_otherwise, shunt::index_t top_otherwise) {
  shunt::index_t const groups = c.count_or(key, groups_otherwise);
  if (groups == 1) return;
  chosen_fit(p, c);
  auto const text = [](shunt::index_t n) { return std::to_string(n); };
  shunt::index_t const experts = p.preset.sizes.experts, chosen = p.preset.sizes.top_k;
  if (groups > experts || experts % groups != 0) {
    c.refuse(key + (" is " + text(groups)) + "; it must divide the number of experts, " +
             text(experts));
  }
  shunt::index_t const top = c.count_or("topk_group", top_otherwise);
  if (top > groups) {
    c.refuse("topk_group is " + text(top) + "; there are " + text(groups) + " groups");
  }
  if (shunt::index_t const held = experts / groups * top; held < chosen) {
    c.refuse("topk_group is " + text(top) + ", and so many groups hold " + text(held) +
             " experts; they must hold the " + text(chosen) + " that each token takes");
  }
  p.preset.route.groups = groups;
  p.preset.route.top_groups = top;
  p.preset.route.group_by = by;
}

/// So many shared ones, each as wide as a routed one. After sizes().
inline void shared_experts(layer_plan& p, config const& c, char const* key,
                           shunt::index_t otherwise) {
  shunt::index_t const shared = c.count_or_none(key, otherwise);
  if (shared == 0) return;
  auto const width = std::int64_t{shared} * p.preset.sizes.intermediate;
  if (width >= std::int64_t{1} << 31) c.refuse(std::string(key) + " makes them too wide");
  p.preset.shared_experts = shared;
  p.preset.shared_intermediate = static_cast<shunt::index_t>(width);
  p.shared = "shared_experts.";
}

}  // namespace detail
}  // namespace checkpoint
