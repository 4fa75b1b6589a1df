#pragma once
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "any_layer.hpp"
#include "assemble.hpp"
#include "config.hpp"
#include "layer_tensors.hpp"
#include "shards.hpp"

namespace checkpoint {

/// Storage type of tokens, experts and all else but the router: float where these are not all of one
/// type (widening is exact). And of the gate: its own where that is the experts' or float, else
/// float.
using plain_weights =
    std::variant<layer_weights<float, float>, layer_weights<shunt::bf16, shunt::bf16>,
                 layer_weights<shunt::bf16, float>, layer_weights<shunt::fp16, shunt::fp16>,
                 layer_weights<shunt::fp16, float>>;
/// These, and bf16 tokens (fp16 where the gate of integers is) with experts in a format: the last type is
/// theirs.
using stored_weights =
    std::variant<layer_weights<float, float>, layer_weights<shunt::bf16, shunt::bf16>,
                 layer_weights<shunt::bf16, float>, layer_weights<shunt::fp16, shunt::fp16>,
                 layer_weights<shunt::fp16, float>,
                 layer_weights<shunt::bf16, shunt::bf16, shunt::fp8_block>,
                 layer_weights<shunt::bf16, float, shunt::fp8_block>,
                 layer_weights<shunt::bf16, shunt::bf16, shunt::mxfp4>,
                 layer_weights<shunt::bf16, float, shunt::mxfp4>,
                 layer_weights<shunt::bf16, shunt::bf16, shunt::nvfp4>,
                 layer_weights<shunt::bf16, float, shunt::nvfp4>,
                 layer_weights<shunt::bf16, shunt::bf16, shunt::int4_group<32>>,
                 layer_weights<shunt::bf16, float, shunt::int4_group<32>>,
                 layer_weights<shunt::fp16, shunt::fp16, shunt::int4_group<32>>,
                 layer_weights<shunt::bf16, shunt::bf16, shunt::int4_group<128>>,
                 layer_weights<shunt::bf16, float, shunt::int4_group<128>>,
                 layer_weights<shunt::fp16, shunt::fp16, shunt::int4_group<128>>>;

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
    tensors.must_be_all(used_);
  }

  /// Calls f with the moe_weights, of whatever types.
  template <class F> decltype(auto) visit(F&& f) const {
    return std::visit([&](auto const& w) -> decltype(auto) { return f(w.weights); }, weights_);
  }

 private:
  void load(layer_tensors const& tensors, load_settings const& settings) {
    std::vector<tensor const*> const all = tensors.of_one_type();
    auto const stored = std::find_if(all.begin(), all.end(), in_blocks);
    if constexpr (std::is_same_v<Weights, stored_weights>) {
      tensor const& first = first_of_experts(tensors);
      if (in_blocks(&first)) {
        if (first.kind.starts_with("F8"))
          return with_gate<shunt::bf16, shunt::fp8_block>(tensors, settings);
        if (first.kind == "I32") return integers(tensors, first, settings);
        if (plan_.quantized.by != quantization::kind::blocks) {
          return with_gate<shunt::bf16, shunt::nvfp4>(tensors, settings);
        }
        return with_gate<shunt::bf16, shunt::mxfp4>(tensors, settings);
      }
      if (stored != all.end()) {
        tensors.refuse("tensor " + quotable((*stored)->name) + " is " + (*stored)->kind +
                       "; as stored, experts are all of one format, as tensor " +
                       quotable(first.name) + ", " + quotable(first.kind) +
                       ". Load the layer as bf16 or float instead");
      }
    }
    // One type for all: their own, what blocks are decoded to, or float, which holds all of them.
    std::string_view kind;
    if (stored != all.end()) kind = settings.widen ? kind_of<float> : kind_of<shunt::bf16>;
    for (tensor const* t : all) {
      if (!layer_tensors::plain(*t)) continue;
      kind = kind.empty() || kind == t->kind ? std::string_view(t->kind) : kind_of<float>;
    }
    if (kind == kind_of<shunt::bf16>) return with_gate<shunt::bf16>(tensors, settings);
    if (kind == kind_of<shunt::fp16>) return with_gate<shunt::fp16>(tensors, settings);
    with_gate<float>(tensors, settings);
  }
  [[nodiscard]] static bool in_blocks(tensor const* t) noexcept {
    std::string_view const k = t->kind;
    return k == "F8_E4M3" || k == "F8_E5M2" || k == "I8" || k == "U8" || k == "F4" || k == "I32";
  }
  void integers(layer_tensors const& tensors, tensor const& first, load_settings const& settings) {
    if (plan_.quantized.group == 32) return integers<32>(tensors, settings);
    if (plan_.quantized.group == 128) return integers<128>(tensors, settings);
    tensors.refuse("tensor " + quotable(first.name) +
                   " is in other groups than 32 or 128; as stored, int4 experts have one of them. "
                   "Load the layer as bf16 or float instead");
  }
  template <int Group> void integers(layer_tensors const& tensors, load_settings const& settings) {
    using format = shunt::int4_group<Group>;
    if (tensors.any(std::string(tensors.names().gate)).kind != kind_of<shunt::fp16>) {
      return with_gate<shunt::bf16, format>(tensors, settings);
    }
    auto made =
        assembler<shunt::fp16, shunt::fp16, format>(tensors, plan_, used_, settings.on).all();
    bytes_owned_ += made.own.bytes();
    weights_ = std::move(made);
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
  /// Its format is to be that of all experts.
  [[nodiscard]] tensor const& first_of_experts(layer_tensors const& tensors) const {
    std::string const fused = shunt::gated(plan_.act) ? "experts.gate_up_proj" : "experts.up_proj";
    for (std::string const& name : {fused + "_blocks", fused}) {
      if (tensors.has(name)) return tensors.any(name);
    }
    for (std::string const part : {"experts.0.w1", "experts.0.up_proj"}) {
      for (char const* name : {".weight", ".qweight", ".weight_packed"}) {
        if (tensors.has(part + name)) return tensors.any(part + name);
      }
    }
    return tensors.any("experts.0.up_proj.weight");
  }

  Weights weights_;
};

using loaded_layer = basic_loaded_layer<plain_weights>;
using stored_layer = basic_loaded_layer<stored_weights>;

/// Layer `layer` of the checkpoint in `folder`: config.json beside its safetensors. Weights in scaled
/// blocks are decoded. Refused: a layer of which a tensor would not be used.
[[nodiscard]] inline loaded_layer load_layer(std::filesystem::path const& folder,
                                             shunt::index_t layer,
                                             load_settings const& settings = {}) {
  return {shards(folder), config::of_folder(folder), layer, settings};
}

/// The same with experts' weights as they are stored, for inference: fp8, mxfp4, nvfp4 and int4 packed,
/// by `on`, without being decoded. Refused: experts (shared ones too) that are not all of one format, fp8 that
/// is not e4m3 with a scale for each 128 x 128.
[[nodiscard]] inline stored_layer load_stored_layer(std::filesystem::path const& folder,
                                                    shunt::index_t layer,
                                                    shunt::on_host const& on = {}) {
  return {shards(folder), config::of_folder(folder), layer, {.on = on}};
}

}  // namespace checkpoint
