// Layers of published families against their own modules in Hugging Face transformers, as
// tests/golden/make.py recorded them: choice, gates, output and every gradient.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "support/golden.hpp"

namespace shunt::test {
namespace examples_golden_test {

namespace fs = std::filesystem;

std::vector<fs::path> golden_paths(std::string const& kind) {
  std::vector<fs::path> paths;
  for (auto const& entry : fs::directory_iterator(fs::path(__FILE__).parent_path() / "golden")) {
    std::string const name = entry.path().filename().string();
    if (name.ends_with("." + kind + ".safetensors")) paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

/// In float roundings of the magnitude. Shunt's own are layer_test's bound. The reference sums in an
/// order of its own, in float too; in 16 bits it stores what Shunt keeps in float as well: logits,
/// gates, both factors of the activation, each expert's output, its product with the gate, the sum
/// after each expert. Backward stores the gradients of each of them.
template <class T> constexpr double step = unit_roundoff<T>() / 0x1p-24;
template <class T> constexpr double own = 24.0 + 3.0 * (step<T> - 1.0);
template <class T> constexpr double reference_forward = 24.0 + 12.0 * (step<T> - 1.0);
template <class T> constexpr double reference_backward = 24.0 + 24.0 * (step<T> - 1.0);

/// What two sides that both round may differ by, as a whole.
template <class T>
constexpr double apart = (std::is_same_v<T, float> ? 12.0 : 3.0) * unit_roundoff<T>();

/// The reference's value with the magnitude of the formulas.
template <class Buffer>
std::vector<expectation> with_magnitudes(Buffer const& values,
                                         std::vector<expectation> const& formulas) {
  std::vector<expectation> out;
  for (std::size_t i = 0; i < values.size(); ++i) {
    out.push_back({static_cast<double>(to_float(values[i])), formulas.at(i).magnitude});
  }
  return out;
}

/// Both against each other, and the reference against the formulas in double.
template <class T, class Got, class Reference>
std::string compare(std::string const& name, Got const& got, Reference const& reference,
                    std::vector<expectation> const& formulas, double reference_lost) {
  auto const want = with_magnitudes(reference, formulas);
  if (auto flat = not_flat(want); !flat) return name + ": " + flat.message();
  if (auto near = close(got, want, own<T> + reference_lost); !near) {
    return name + ": " + near.message();
  }
  if (auto near = close(reference, formulas, reference_lost); !near) {
    return name + " of the reference and the formulas: " + near.message();
  }
  double const off = relative_distance(got, want);
  if (!(off <= apart<T>)) {
    return name + " is off by " + std::to_string(off) + " of its root mean square; at most " +
           std::to_string(apart<T>) + " is allowed";
  }
  return {};
}

/// A golden file, and the layer that the checkpoint reader makes of it.
template <class T> struct golden_run {
  golden_file file;
  checkpoint::loaded_layer loaded;
  guarded<index_t> token;
  moe_weights<T> w;
  layer_options<activation> o;
  layer_setup<T> setup;

  explicit golden_run(fs::path const& path)
      : file(path), loaded(file.layer()), w(weights_of()), o(loaded.options()), setup(prepared()) {}

 private:
  [[nodiscard]] moe_weights<T> weights_of() const {
    return loaded.visit([&]<class W, class G>(moe_weights<W, G> const& all) -> moe_weights<T> {
      if constexpr (std::is_same_v<W, T> && std::is_same_v<G, T>) return all;
      file.file().refuse("it was loaded as another type");
    });
  }
  [[nodiscard]] layer_setup<T> prepared() {
    if (loaded.by_token()) {
      token = file.array<index_t>("token");
      o.token = token.as(file.tokens());
    }
    auto s = setup_of(w, o, file.tokens());
    s.x = file.array<T>("x");
    s.d_y = file.array<T>("d_y");
    return s;
  }
};

/// The first thing in which Shunt's layer, with these options, is not the reference; or nothing.
template <class T>
std::string difference(golden_run<T> const& g, moe_weights<T> const& w,
                       layer_options<activation> const& o) {
  layer_setup<T> const& s = g.setup;
  layer_run<T> run(on_host{.threads = 1}, s, o, w, true);
  if (!run.forward.ok()) return run.forward.message();
  if (!run.backward.ok()) return run.backward.message();
  layer_formula f = s.is.f;
  run.tell(f);

  // The choice: each token's experts, in any order.
  auto const choice = g.file.template array<index_t>("choice");
  auto const gates = g.file.template array<float>("gates");
  if (choice.size() != f.chosen.size()) return "the choice has another size";
  guarded<float> got_gates(gates.size()), want_gates(gates.size());
  for (int t = 0; t < f.tokens; ++t) {
    auto const slot = [&](int k) { return static_cast<std::size_t>(t * f.top_k + k); };
    for (int k = 0; k < f.top_k; ++k) {
      auto const first = choice.data() + slot(0), last = first + f.top_k;
      auto const found = std::find(first, last, f.chosen[slot(k)]);
      if (found == last || std::count(first, last, *found) != 1) {
        return "token " + std::to_string(t) + " chose expert " + std::to_string(f.chosen[slot(k)]);
      }
      want_gates[slot(k)] = gates[slot(static_cast<int>(found - first))];
      got_gates[slot(k)] = run.saved.choice.gate(t, k);
    }
  }

  layer_result<var> formulas;
  auto const d = layer_gradients(f, s.numbers(), in_double(s.d_y), &formulas);
  auto const values = [](std::vector<var> const& of) {
    std::vector<expectation> all;
    for (var const& v : of) all.push_back({v.v, v.m});
    return all;
  };
  std::string wrong =
      compare<T>("gates", got_gates, want_gates, values(formulas.gates), reference_forward<T>);
  if (!wrong.empty()) return wrong;
  wrong = compare<T>("y", run.y, g.file.template array<T>("y"), values(formulas.y),
                     reference_forward<T>);
  int compared = 0;
  auto const gradient = [&](char const* name, auto const& got,
                            std::vector<expectation> const& want) {
    if (!wrong.empty() || got.size() == 0) return;
    wrong = compare<T>(name, got, g.file.template array<T>(name), want, reference_backward<T>);
    ++compared;
  };
  gradient("d_x", run.d_x, d.x);
  gradient("d_gate", run.d.gate, d.gate);
  gradient("d_gate_bias", run.d.gate_bias, d.gate_bias);
  gradient("d_up", run.d.up, d.up);
  gradient("d_down", run.d.down, d.down);
  gradient("d_up_bias", run.d.up_bias, d.up_bias);
  gradient("d_down_bias", run.d.down_bias, d.down_bias);
  gradient("d_shared_up", run.d.shared_up, d.shared_up);
  gradient("d_shared_down", run.d.shared_down, d.shared_down);
  gradient("d_shared_gate", run.d.shared_gate, d.shared_gate);
  gradient("d_latent_down", run.d.latent_down, d.latent_down);
  gradient("d_latent_up", run.d.latent_up, d.latent_up);
  int recorded = 0;
  for (auto const& [name, tensor] : g.file.file().tensors()) {
    recorded += name.starts_with("reference.d_") && name != "reference.d_y" ? 1 : 0;
  }
  if (wrong.empty() && compared != recorded) return "a gradient of the file was not compared";
  return wrong;
}

template <class T> class Golden : public testing::Test {
 protected:
  static std::vector<fs::path> paths() {
    return golden_paths(std::is_same_v<T, float> ? "f32" : "bf16");
  }
};
using golden_types = testing::Types<float, bf16>;
TYPED_TEST_SUITE(Golden, golden_types);

TYPED_TEST(Golden, LayersAreTheReferences) {
  ASSERT_GE(this->paths().size(), 18u);
  for (fs::path const& path : this->paths()) {
    SCOPED_TRACE(path.filename().string());
    golden_run<TypeParam> g(path);
    EXPECT_EQ(difference(g, g.w, g.o), "");
  }
}

/// Wrong numbers are noticed: a factor of 1.03, halves in the other order, two experts exchanged.
TYPED_TEST(Golden, NoticesWhatIsWrong) {
  for (fs::path const& path : this->paths()) {
    SCOPED_TRACE(path.filename().string());
    golden_run<TypeParam> g(path);
    auto scaled = g.o;
    scaled.route.scale *= 1.03f;
    EXPECT_NE(difference(g, g.w, scaled), "");
    auto swapped = g.w;
    if (swapped.up.has_pairs()) {
      pair_layout other = swapped.up.pairs();
      other.order = pair_order::up_gate;
      swapped.up = swapped.up.in_pairs(other);
      EXPECT_NE(difference(g, swapped, g.o), "");
    }
    guarded<TypeParam> exchanged = rows_of(g.w.down);
    std::size_t const one = exchanged.size() / static_cast<std::size_t>(g.w.down.experts());
    std::swap_ranges(exchanged.data(), exchanged.data() + one, exchanged.data() + one);
    auto wrong = g.w;
    wrong.down = exchanged.as(wrong.down.experts(), wrong.down.rows(), wrong.down.columns());
    EXPECT_NE(difference(g, wrong, g.o), "");
  }
}

/// A choice by scores without their bias is not the reference's.
TYPED_TEST(Golden, NoticesAMissingBias) {
  int noticed = 0;
  for (fs::path const& path : this->paths()) {
    golden_run<TypeParam> g(path);
    if (!g.w.choice_bias) continue;
    auto without = g.w;
    without.choice_bias = {};
    noticed += difference(g, without, g.o).find("chose expert") != std::string::npos ? 1 : 0;
  }
  EXPECT_GE(noticed, 6);
}

}  // namespace examples_golden_test
}  // namespace shunt::test
