#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "../../examples/support/checkpoint/loaded_layer.hpp"
#include "support/layer_setup.hpp"

/// A golden file (tests/golden/make.py): a layer of a published family, and what the family's own
/// module in Hugging Face transformers made of it.
namespace shunt::test {

/// Every number of an expert_matrix as rows lie, whatever holds them.
template <class T> [[nodiscard]] guarded<T> rows_of(expert_matrix<T> const& w) {
  guarded<T> all(static_cast<std::size_t>(w.experts() * w.rows() * w.columns()));
  std::size_t i = 0;
  for (offset_t e = 0; e < w.experts(); ++e) {
    for (offset_t n = 0; n < w.rows(); ++n) {
      for (offset_t k = 0; k < w.columns(); ++k) all[i++] = w.row(e, n)[k * w.stride(2)];
    }
  }
  return all;
}
template <class T, class B>
[[nodiscard]] guarded<T> rows_of(expert_vector<> const& b, B const* /*stored as*/) {
  guarded<T> all(static_cast<std::size_t>(b.experts() * b.rows()));
  std::size_t i = 0;
  for (offset_t e = 0; e < b.experts(); ++e) {
    B const* const row = b.pointers() != nullptr
                             ? static_cast<B const*>(b.pointers()[e])
                             : static_cast<B const*>(b.data()) + e * b.stride(0);
    for (offset_t n = 0; n < b.rows(); ++n) {
      all[i++] = from_float<T>(to_float(row[n * b.stride(1)]));
    }
  }
  return all;
}
template <class T> [[nodiscard]] guarded<T> rows_of(expert_vector<> const& b) {
  switch (b.type()) {
    case element_type::bf16: return rows_of<T>(b, static_cast<bf16 const*>(nullptr));
    case element_type::fp16: return rows_of<T>(b, static_cast<fp16 const*>(nullptr));
    default: break;
  }
  return rows_of<T>(b, static_cast<float const*>(nullptr));
}
template <class T> [[nodiscard]] guarded<T> rows_of(view<T const, 2> v) {
  return rows_of(expert_matrix<T>(view<T const, 3>(v.data(), {{1, v.extent(0), v.extent(1)}},
                                                   {{0, v.stride(0), v.stride(1)}})));
}
template <class T> [[nodiscard]] guarded<T> rows_of(view<T const, 1> v) {
  return rows_of(view<T const, 2>(v.data(), {{1, v.extent(0)}}, {{0, v.stride(0)}}));
}

/// What the oracle and the harness need to know of a layer, read off its weights and options.
template <class T>
[[nodiscard]] layer_case case_of(moe_weights<T> const& w, layer_options<activation> const& o,
                                 index_t tokens) {
  layer_case c;
  c.route = o.route;
  c.choice_bias = bool(w.choice_bias);
  if (o.token) c.table = static_cast<index_t>(o.ids.extent(0));
  layer_formula& f = c.f;
  f.tokens = tokens;
  f.width = static_cast<int>(w.gate.extent(1));
  f.experts = static_cast<int>(w.gate.extent(0));
  f.top_k = o.top_k;
  f.hidden = static_cast<int>(w.up.columns());
  f.intermediate = static_cast<int>(w.down.columns());
  f.latent = bool(w.latent_down);
  f.shared = w.shared_down ? static_cast<int>(w.shared_down.columns()) : 0;
  f.shared_gated = bool(w.shared_gate);
  f.gate_bias = bool(w.gate_bias);
  f.biases = bool(w.up_bias);
  f.activation = o.act.kind;
  if (o.act.kind == activation_kind::swiglu_clamped) f.limit = static_cast<double>(o.act.b);
  if (o.act.kind == activation_kind::swiglu_capped) f.limit = static_cast<double>(o.act.a);
  f.up_first = w.up.has_pairs() && w.up.pairs().order == pair_order::up_gate;
  f.interleave = w.up.has_pairs() ? w.up.pairs().block : 0;
  return c;
}

/// The numbers of a layer, copied into memory of the harness, in the order in which its rows lie.
template <class T>
[[nodiscard]] layer_setup<T> setup_of(moe_weights<T> const& w, layer_options<activation> const& o,
                                      index_t tokens) {
  layer_case const c = case_of(w, o, tokens);
  layer_setup<T> s(c);
  s.is.f.limit = c.f.limit;
  s.gate = rows_of(w.gate);
  s.up = rows_of(w.up);
  s.down = rows_of(w.down);
  if (w.gate_bias) s.gate_bias = rows_of(w.gate_bias);
  if (w.choice_bias) s.choice_bias = rows_of(w.choice_bias);
  if (w.up_bias) s.up_bias = rows_of<T>(w.up_bias);
  if (w.down_bias) s.down_bias = rows_of<T>(w.down_bias);
  if (w.shared_up) s.shared_up = rows_of(w.shared_up);
  if (w.shared_down) s.shared_down = rows_of(w.shared_down);
  if (w.shared_gate) s.shared_gate = rows_of(w.shared_gate);
  if (w.latent_down) s.latent_down = rows_of(w.latent_down);
  if (w.latent_up) s.latent_up = rows_of(w.latent_up);
  return s;
}

/// The reference's arrays in a golden file.
class golden_file {
 public:
  explicit golden_file(std::filesystem::path const& path) : file_(path) {}

  [[nodiscard]] checkpoint::safetensors_file const& file() const noexcept { return file_; }
  [[nodiscard]] std::string about(std::string const& key) const { return file_.metadata().at(key); }
  /// Copies an array whatever its shape; its type must be Stored.
  template <class Stored> [[nodiscard]] guarded<Stored> array(std::string const& name) const {
    checkpoint::tensor const* const t = file_.find("reference." + name);
    if (t == nullptr) file_.refuse("it has no tensor reference." + name);
    guarded<Stored> values(static_cast<std::size_t>(t->bytes) / sizeof(Stored));
    file_.read("reference." + name, kind_of<Stored>(), t->shape, values.data());
    return values;
  }
  /// The layer in it, as the checkpoint reader finds it beside its config.json.
  [[nodiscard]] checkpoint::loaded_layer layer() const {
    namespace fs = std::filesystem;
    fs::path const folder =
        fs::temp_directory_path() / ("shunt_golden." + std::to_string(::getpid()));
    fs::remove_all(folder);
    fs::create_directories(folder);
    std::ofstream(folder / "config.json") << about("config");
    fs::create_symlink(fs::absolute(file_.path()), folder / "model.safetensors");
    auto loaded = checkpoint::load_layer(folder, std::stoi(about("layer")));
    fs::remove_all(folder);  // it is mapped
    return loaded;
  }
  [[nodiscard]] index_t tokens() const {
    return static_cast<index_t>(file_.find("reference.x")->shape[0]);
  }

 private:
  template <class Stored> static constexpr char const* kind_of() {
    if constexpr (std::is_same_v<Stored, bf16>) return "BF16";
    if constexpr (std::is_same_v<Stored, index_t>) return "I32";
    return "F32";
  }
  checkpoint::safetensors_file file_;
};

}  // namespace shunt::test
