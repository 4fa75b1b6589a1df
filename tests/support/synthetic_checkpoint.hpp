#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "../../examples/support/checkpoint/write_safetensors.hpp"
#include "support/layer_setup.hpp"

/// Reduced checkpoints of the published families: a config.json under the family's own keys, random
/// weights under its own names. Written from the published files' naming, not from the reader's.
namespace shunt::test {

struct published_family {
  char const* name;
  nlohmann::json config;
  layer_case is;  ///< what the layer computes, said independently of the configuration
  std::string prefix = "model.", block = "mlp.", gate = "gate.weight";
  std::string choice_bias = "gate.e_score_correction_bias", shared = "shared_experts.";
  std::vector<std::string> parts = {"gate_proj", "up_proj", "down_proj"};  ///< of an expert
  std::vector<std::string> shared_parts = {"gate_proj", "up_proj", "down_proj"};
  bool fused = false, exchanged = false;  ///< all experts in one tensor, [E,K,N]
  int layer = 2;
};

/// Tensors to be written; the bytes live here.
class tensor_list {
 public:
  template <class T>
  void add(std::string const& name, std::vector<std::uint64_t> shape, std::vector<T> const& numbers,
           std::string kind = {}) {
    if (kind.empty()) {
      kind = sizeof(T) == 8             ? "I64"
             : std::is_same_v<T, float> ? "F32"
             : std::is_same_v<T, bf16>  ? "BF16"
             : std::is_same_v<T, fp16>  ? "F16"
             : std::is_same_v<T, char>  ? "I8"
                                        : "U8";
    }
    bytes_.emplace_back(numbers.size() * sizeof(T));
    if (!numbers.empty()) std::memcpy(bytes_.back().data(), numbers.data(), bytes_.back().size());
    sources_.push_back({name, std::move(kind), std::move(shape), bytes_.back().data()});
  }
  void remove(std::string const& name) {
    std::erase_if(sources_, [&](auto const& s) { return s.name == name; });
  }
  [[nodiscard]] std::vector<checkpoint::tensor_source> const& sources() const { return sources_; }
  [[nodiscard]] checkpoint::tensor_source* find(std::string const& name) {
    for (auto& s : sources_) {
      if (s.name == name) return &s;
    }
    return nullptr;
  }

 private:
  std::deque<std::vector<std::byte>> bytes_;
  std::vector<checkpoint::tensor_source> sources_;
};

/// `rows` lines of `columns` numbers, from row `first` on, every `step`-th.
template <class T>
[[nodiscard]] std::vector<T> lines(guarded<T> const& from, int first, int rows, int columns,
                                   int step = 1) {
  std::vector<T> v;
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) {
      v.push_back(from[static_cast<std::size_t>((first + r * step) * columns + c)]);
    }
  }
  return v;
}
/// [E,N,K] as [E,K,N].
template <class T>
[[nodiscard]] std::vector<T> exchanged(std::vector<T> const& from, int experts, int rows,
                                       int columns) {
  std::vector<T> v;
  for (int e = 0; e < experts; ++e) {
    for (int c = 0; c < columns; ++c) {
      for (int r = 0; r < rows; ++r) {
        v.push_back(from[static_cast<std::size_t>((e * rows + r) * columns + c)]);
      }
    }
  }
  return v;
}

