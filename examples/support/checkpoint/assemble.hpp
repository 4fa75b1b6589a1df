#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "layer_tensors.hpp"
#include "packed_matrix.hpp"
#include "quantized_matrix.hpp"
#include "shunt/layer/weights.hpp"
#include "stored_matrix.hpp"
#include "used_tensors.hpp"

namespace checkpoint {

/// Pointers to matrices per expert, of no format: to gate matrices in `first` where `up` has those of
/// up, else to whole ones.
template <shunt::weight_format W> struct expert_pointers {
  std::vector<W const*> first, up;
};

/// The weights of one layer and the memory of what could not be used where it lies. The rest lies in
/// the files.
template <shunt::storage T, shunt::storage G, shunt::weight_format W = T> struct layer_weights {
  shunt::moe_weights<T, G, shunt::space::host, W> weights;
  owned_memory own;
  expert_pointers<W> up, down, shared_up, shared_down;
};

/// Makes the weights of a layer from its tensors: those of experts as W, packed where W is a format.
template <shunt::storage T, shunt::storage G, shunt::weight_format W = T> class assembler {
 public:
  assembler(layer_tensors const& tensors, layer_plan const& plan, used_tensors& used,
            shunt::on_host const& on)
      : tensors_(tensors), plan_(plan), used_(used), on_(on) {}

  [[nodiscard]] layer_weights<T, G, W> all() {
    shunt::preset const& p = plan_.preset;
    auto const E = count(p.sizes.experts), local = E - count(p.route.zero_experts);
    auto const H = count(p.sizes.hidden), I = count(p.sizes.intermediate);
    auto const width = p.model_hidden > 0 ? count(p.model_hidden) : H;
    naming const& names = tensors_.names();
    auto& w = to_.weights;

    w.gate = {place<G>(tensors_.numbers(std::string(names.gate), {E, width})),
              {{offset(E), offset(width)}}};
    if (p.gate_bias) w.gate_bias = vector<float>("router.bias", E);
    if (p.choice_bias && !tensors_.has("gate.tid2eid")) {
      w.choice_bias = vector<float>(std::string(names.choice_bias), E);
    }
    experts(local, E, H, I);
    if (p.expert_biases) {
      std::uint64_t const rows = gated() ? 2 * I : I;
      w.up_bias = shunt::view<T const, 2>(
          place<T>(tensors_.numbers("experts.gate_up_proj_bias", {local, rows})),
          {{offset(local), offset(rows)}});
      w.down_bias =
          shunt::view<T const, 2>(place<T>(tensors_.numbers("experts.down_proj_bias", {local, H})),
                                  {{offset(local), offset(H)}});
    }
    if (p.shared_intermediate > 0) {
      std::string const block(plan_.shared);
      auto const Is = count(p.shared_intermediate);
      parts const part = parts_of(block);
      w.shared_up = each(1, first_of(block, part), Is, width, to_.shared_up);
      w.shared_down = each(1, {block + part.down}, width, Is, to_.shared_down);
    }
    if (p.shared_gate) {
      w.shared_gate = {place<T>(tensors_.numbers("shared_expert_gate.weight", {1, width})),
                       {{offset(width)}}};
    }
    if (p.model_hidden > 0) {
      w.latent_down = {place<T>(tensors_.numbers("fc1_latent_proj.weight", {H, width})),
                       {{offset(H), offset(width)}}};
      w.latent_up = {place<T>(tensors_.numbers("fc2_latent_proj.weight", {width, H})),
                     {{offset(width), offset(H)}}};
    }
    return std::move(to_);
  }

 private:
  struct parts {
    std::string gate, up, down;
  };
  using bases = std::vector<std::string>;

  static std::uint64_t count(shunt::index_t n) noexcept { return static_cast<std::uint64_t>(n); }
  static shunt::offset_t offset(std::uint64_t n) noexcept {
    return static_cast<shunt::offset_t>(n);
  }
  [[nodiscard]] bool gated() const noexcept { return shunt::gated(plan_.act); }
  [[nodiscard]] parts parts_of(std::string const& block) const {
    if (has_matrix(tensors_, block + "w1")) return {"w1", "w3", "w2"};
    return {"gate_proj", "up_proj", "down_proj"};
  }
  /// The tensors of an expert's first matrix.
  [[nodiscard]] bases first_of(std::string const& block, parts const& part) const {
    if (!gated()) return {block + part.up};
    return {block + part.gate, block + part.up};
  }

  template <class U> [[nodiscard]] static U const* at(tensor const& t) noexcept {
    return reinterpret_cast<U const*>(t.data);
  }
  template <class U> [[nodiscard]] static bool lies_well(tensor const& t) noexcept {
    return t.kind == kind_of<U> && t.aligned();
  }

  /// Where a tensor's numbers are as U: in the file, or converted.
  template <class U> [[nodiscard]] U const* place(tensor const& t) {
    bool const there = lies_well<U>(t);
    used_.note(t, there);
    if (there) return at<U>(t);
    if constexpr (shunt::quantized<W> && !std::is_same_v<U, float>) {
      if (t.kind != kind_of<U>) {
        tensors_.refuse("tensor " + quotable(t.name) + " is " + t.kind + "; next to " +
                        std::string(name_of_format<W>) + " experts as stored it must be " +
                        std::string(kind_of<U>) + ". Load the layer as bf16 or float instead");
      }
    }
    std::uint64_t const n = t.bytes * 8 / bits_of_kind(t.kind);
    U* const to = to_.own.template take<U>(n);
    convert(t, 0, n, to);
    return to;
  }
  template <class U>
  [[nodiscard]] shunt::view<U const, 1> vector(std::string const& name, std::uint64_t n) {
    return {place<U>(tensors_.numbers(name, {n})), {{offset(n)}}};
  }

  void note(stored_matrix const& m, bool in_place) {
    used_.note(*m.values, in_place);
    if (m.scales != nullptr) used_.note(*m.scales, in_place);
    if (m.zeros != nullptr) used_.note(*m.zeros, in_place);
    for (tensor const* t : m.also) used_.note(*t, in_place);
  }
  [[nodiscard]] static bool in_place(stored_matrix const& m) noexcept {
    return m.scales == nullptr && lies_well<W>(*m.values);
  }

  void experts(std::uint64_t local, std::uint64_t all, std::uint64_t H, std::uint64_t I) {
    auto& w = to_.weights;
    std::string const fused_up = gated() ? "experts.gate_up_proj" : "experts.up_proj";
    shunt::pair_layout const pairs{.block = plan_.preset.interleaved ? 1 : 0};
    if (tensors_.has_fused(fused_up)) {
      std::uint64_t const rows = gated() ? 2 * I : I;
      // transformers' own tensor of a family with zero experts has room for those too.
      bool const padded = all > local && tensors_.has(fused_up) &&
                          tensors_.any(fused_up).shape == extents{all, rows, H};
      w.up = fused(fused_up, padded ? all : local, rows, H,
                   gated() ? std::optional(pairs) : std::nullopt)
                 .slice(0, offset(local));
      w.down = fused("experts.down_proj", local, H, I);
      return;
    }
    parts const part = parts_of("experts.0.");
    bases ups, downs;
    for (std::uint64_t e = 0; e < local; ++e) {
      std::string const block = "experts." + std::to_string(e) + ".";
      if (!has_matrix(tensors_, block + part.up)) {  // before E names are made of nothing
        (void)tensors_.matrix(block + part.up, I, H);
      }
      for (std::string& name : first_of(block, part)) ups.push_back(std::move(name));
      downs.push_back(block + part.down);
    }
    w.up = each(local, ups, I, H, to_.up);
    w.down = each(local, downs, H, I, to_.down);
  }

  /// [experts,rows,columns] from one tensor.
  [[nodiscard]] shunt::expert_matrix<W> fused(std::string const& base, std::uint64_t experts,
                                              std::uint64_t rows, std::uint64_t columns,
                                              std::optional<shunt::pair_layout> pairs = {}) {
    stored_matrix const m = tensors_.fused(base, experts, rows, columns);
    if constexpr (shunt::quantized<W>) {
      return packed({&m, 1}, experts, pairs);
    } else {
      W const* const data = matrix(m);
      shunt::offset_t const N = offset(rows), K = offset(columns), L = offset(experts);
      shunt::axes<3> const strides =  // the last two are exchanged in some families
          plan_.transposed && m.scales == nullptr ? shunt::axes<3>{{N * K, 1, N}}
                                                  : shunt::axes<3>{{N * K, K, 1}};
      shunt::expert_matrix<W> const all = shunt::view<W const, 3>(data, {{L, N, K}}, strides);
      return pairs ? all.in_pairs(*pairs) : all;
    }
  }

  /// One matrix per expert, of one tensor or of two, gate and up.
  [[nodiscard]] shunt::expert_matrix<W> each(std::uint64_t experts, bases const& names,
                                             std::uint64_t rows, std::uint64_t columns,
                                             expert_pointers<W>& pointers) {
    std::vector<stored_matrix> all;
    for (std::string const& name : names) {
      all.push_back(matrix_of(tensors_, plan_.quantized, name, rows, columns));
    }
    std::size_t const pieces = all.size() / experts;
    if constexpr (shunt::quantized<W>) {
      return packed(all, experts, pieces == 2 ? std::optional(shunt::pair_layout{}) : std::nullopt);
    } else {
      for (std::size_t i = 0; i < all.size(); ++i) {
        auto& to = i % pieces == 0 ? pointers.first : pointers.up;
        to.push_back(matrix(all[i]));
      }
      auto const each_of = [&](std::vector<W const*> const& p) {
        return shunt::view<W const* const, 1>(p.data(), {{offset(experts)}});
      };
      using matrices = shunt::expert_matrix<W>;
      if (pieces == 1) {
        return matrices::each(each_of(pointers.first), offset(rows), offset(columns));
      }
      return matrices::each(each_of(pointers.first), each_of(pointers.up), offset(rows),
                            offset(columns));
    }
  }

  /// Where a matrix is as W: in the file, or decoded.
  [[nodiscard]] W const* matrix(stored_matrix const& m) {
    bool const there = in_place(m);
    note(m, there);
    if (there) return at<W>(*m.values);
    W* const to = to_.own.template take<W>(m.rows * m.columns);
    decode(m, to);
    return to;
  }

  [[nodiscard]] shunt::expert_matrix<W> packed(std::span<stored_matrix const> all,
                                               std::uint64_t experts,
                                               std::optional<shunt::pair_layout> pairs) {
    for (stored_matrix const& m : all) note(m, false);
    return checkpoint::packed<W>(on_, tensors_, all, experts, pairs, to_.own);
  }

  layer_tensors const& tensors_;
  layer_plan const& plan_;
  used_tensors& used_;
  shunt::on_host const& on_;
  layer_weights<T, G, W> to_;
};

}  // namespace checkpoint
