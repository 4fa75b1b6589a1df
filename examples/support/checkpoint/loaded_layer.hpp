#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

#include "any_layer.hpp"
#include "assemble.hpp"
#include "config.hpp"
#include "layer_tensors.hpp"
#include "shards.hpp"

namespace checkpoint {

/// Storage type of tokens and experts, and of the gate: its own where that is the experts' or float,
/// else float (widening is exact).
using plain_weights =
    std::variant<layer_weights<float, float>, layer_weights<shunt::bf16, shunt::bf16>,
                 layer_weights<shunt::bf16, float>, layer_weights<shunt::fp16, shunt::fp16>,
                 layer_weights<shunt::fp16, float>>;
/// These, and bf16 tokens with experts in a format: the last type is theirs.
using stored_weights =
    std::variant<layer_weights<float, float>, layer_weights<shunt::bf16, shunt::bf16>,
                 layer_weights<shunt::bf16, float>, layer_weights<shunt::fp16, shunt::fp16>,
                 layer_weights<shunt::fp16, float>,
                 layer_weights<shunt::bf16, shunt::bf16, shunt::fp8_block>,
                 layer_weights<shunt::bf16, float, shunt::fp8_block>,
                 layer_weights<shunt::bf16, shunt::bf16, shunt::mxfp4>,
                 layer_weights<shunt::bf16, float, shunt::mxfp4>>;

struct load_settings {
  bool widen = false;   ///< weights in scaled blocks become float, not bf16 (loaded_layer)
  shunt::on_host on{};  ///< packs those that stay as they are stored (stored_layer)
};

/// A mixture-of-experts layer of a published checkpoint, ready for moe_layer. It holds the mapping of
/// the files that its weights lie in; it can be moved.
template <class Weights> class basic_loaded_layer : public any_layer {
 public:
  basic_loaded_layer(shards files, config const& about, shunt::index_t layer,
                     load_settings const& settings = {})
      : any_layer(std::move(files), about) {
    if (layer < 0) about.refuse("layer " + std::to_string(layer) + " was asked for");
    layer_tensors const tensors(files_, plan_, static_cast<std::uint64_t>(layer));
    load(tensors, settings);
    if (tensors.has("gate.tid2eid")) read_table(tensors);
  }

  /// Calls f with the moe_weights, of whatever types.
  template <class F> decltype(auto) visit(F&& f) const {
    return std::visit([&](auto const& w) -> decltype(auto) { return f(w.weights); }, weights_);
  }

 private:
  void load(layer_tensors const& tensors, load_settings const& settings) {
    tensor const& first = first_of_experts(tensors);
    bool const plain = layer_tensors::plain(first);
    if constexpr (std::is_same_v<Weights, stored_weights>) {
      if (first.kind.starts_with("F8"))
        return with_gate<shunt::bf16, shunt::fp8_block>(tensors, settings);
      if (!plain) return with_gate<shunt::bf16, shunt::mxfp4>(tensors, settings);
    }
    std::string_view const decoded = settings.widen ? "F32" : "BF16";
    std::string_view const kind = plain ? std::string_view(first.kind) : decoded;
    if (kind == "F32") return with_gate<float>(tensors, settings);
    if (kind == "BF16") return with_gate<shunt::bf16>(tensors, settings);
    with_gate<shunt::fp16>(tensors, settings);
  }
  template <class T, class W = T>
  void with_gate(layer_tensors const& tensors, load_settings const& settings) {
    auto const make = [&]<class G>(G) {
      auto made = assembler<T, G, W>(tensors, plan_, used_, settings.on).all();
      bytes_owned_ += made.own.bytes();
      weights_ = std::move(made);
    };
    bool const same = tensors.any(std::string(tensors.names().gate)).kind == kind_of<T>;
    same ? make(T{}) : make(0.0f);
  }
  /// Its type is that of all experts.
  [[nodiscard]] tensor const& first_of_experts(layer_tensors const& tensors) const {
    std::string const fused = shunt::gated(plan_.act) ? "experts.gate_up_proj" : "experts.up_proj";
    for (std::string const& name : {fused + "_blocks", fused, std::string("experts.0.w1.weight")}) {
      if (tensors.has(name)) return tensors.any(name);
    }
    return tensors.any("experts.0.up_proj.weight");
  }

  Weights weights_;
};

using loaded_layer = basic_loaded_layer<plain_weights>;
using stored_layer = basic_loaded_layer<stored_weights>;

/// Layer `layer` of the checkpoint in `folder`: config.json beside its safetensors. Weights in scaled
/// blocks are decoded.
[[nodiscard]] inline loaded_layer load_layer(std::filesystem::path const& folder,
                                             shunt::index_t layer,
                                             load_settings const& settings = {}) {
  return {shards(folder), config::of_folder(folder), layer, settings};
}

/// The same with experts' weights as they are stored, for inference: fp8 and mxfp4 packed, by `on`,
/// without being decoded. Refused: experts (shared ones too) that are not all of one format, fp8 that
/// is not e4m3 with a scale for each 128 x 128.
[[nodiscard]] inline stored_layer load_stored_layer(std::filesystem::path const& folder,
                                                    shunt::index_t layer,
                                                    shunt::on_host const& on = {}) {
  return {shards(folder), config::of_folder(folder), layer, {.on = on}};
}

}  // namespace checkpoint