template <class T>
[[nodiscard]] tensor_list tensors_of(published_family const& p, layer_setup<T> const& s) {
  layer_formula const& f = s.is.f;
  tensor_list all;
  auto const u = [](auto n) { return static_cast<std::uint64_t>(n); };
  std::string const at = p.prefix + "layers." + std::to_string(p.layer) + "." + p.block;
  int const L = f.local(), I = f.intermediate, H = f.hidden, N = f.halves() * I, W = f.width;
  bool const gated = f.halves() == 2;
  auto const everything = [](auto const& b) { return std::vector(b.data(), b.data() + b.size()); };
  all.add(at + p.gate, {u(f.experts), u(W)}, everything(s.gate));
  if (f.gate_bias) all.add(at + "router.bias", {u(f.experts)}, everything(s.gate_bias));
  if (s.is.choice_bias) all.add(at + p.choice_bias, {u(f.experts)}, everything(s.choice_bias));
  if (s.is.table > 0) {
    std::vector<std::int64_t> ids(s.table.data(), s.table.data() + s.table.size());
    all.add(at + "gate.tid2eid", {u(s.is.table), u(f.top_k)}, ids);
  }
  if (p.fused) {
    std::string const up = at + (gated ? "experts.gate_up_proj" : "experts.up_proj");
    std::string const down = at + "experts.down_proj";
    if (p.exchanged) {
      all.add(up, {u(L), u(H), u(N)}, exchanged(everything(s.up), L, N, H));
      all.add(down, {u(L), u(I), u(H)}, exchanged(everything(s.down), L, H, I));
    } else {
      all.add(up, {u(L), u(N), u(H)}, everything(s.up));
      all.add(down, {u(L), u(H), u(I)}, everything(s.down));
    }
    if (f.biases) {
      all.add(up + "_bias", {u(L), u(N)}, everything(s.up_bias));
      all.add(down + "_bias", {u(L), u(H)}, everything(s.down_bias));
    }
  } else {
    for (int e = 0; e < L; ++e) {
      std::string const expert = at + "experts." + std::to_string(e) + ".";
      if (gated) all.add(expert + p.parts[0] + ".weight", {u(I), u(H)}, lines(s.up, e * N, I, H));
      all.add(expert + p.parts[1] + ".weight", {u(I), u(H)}, lines(s.up, e * N + N - I, I, H));
      all.add(expert + p.parts[2] + ".weight", {u(H), u(I)}, lines(s.down, e * H, H, I));
    }
  }
  if (f.shared > 0) {
    int const Is = f.shared;
    std::string const shared = at + p.shared;
    if (gated) {
      all.add(shared + p.shared_parts[0] + ".weight", {u(Is), u(W)}, lines(s.shared_up, 0, Is, W));
    }
    all.add(shared + p.shared_parts[1] + ".weight", {u(Is), u(W)},
            lines(s.shared_up, gated ? Is : 0, Is, W));
    all.add(shared + p.shared_parts[2] + ".weight", {u(W), u(Is)}, everything(s.shared_down));
    if (f.shared_gated)
      all.add(at + "shared_expert_gate.weight", {1, u(W)}, everything(s.shared_gate));
  }
  if (f.latent) {
    all.add(at + "fc1_latent_proj.weight", {u(H), u(W)}, everything(s.latent_down));
    all.add(at + "fc2_latent_proj.weight", {u(W), u(H)}, everything(s.latent_up));
  }
  return all;
}

/// config.json and one file, or, where `shards` is more, as many with their index.
inline void write_checkpoint(std::filesystem::path const& folder, nlohmann::json const& config,
                             tensor_list const& tensors, std::size_t shards = 1) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << config.dump(2);
  if (shards == 1) {
    checkpoint::write_safetensors(folder / "model.safetensors", tensors.sources());
    return;
  }
  nlohmann::json index = {{"metadata", {{"total_size", 0}}},
                          {"weight_map", nlohmann::json::object()}};
  std::vector<std::vector<checkpoint::tensor_source>> parts(shards);
  for (std::size_t i = 0; i < tensors.sources().size(); ++i) {
    std::size_t const part = i * shards / tensors.sources().size();
    parts[part].push_back(tensors.sources()[i]);
    index["weight_map"][tensors.sources()[i].name] =
        "model-" + std::to_string(part) + ".safetensors";
  }
  for (std::size_t part = 0; part < shards; ++part) {
    checkpoint::write_safetensors(folder / ("model-" + std::to_string(part) + ".safetensors"),
                                  parts[part]);
  }
  std::ofstream(folder / "model.safetensors.index.json") << index.dump();
}

}  // namespace shunt::test
