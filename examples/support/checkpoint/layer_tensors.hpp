#pragma once
#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "../problem.hpp"
#include "family.hpp"
#include "shards.hpp"
#include "stored_matrix.hpp"
#include "used_tensors.hpp"

namespace checkpoint {

using extents = std::vector<std::uint64_t>;

namespace detail {
/// How names end of what belongs to a matrix's numbers: scales, zero points, order.
inline constexpr std::string_view of_numbers[] = {".scale",
                                                  ".weight_scale_inv",
                                                  "_scales",
                                                  ".scales",
                                                  ".weight_scale",
                                                  ".weight_scale_2",
                                                  ".weight_global_scale",
                                                  ".input_scale",
                                                  ".qzeros",
                                                  ".input_global_scale",
                                                  ".weight_zero_point",
                                                  ".weight_shape",
                                                  ".g_idx",
                                                  ".weight_g_idx"};
}  // namespace detail

/// The tensors of one layer, found by the family's names. What is missing or has another shape or
/// type is refused with a sentence that names it, what it is and what it must be.
class layer_tensors {
 public:
  layer_tensors(shards& all, layer_plan const& plan, std::uint64_t layer) : all_(all), plan_(plan) {
    for (std::string_view const prefix : detail::before_layers) {
      for (naming const& n : plan.namings) {
        std::string block =
            std::string(prefix) + "layers." + std::to_string(layer) + "." + std::string(n.block);
        if (!all.has(block + std::string(n.gate))) continue;
        for (naming const& any : plan.namings) {
          blocks_.push_back(block.substr(0, block.size() - n.block.size()) +
                            std::string(any.block));
        }
        block_ = std::move(block);
        names_ = n;
        return;
      }
    }
    refuse("layer " + std::to_string(layer) + " has no mixture of experts: there is no tensor " +
           std::string(detail::before_layers[0]) + "layers." + std::to_string(layer) + "." +
           std::string(plan.namings[0].block) + std::string(plan.namings[0].gate) +
           layers_that_have());
  }

  [[nodiscard]] naming const& names() const noexcept { return names_; }
  /// A name inside the layer's block.
  [[nodiscard]] std::string name(std::string_view rest) const { return block_ + std::string(rest); }
  [[nodiscard]] bool has(std::string_view rest) const { return all_.has(name(rest)); }

  [[nodiscard]] tensor const& need(std::string const& rest, extents const& shape) const {
    tensor const& t = any(rest, &shape);
    check_shape(t, shape);
    return t;
  }
  /// One of Shunt's own types, this shape.
  [[nodiscard]] tensor const& numbers(std::string const& rest, extents const& shape) const {
    tensor const& t = need(rest, shape);
    if (!plain(t)) refuse_type(t);
    return t;
  }
  /// Of whatever shape.
  [[nodiscard]] tensor const& any(std::string const& rest, extents const* wanted = nullptr) const {
    tensor const* const t = all_.find(name(rest));
    if (t == nullptr) {
      refuse("there is no tensor " + name(rest) +
             (wanted != nullptr ? "; it must be " + shape_text(*wanted) : ""));
    }
    return *t;
  }

  /// What shares a type in moe_weights, experts and all that is of the tokens' type: every tensor of
  /// the layer but those of the router and the scales of blocks.
  [[nodiscard]] std::vector<tensor const*> of_one_type() const {
    std::string_view const of_router[] = {names_.gate, names_.choice_bias, "router.bias",
                                          "gate.tid2eid"};
    std::vector<tensor const*> all;
    for (std::string_view const name : all_.names(block_)) {
      std::string_view const rest = name.substr(block_.size());
      bool const scales =
          std::any_of(std::begin(detail::of_numbers), std::end(detail::of_numbers),
                      [&](std::string_view ending) { return rest.ends_with(ending); });
      bool const routes =
          std::find(std::begin(of_router), std::end(of_router), rest) != std::end(of_router);
      if (!scales && !routes && !unread(rest)) all.push_back(all_.find(name));
    }
    return all;
  }
  /// Refuses a layer of which something was not used: the configuration must say something else than
  /// the model that was saved.
  void must_be_all(used_tensors const& used) const {
    std::vector<std::string_view> left;
    for (std::string const& block : blocks_) {
      for (std::string_view const name : all_.names(block)) {
        if (!used.has(name) && !unread(name.substr(block.size()))) left.push_back(name);
      }
    }
    if (left.empty()) return;
    refuse("tensor " + quotable(left[0]) +
           " is one of the layer, but config.json describes a layer without it" +
           (left.size() > 1 ? ", as without " + std::to_string(left.size() - 1) + " more" : ""));
  }

