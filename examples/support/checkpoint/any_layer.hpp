#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "config.hpp"
#include "family.hpp"
#include "layer_tensors.hpp"
#include "shards.hpp"
#include "shunt/layer/options.hpp"
#include "used_tensors.hpp"

namespace checkpoint {

/// What is known of a loaded layer whatever the types of its weights.
class any_layer {
 public:
  using options_type = shunt::layer_options<shunt::activation>;

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

  [[nodiscard]] used_tensors const& used() const noexcept { return used_; }
  /// Memory that was needed for what is not used where it lies.
  [[nodiscard]] std::uint64_t bytes_owned() const noexcept { return bytes_owned_; }

 protected:
  any_layer(shards files, config const& about) : files_(std::move(files)), plan_(plan_of(about)) {}

  /// For a layer that chooses by one.
  void read_table(layer_tensors const& tensors) {
    tensor const& t = tensors.any("gate.tid2eid");
    auto const chosen = static_cast<std::uint64_t>(preset().sizes.top_k);
    bool const wide = t.kind == "I64";
    if ((!wide && t.kind != "I32") || t.shape.size() != 2 || t.shape[1] != chosen ||
        t.shape[0] == 0 || t.shape[0] * chosen >= std::uint64_t{1} << 31) {
      tensors.refuse("tensor " + quotable(t.name) + " is " + quotable(t.kind) + " " +
                     shape_text(t.shape) + "; it must be I64 or I32 [vocabulary," +
                     std::to_string(chosen) + "]");
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
    bytes_owned_ += table_.size() * sizeof(shunt::index_t);
  }

  shards files_;
  layer_plan plan_;
  used_tensors used_;
  std::uint64_t bytes_owned_ = 0;

 private:
  std::vector<shunt::index_t> table_;
};

}  // namespace checkpoint
