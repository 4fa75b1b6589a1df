#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "layer_tensors.hpp"
#include "shunt/layer/weights.hpp"
#include "stored_matrix.hpp"
#include "used_tensors.hpp"

namespace checkpoint {

/// The weights of one layer and the memory of what could not be used where it lies. The rest lies in
/// the files.
template <shunt::storage T, shunt::storage G> struct layer_weights {
  shunt::moe_weights<T, G> weights;
  owned_memory own;
  std::vector<T const*> up, down, shared_up, shared_down;  ///< a pointer per expert
};

/// Makes the weights of a layer from its tensors.
template <shunt::storage T, shunt::storage G> class assembler {
 public:
  assembler(layer_tensors const& tensors, layer_plan const& plan, used_tensors& used)
      : tensors_(tensors), plan_(plan), used_(used) {}

  [[nodiscard]] layer_weights<T, G> all() {
    shunt::preset const& p = plan_.preset;
    auto const E = count(p.sizes.experts), local = E - count(p.route.zero_experts);
    auto const H = count(p.sizes.hidden), I = count(p.sizes.intermediate);
    auto const width = p.model_hidden > 0 ? count(p.model_hidden) : H;
    naming const& names = tensors_.names();
    shunt::moe_weights<T, G>& w = to_.weights;

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
      w.shared_up = gated()
                        ? joined({{block + part.gate, block + part.up}}, Is, width, to_.shared_up)
                        : single({block + part.up}, Is, width, to_.shared_up);
      w.shared_down = single({block + part.down}, width, Is, to_.shared_down);
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
    if (tensors_.has(block + "w1.weight")) return {"w1", "w3", "w2"};
    return {"gate_proj", "up_proj", "down_proj"};
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
  }
  [[nodiscard]] static bool in_place(stored_matrix const& m) noexcept {
    return m.scales == nullptr && lies_well<T>(*m.values);
  }

  void experts(std::uint64_t local, std::uint64_t all, std::uint64_t H, std::uint64_t I) {
    shunt::moe_weights<T, G>& w = to_.weights;
    std::string const fused_up = gated() ? "experts.gate_up_proj" : "experts.up_proj";
    shunt::pair_layout const pairs{.block = plan_.preset.interleaved ? 1 : 0};
    if (tensors_.has_fused(fused_up)) {
      std::uint64_t const rows = gated() ? 2 * I : I;
      // transformers' own tensor of a family with zero experts has room for those too.
      bool const padded = all > local && tensors_.has(fused_up) &&
                          tensors_.any(fused_up).shape == extents{all, rows, H};
      auto const up = fused(fused_up, padded ? all : local, rows, H).slice(0, offset(local));
      w.up = gated() ? up.in_pairs(pairs) : up;
      w.down = fused("experts.down_proj", local, H, I);
      return;
    }
    parts const part = parts_of("experts.0.");
    std::vector<std::pair<std::string, std::string>> both;
    bases ups, downs;
    for (std::uint64_t e = 0; e < local; ++e) {
      std::string const block = "experts." + std::to_string(e) + ".";
      if (!tensors_.has(block + part.up + ".weight")) {  // before E names are made of nothing
        (void)tensors_.matrix(block + part.up, I, H);
      }
      both.emplace_back(block + part.gate, block + part.up);
      ups.push_back(block + part.up);
      downs.push_back(block + part.down);
    }
    w.up = gated() ? joined(both, I, H, to_.up) : single(ups, I, H, to_.up);
    w.down = single(downs, H, I, to_.down);
  }

  /// [experts,rows,columns] from one tensor.
  [[nodiscard]] shunt::expert_matrix<T> fused(std::string const& base, std::uint64_t experts,
                                              std::uint64_t rows, std::uint64_t columns) {
    stored_matrix const m = tensors_.fused(base, experts, rows, columns);
    bool const there = in_place(m);
    note(m, there);
    T const* data = nullptr;
    if (there) {
      data = at<T>(*m.values);
    } else {
      T* const to = to_.own.template take<T>(m.rows * m.columns);
      decode(m, to);
      data = to;
    }
    shunt::offset_t const N = offset(rows), K = offset(columns), L = offset(experts);
    bool const exchanged = plan_.transposed && m.scales == nullptr;
    if (exchanged) return shunt::view<T const, 3>(data, {{L, N, K}}, {{N * K, 1, N}});
    return shunt::view<T const, 3>(data, {{L, N, K}});
  }

  /// One matrix per expert.
  [[nodiscard]] shunt::expert_matrix<T> single(bases const& names, std::uint64_t rows,
                                               std::uint64_t columns,
                                               std::vector<T const*>& pointers) {
    for (std::string const& name : names) {
      stored_matrix const m = tensors_.matrix(name, rows, columns);
      bool const there = in_place(m);
      note(m, there);
      if (there) {
        pointers.push_back(at<T>(*m.values));
      } else {
        T* const to = to_.own.template take<T>(rows * columns);
        decode(m, to);
        pointers.push_back(to);
      }
    }
    return matrix_of(pointers, rows, columns);
  }

  /// One matrix per expert of two tensors: [gate; up]. Where the second follows the first in the
  /// file, as in files sorted by name, the two are one already.
  [[nodiscard]] shunt::expert_matrix<T> joined(
      std::vector<std::pair<std::string, std::string>> const& names, std::uint64_t rows,
      std::uint64_t columns, std::vector<T const*>& pointers) {
    for (auto const& [gate_name, up_name] : names) {
      stored_matrix const gate = tensors_.matrix(gate_name, rows, columns);
      stored_matrix const up = tensors_.matrix(up_name, rows, columns);
      bool const there = in_place(gate) && in_place(up) &&
                         up.values->data == gate.values->data + gate.values->bytes;
      note(gate, there);
      note(up, there);
      if (there) {
        pointers.push_back(at<T>(*gate.values));
      } else {
        T* const to = to_.own.template take<T>(2 * rows * columns);
        decode(gate, to);
        decode(up, to + rows * columns);
        pointers.push_back(to);
      }
    }
    return matrix_of(pointers, 2 * rows, columns).in_pairs();
  }

  [[nodiscard]] static shunt::expert_matrix<T> matrix_of(std::vector<T const*> const& pointers,
                                                         std::uint64_t rows,
                                                         std::uint64_t columns) {
    return shunt::expert_matrix<T>::each(
        shunt::view<T const* const, 1>(pointers.data(), {{offset(pointers.size())}}), offset(rows),
        offset(columns));
  }

  layer_tensors const& tensors_;
  layer_plan const& plan_;
  used_tensors& used_;
  layer_weights<T, G> to_;
};

}  // namespace checkpoint
