// The layer against formulas in double: every published family, every storage type.
#include "shunt/layer.hpp"

#include <gtest/gtest.h>

#include "support/layer_cases.hpp"
#include "support/storage_types.hpp"

namespace shunt::test {
namespace layer_test {

template <class T> class LayerOf : public testing::Test {};
TYPED_TEST_SUITE(LayerOf, storage_types);

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

/// A preset's family, with fewer and narrower experts.
layer_case reduced(preset const& p) {
  layer_case c;
  c.name = p.name;
  c.route = p.route;
  c.route.jitter = 0.0f;  // draws are tested with the router
  c.route.random_second = false;
  layer_formula& f = c.f;
  f.tokens = 11;
  f.width = 17;
  f.intermediate = 7;
  f.experts = p.route.groups > 1 ? 2 * p.route.groups : std::min(p.sizes.experts, index_t{9});
  if (p.route.zero_experts > 0) c.route.zero_experts = 3;
  f.top_k = std::min(p.sizes.top_k, index_t{4});
  f.activation = p.activation;
  if (p.activation_limit > 0.0f) f.limit = static_cast<double>(p.activation_limit);
  f.latent = p.model_hidden > 0;
  f.hidden = f.latent ? 8 : f.width;
  f.shared = p.shared_experts > 0 ? 5 : 0;
  f.shared_gated = p.shared_gate;
  f.gate_bias = p.gate_bias;
  f.biases = p.expert_biases;
  f.interleave = p.interleaved ? 1 : 0;
  if (p.balance == balance_kind::auxiliary_loss) f.balance = 0.01;
  c.choice_bias = p.choice_bias;
  if (p.capacity > 0.0f) {
    shape const s{.tokens = f.tokens, .experts = f.experts, .top_k = f.top_k};
    c.capacity = capacity_rows(s, static_cast<double>(p.capacity));
  }
  if (p.choice == choice_kind::expert_choice) {
    c.taken = c.capacity;
    c.capacity = 0;
    f.balance = 0.0;
  }
  return c;
}

TEST(LayerPresets, EachIsItsFormulas) {
  int cases = 0;
  for (preset const* const p : presets::all) {
    SCOPED_TRACE(p->name);
    outcome<float> o(reduced(*p));
    if (testing::Test::HasFailure()) return;
    ASSERT_TRUE(not_flat(o.y()));
    EXPECT_TRUE(close(o.run.y, o.y(), lost<float>));
    EXPECT_TRUE(close(o.run.d_x, o.gradients.x, lost<float>));
    EXPECT_TRUE(close(o.run.d.gate, o.gradients.gate, lost<float>));
    EXPECT_TRUE(close(o.run.d.up, o.gradients.up, lost<float>));
    EXPECT_TRUE(close(o.run.d.down, o.gradients.down, lost<float>));
    EXPECT_LT(relative_distance(o.run.d.gate, o.gradients.gate), 3e-6);
    ++cases;
  }
  EXPECT_GE(cases, 20);
}

/// The library's choice is the formulas', but where two scores are nearly equal.
TEST(LayerPresets, EachChoosesByItsFormulas) {
  for (preset const* const p : presets::all) {
    SCOPED_TRACE(p->name);
    layer_case c = reduced(*p);
    if (c.taken > 0) continue;
    c.capacity = 0;
    layer_setup<float> s(c);
    layer_run<float> r(on_host{.threads = 1}, s, s.options());
    ASSERT_TRUE(r.forward.ok()) << r.forward.message();
    r.tell(s.is.f);
    auto const scores = layer_forward(s.is.f, s.numbers()).scores;
    layer_choice const want = choose(s.is.f, scores, in_double(s.choice_bias), c.route.groups,
                                     c.route.top_groups, c.route.group_by);
    ASSERT_GT(want.margin, 1e-6) << "a near tie: this seed decides nothing";
    EXPECT_EQ(s.is.f.chosen, want.ids);
  }
}

}  // namespace layer_test
}  // namespace shunt::test
