// The layer against formulas in double: every published family, every storage type.
#include "shunt/layer.hpp"

#include <gtest/gtest.h>

#include "support/layer_cases.hpp"

namespace shunt::test {
namespace {

using Types = testing::Types<float, bf16, fp16>;
template <class T> class LayerOf : public testing::Test {};
TYPED_TEST_SUITE(LayerOf, Types);

/// Float roundings, in units of the magnitude, that a value of the layer may lose; of T where it is
/// stored on the way: an input of the next product is off by half a step of T.
template <class T> constexpr double lost = 24.0 + 3.0 * (unit_roundoff<T>() / 0x1p-24 - 1.0);

template <class T> struct outcome {
  layer_setup<T> setup;
  layer_run<T> run;
  layer_result<var> expected;
  layer_numbers<expectation> gradients;

  explicit outcome(layer_case const& c)
      : setup(c), run(on_host{.threads = 1}, setup, setup.options()) {
    EXPECT_TRUE(run.forward.ok()) << run.forward.message();
    EXPECT_TRUE(run.backward.ok()) << run.backward.message();
    if (!run.forward.ok() || !run.backward.ok()) return;
    run.tell(setup.is.f);
    gradients = layer_gradients(setup.is.f, setup.numbers(), in_double(setup.d_y), &expected);
  }
  [[nodiscard]] std::vector<expectation> y() const {
    std::vector<expectation> values;
    for (var const& v : expected.y) values.push_back({v.v, v.m});
    return values;
  }
};

TYPED_TEST(LayerOf, OutputIsTheFormulas) {
  for (layer_case const& c : layer_families()) {
    SCOPED_TRACE(c.name);
    outcome<TypeParam> o(c);
    if (testing::Test::HasFailure()) return;
    ASSERT_TRUE(not_flat(o.y()));
    EXPECT_TRUE(close(o.run.y, o.y(), lost<TypeParam>));
    EXPECT_LT(relative_distance(o.run.y, o.y()), 4 * unit_roundoff<TypeParam>() + 1e-6);
  }
}

TYPED_TEST(LayerOf, GradientsAreTheFormulas) {
  for (layer_case const& c : layer_families()) {
    SCOPED_TRACE(c.name);
    outcome<TypeParam> o(c);
    if (testing::Test::HasFailure()) return;
    auto const check = [&](char const* name, auto const& got, auto const& want) {
      SCOPED_TRACE(name);
      ASSERT_TRUE(not_flat(want));
      EXPECT_TRUE(close(got, want, lost<TypeParam>));
      EXPECT_LT(relative_distance(got, want), 6 * unit_roundoff<TypeParam>() + 2e-6);
    };
    layer_numbers<expectation> const& g = o.gradients;
    check("x", o.run.d_x, g.x);
    check("gate", o.run.d.gate, g.gate);
    check("gate_bias", o.run.d.gate_bias, g.gate_bias);
    check("up", o.run.d.up, g.up);
    check("down", o.run.d.down, g.down);
    check("up_bias", o.run.d.up_bias, g.up_bias);
    check("down_bias", o.run.d.down_bias, g.down_bias);
    check("shared_up", o.run.d.shared_up, g.shared_up);
    check("shared_down", o.run.d.shared_down, g.shared_down);
    check("shared_gate", o.run.d.shared_gate, g.shared_gate);
    check("latent_down", o.run.d.latent_down, g.latent_down);
    check("latent_up", o.run.d.latent_up, g.latent_up);
  }
}

}  // namespace
}  // namespace shunt::test
