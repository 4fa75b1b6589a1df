#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "assemble.hpp"
#include "config.hpp"
#include "family.hpp"
#include "layer_tensors.hpp"
#include "shards.hpp"
#include "shunt/layer/options.hpp"
#include "used_tensors.hpp"

namespace checkpoint {

struct load_settings {
  bool widen = false;  ///< weights in scaled blocks become float, not bf16
};

/// A mixture-of-experts layer of a published checkpoint, ready for moe_layer. It holds the mapping of
/// the files that its weights lie in; it can be moved.
class loaded_layer {
 public:
  /// Storage type of tokens and experts, and of the gate: its own where that is the experts' or float,
  /// else float (widening is exact).
  using any_weights =
      std::variant<layer_weights<float, float>, layer_weights<shunt::bf16, shunt::bf16>,
                   layer_weights<shunt::bf16, float>, layer_weights<shunt::fp16, shunt::fp16>,
                   layer_weights<shunt::fp16, float>>;
  using options_type = shunt::layer_options<shunt::activation>;

  loaded_layer(shards files, config const& about, shunt::index_t layer, load_settings settings = {})
      : files_(std::move(files)), plan_(plan_of(about)) {
    if (layer < 0) about.refuse("layer " + std::to_string(layer) + " was asked for");
    layer_tensors const tensors(files_, plan_, static_cast<std::uint64_t>(layer));
    std::string_view const gate = tensors.any(std::string(tensors.names().gate)).kind;
    std::string_view const kind = kind_of_experts(tensors, settings);
    auto const make = [&]<class T, class G>(T, G) {
      weights_ = assembler<T, G>(tensors, plan_, used_).all();
    };
    if (kind == "F32") {
      make(0.0f, 0.0f);
    } else if (kind == "BF16") {
      gate == kind ? make(shunt::bf16{}, shunt::bf16{}) : make(shunt::bf16{}, 0.0f);
    } else {
      gate == kind ? make(shunt::fp16{}, shunt::fp16{}) : make(shunt::fp16{}, 0.0f);
    }
    if (tensors.has("gate.tid2eid")) read_table(tensors);
  }

  /// Its sizes and its routing; the name is the family's.
  [[nodiscard]] shunt::preset const& preset() const noexcept { return plan_.preset; }
  [[nodiscard]] shunt::index_t width() const noexcept {
    return preset().model_hidden > 0 ? preset().model_hidden : preset().sizes.hidden;
  }
  /// What moe_layer is to be called with. Of a layer that chooses by a table (DeepSeek-V4's first
  /// ones) `ids` is the table; `token`, the tokens' vocabulary ids, is the caller's.
  [[nodiscard]] options_type options() const noexcept {
    options_type o;
    o.top_k = preset().sizes.top_k;
    o.route = preset().route;
    o.act = plan_.act;
    if (by_token()) {
      o.ids = shunt::view<shunt::index_t const, 2>(table_.data(), {{vocabulary(), o.top_k}});
    }
    return o;
  }
  [[nodiscard]] bool by_token() const noexcept { return !table_.empty(); }
  [[nodiscard]] shunt::index_t vocabulary() const noexcept {
    return static_cast<shunt::index_t>(table_.size()) / preset().sizes.top_k;
  }

  /// Calls f with the moe_weights, of whatever types.
  template <class F> decltype(auto) visit(F&& f) const {
    return std::visit([&](auto const& w) -> decltype(auto) { return f(w.weights); }, weights_);
  }
  [[nodiscard]] used_tensors const& used() const noexcept { return used_; }
  /// Memory that was needed for what is not used where it lies.
  [[nodiscard]] std::uint64_t bytes_owned() const noexcept {
    return std::visit([](auto const& w) { return w.own.bytes(); }, weights_) +
           table_.size() * sizeof(shunt::index_t);
  }

 private:
  [[nodiscard]] std::string_view kind_of_experts(layer_tensors const& tensors,
                                                 load_settings settings) const {
    bool const gated = shunt::gated(plan_.act);
    std::string const fused = gated ? "experts.gate_up_proj" : "experts.up_proj";
    char const* const converted = settings.widen ? "F32" : "BF16";
    if (tensors.has(fused + "_blocks")) return converted;
    std::string name = fused;
    if (!tensors.has(fused)) {
      name =
          tensors.has("experts.0.w1.weight") ? "experts.0.w1.weight" : "experts.0.up_proj.weight";
    }
    tensor const& first = tensors.any(name);
    return layer_tensors::plain(first) ? std::string_view(first.kind) : converted;
  }

  void read_table(layer_tensors const& tensors) {
    tensor const& t = tensors.any("gate.tid2eid");
    auto const chosen = static_cast<std::uint64_t>(preset().sizes.top_k);
    bool const wide = t.kind == "I64";
    if ((!wide && t.kind != "I32") || t.shape.size() != 2 || t.shape[1] != chosen ||
        t.shape[0] == 0 || t.shape[0] * chosen >= std::uint64_t{1} << 31) {
      tensors.refuse("tensor " + quotable(t.name) + " is " + t.kind + " " + shape_text(t.shape) +
                     "; it must be I64 or I32 [vocabulary," + std::to_string(chosen) + "]");
    }
    table_.resize(static_cast<std::size_t>(t.shape[0] * chosen));
    for (std::size_t i = 0; i < table_.size(); ++i) {
      std::int64_t const id = wide ? detail::number_at<std::int64_t>(t.data, i)
                                   : detail::number_at<std::int32_t>(t.data, i);
      if (id < 0 || id >= preset().sizes.experts) {
        tensors.refuse("tensor " + quotable(t.name) + " names expert " + std::to_string(id) +
                       " in row " + std::to_string(i / chosen) + "; there are " +
                       std::to_string(preset().sizes.experts));
      }
      table_[i] = static_cast<shunt::index_t>(id);
    }
    used_.note(t, false);
  }

  shards files_;
  layer_plan plan_;
  used_tensors used_;
  any_weights weights_;
  std::vector<shunt::index_t> table_;
};

/// Layer `layer` of the checkpoint in `folder`: config.json beside its safetensors.
[[nodiscard]] inline loaded_layer load_layer(std::filesystem::path const& folder,
                                             shunt::index_t layer, load_settings settings = {}) {
  return {shards(folder), config::of_folder(folder), layer, settings};
}

}  // namespace checkpoint