  /// The matrix [rows,columns] `base`.weight, plain or in scaled blocks.
  [[nodiscard]] stored_matrix matrix(std::string const& base, std::uint64_t rows,
                                     std::uint64_t columns) const {
    extents const shape{rows, columns};
    tensor const& t = any(base + ".weight", &shape);
    if (plain(t)) {
      check_shape(t, shape);
      return {.values = &t, .rows = rows, .columns = columns};
    }
    stored_matrix m{.values = &t, .rows = rows, .columns = columns};
    if (t.kind == "F8_E4M3" || t.kind == "F8_E5M2") {
      check_shape(t, shape);
      m.block_rows = plan_.block_rows;
      m.block_columns = plan_.block_columns;
    } else if (t.kind == "I8" || t.kind == "U8" || t.kind == "F4") {
      mxfp4_columns(t, columns);
      check_shape(t, {rows, t.kind == "F4" ? columns : columns / 2});
      m.block_columns = 32;
      m.packed = true;
    } else {
      refuse_type(t);
    }
    std::string const scale = has(base + ".scale") ? base + ".scale" : base + ".weight_scale_inv";
    m.scales = &need(scale, {blocks_of(rows, m.block_rows), blocks_of(columns, m.block_columns)});
    if (m.scales->kind != "F32" && m.scales->kind != "BF16" && m.scales->kind != "F8_E8M0") {
      refuse_type(*m.scales);
    }
    return m;
  }

  /// All experts' matrices [experts,rows,columns] in one tensor (with the last two exchanged where
  /// the family does so), or in `base`_blocks and _scales: gpt-oss's mxfp4.
  [[nodiscard]] bool has_fused(std::string const& base) const {
    return has(base) || has(base + "_blocks");
  }
  [[nodiscard]] stored_matrix fused(std::string const& base, std::uint64_t experts,
                                    std::uint64_t rows, std::uint64_t columns) const {
    stored_matrix m{.rows = experts * rows, .columns = columns};
    if (!has(base + "_blocks")) {
      m.values = plan_.transposed ? &numbers(base, {experts, columns, rows})
                                  : &numbers(base, {experts, rows, columns});
      return m;
    }
    m.values = &any(base + "_blocks");
    mxfp4_columns(*m.values, columns);
    check_shape(*m.values, {experts, rows, columns / 32, 16});
    m.scales = &need(base + "_scales", {experts, rows, columns / 32});
    for (tensor const* t : {m.values, m.scales}) {
      if (t->kind != "U8") refuse_type(*t);
    }
    m.block_columns = 32;
    m.packed = true;
    return m;
  }

  [[nodiscard]] static bool plain(tensor const& t) noexcept {
    return t.kind == "F32" || t.kind == "BF16" || t.kind == "F16";
  }
  [[noreturn]] void refuse(std::string const& why) const {
    throw lm::problem(all_.folder().string() + ": " + why);
  }

 private:
  /// What the reference does not compute with either: a tensor that the family names, and the space
  /// that transformers' modules have for experts that are the identity.
  [[nodiscard]] bool unread(std::string_view rest) const noexcept {
    if (!plan_.unread.empty() && rest == plan_.unread) return true;
    constexpr std::string_view expert = "experts.";
    if (!rest.starts_with(expert)) return false;
    shunt::index_t const all = plan_.preset.sizes.experts;
    shunt::index_t const first_zero = all - plan_.preset.route.zero_experts;
    shunt::index_t e = -1;
    char const* const end = rest.data() + rest.size();
    auto const [stop, bad] = std::from_chars(rest.data() + expert.size(), end, e);
    return bad == std::errc() && stop != end && *stop == '.' && e >= first_zero && e < all;
  }
  void check_shape(tensor const& t, extents const& shape) const {
    if (t.shape == shape) return;
    refuse("tensor " + quotable(t.name) + " has shape " + shape_text(t.shape) + "; it must be " +
           shape_text(shape));
  }
  [[noreturn]] void refuse_type(tensor const& t) const {
    refuse("tensor " + quotable(t.name) + " is " + quotable(t.kind) +
           "; known here are F32, BF16 and F16, fp8 with a scale a block, and mxfp4");
  }
  void mxfp4_columns(tensor const& t, std::uint64_t columns) const {
    if (columns % 32 == 0) return;
    refuse("tensor " + quotable(t.name) + " is in blocks of 32, but a row has " +
           std::to_string(columns) + " numbers");
  }

  /// For the sentence about a layer that is not one of experts.
  [[nodiscard]] std::string layers_that_have() const {
    std::vector<unsigned long> found;
    for (std::string_view const name : all_.names()) {
      for (naming const& n : plan_.namings) {
        std::string const tail = "." + std::string(n.block) + std::string(n.gate);
        std::size_t const at = name.find("layers.");
        if (at == std::string_view::npos || name.size() < tail.size() + at + 8) continue;
        std::string const number(name.substr(at + 7, name.size() - tail.size() - at - 7));
        bool const digits =
            number.size() < 9 && std::all_of(number.begin(), number.end(),
                                             [](unsigned char c) { return std::isdigit(c) != 0; });
        if (digits && name.substr(name.size() - tail.size()) == tail) {
          found.push_back(std::stoul(number));
        }
      }
    }
    if (found.empty()) return "; no layer has one";
    std::sort(found.begin(), found.end());
    return "; of those that have one the first is " + std::to_string(found.front()) +
           ", the last " + std::to_string(found.back());
  }

  shards& all_;
  layer_plan const& plan_;
  std::string block_;
  std::vector<std::string> blocks_;  ///< of the layer, under any name of the family's
  naming names_{};
};

}  // namespace checkpoint
