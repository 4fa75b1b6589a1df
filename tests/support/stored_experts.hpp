#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "../examples/support/checkpoint/loaded_layer.hpp"
#include "support/host_configs.hpp"
#include "support/layer_weights.hpp"
#include "support/published_families.hpp"

/// Checkpoints whose experts are changed to what a format stores, and layers of them.
namespace shunt::test {

namespace fs = std::filesystem;

/// A checkpoint of a family at these sizes, its experts still bf16.
struct a_checkpoint {
  published_family p;
  layer_setup<bf16> s;
  tensor_list tensors;

  a_checkpoint(char const* name, int width, int intermediate)
      : p(sized(published(name), width, intermediate)), s(p.is), tensors(tensors_of(p, s)) {}

  /// Calls change(name without .weight, shape) for each matrix of an expert, shared ones too.
  void each_expert_matrix(auto change) {
    std::vector<std::pair<std::string, std::vector<std::uint64_t>>> found;
    for (checkpoint::tensor_source const& t : tensors.sources()) {
      std::size_t const end = t.name.rfind(".weight");
      if (end == std::string::npos || t.name.find("experts.") == std::string::npos) continue;
      found.emplace_back(t.name.substr(0, end), t.shape);
    }
    EXPECT_GE(found.size(), 24u);
    for (auto const& [name, shape] : found) change(name, shape);
  }

 private:
  static published_family sized(published_family p, int width, int intermediate) {
    p.is.f.width = width;
    p.is.f.intermediate = intermediate;
    if (p.is.f.shared > 0) p.is.f.shared = intermediate;
    p.config["hidden_size"] = width;
    for (char const* key : {"moe_intermediate_size", "intermediate_size"}) {
      if (p.config.contains(key)) p.config[key] = intermediate;
    }
    return p;
  }
};

/// Bytes of any numbers but e4m3's NaN.
inline std::vector<std::uint8_t> numbers(std::uint64_t count, rng& d) {
  std::vector<std::uint8_t> v(static_cast<std::size_t>(count));
  for (auto& b : v) {
    do { b = static_cast<std::uint8_t>(d.below(256)); } while ((b & 0x7f) == 0x7f);
  }
  return v;
}
template <class G, class W>
guarded<bf16> output(on_host const& on, a_checkpoint const& c,
                     moe_weights<bf16, G, space::host, W> const& w,
                     layer_options<activation> const& o) {
  auto const T = static_cast<index_t>(c.p.is.f.tokens), H = c.p.is.f.width;
  guarded<bf16> y(c.s.x.size());
  guarded<std::byte> work(moe_layer_scratch_bytes(on, T, w, o));
  status const done = moe_layer(on, c.s.x.as(T, H), w, y.as(T, H), work, o);
  EXPECT_TRUE(done.ok()) << done.message();
  return y;
}

/// Calls f(weights) where the layer's experts are of format F and its gate is bf16.
template <class F, class Call>
void as_stored(checkpoint::stored_layer const& layer, Call const& f) {
  bool called = false;
  layer.visit([&]<class T, class G, class W>(moe_weights<T, G, space::host, W> const& w) {
    if constexpr (std::is_same_v<G, bf16> && std::is_same_v<W, F>) {
      f(w);
      called = true;
    }
  });
  EXPECT_TRUE(called) << "the layer is of another type";
}

/// The layer as it is stored, and the same decoded to float by the reader (which has tests of its own).
template <class F> void has_the_bits_of_the_decoded(a_checkpoint const& c, fs::path const& folder) {
  SCOPED_TRACE(c.p.name);
  write_checkpoint(folder, c.p.config, c.tensors, 3);
  auto const wide = checkpoint::load_layer(folder, 2, {.widen = true});
  auto const layer = checkpoint::load_stored_layer(folder, 2, {.threads = 3});
  as_stored<F>(layer, [&](moe_weights<bf16, bf16, space::host, F> const& w) {
    EXPECT_EQ(bool(w.shared_up), c.p.is.f.shared > 0);
    offset_t bytes = 0;
    for (auto const* m : {&w.up, &w.down, &w.shared_up, &w.shared_down}) {
      bytes += m->packed_elements();
    }
    EXPECT_EQ(layer.bytes_owned(), static_cast<std::uint64_t>(bytes)) << "nothing but packed bytes";
    wide.visit([&]<class T, class G>(moe_weights<T, G> const& decoded) {
      if constexpr (std::is_same_v<T, float>) {
        auto const floats = with_experts<float>(w, decoded.up, decoded.down, decoded.shared_up,
                                                decoded.shared_down);
        guarded<bf16> const want = output({.threads = 1}, c, floats, layer.options());
        EXPECT_TRUE(all_finite(want));
        float most = 0;
        for (bf16 v : want) most = std::max(most, std::abs(to_float(v)));
        EXPECT_GT(most, 1e-3f) << "nothing comes out: this test proves nothing";
        // The shared experts may be bf16: those configs that compute them as the default does.
        auto const arithmetics = host_arithmetics<bf16>();
        for (on_host const& on : arithmetics.back()) {
          EXPECT_TRUE(same_bits(output(on, c, w, layer.options()), want)) << name_of(on);
        }
      } else {
        ADD_FAILURE() << "the layer was not decoded to float";
      }
    });
  });
  fs::remove_all(folder);
}

}  // namespace shunt::test
