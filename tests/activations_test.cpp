// Activations: values and derivatives against the formulas, lanes against scalars, masks where the
// forward clamps, a user's own, and the passes by rows.
#include <gtest/gtest.h>

#include <tuple>

#include "support/experts_case.hpp"

namespace shunt::test {
namespace activations_test {

constexpr activation_kind kinds[] = {
    activation_kind::identity, activation_kind::relu,           activation_kind::relu2,
    activation_kind::gelu,     activation_kind::gelu_tanh,      activation_kind::swiglu,
    activation_kind::geglu,    activation_kind::swiglu_clamped, activation_kind::swiglu_capped,
    activation_kind::situ_glu};

std::vector<std::pair<float, float>> points() {
  std::vector<std::pair<float, float>> all;
  float const edges[] = {0.0f,   -0.0f,  1e-30f, -1e-30f, 0.5f,   -0.5f, 1.0f,    -1.0f,
                         3.0f,   -3.0f,  6.999f, 7.0f,    7.001f, -7.0f, -7.001f, 10.0f,
                         10.01f, -10.0f, 20.0f,  -20.0f,  60.0f,  -60.0f};
  for (float g : edges) {
    for (float u : edges) all.emplace_back(g, u);
  }
  rng d(5);
  while (all.size() % 128 != 37) {  // odd: the passes by rows end inside a vector
    all.emplace_back(static_cast<float>(4 * d.normal()), static_cast<float>(4 * d.normal()));
  }
  return all;
}

/// Runs a generic function with the type of each kind.
template <class F> void with_type(activation_kind kind, F&& f) {
  switch (kind) {
    case activation_kind::identity: return f(identity{});
    case activation_kind::relu: return f(relu{});
    case activation_kind::relu2: return f(relu2{});
    case activation_kind::gelu: return f(gelu{});
    case activation_kind::gelu_tanh: return f(gelu_tanh{});
    case activation_kind::swiglu: return f(swiglu{});
    case activation_kind::geglu: return f(geglu{});
    case activation_kind::swiglu_clamped: return f(swiglu_clamped{});
    case activation_kind::swiglu_capped: return f(swiglu_capped{});
    case activation_kind::situ_glu: return f(situ_glu{});
  }
}

/// value, d/dgate, d/dup of the public type on one point.
template <class A> slopes_of_pair scalar(A const& act, float g, float u) {
  if constexpr (A::gated) {
    return act.slopes(g, u);
  } else {
    auto const s = act.slope(g);
    return {s.value, s.slope, 0.0f};
  }
}

TEST(Activations, ValuesAndDerivativesAreTheFormulas) {
  for (activation_kind kind : kinds) {
    SCOPED_TRACE(to_string(kind));
    activation const chosen(kind);
    with_type(kind, [&](auto const& act) {
      std::vector<float> value, gate, up;
      std::vector<expectation> want_value, want_gate, want_up;
      auto const all = points();
      for (auto const& [g, u] : all) {
        auto const is = scalar(act, g, u);
        auto const must =
            activation_formula(kind, static_cast<double>(g), static_cast<double>(u),
                               static_cast<double>(chosen.a), static_cast<double>(chosen.b));
        // A derivative is a sum of terms of the size of 1 + |g|, each times what the other half is.
        double const size = 1 + std::abs(static_cast<double>(g));
        double const other = is_gated(kind) ? std::abs(static_cast<double>(u)) + 1 : 1;
        value.push_back(is.value);
        gate.push_back(is.gate);
        up.push_back(is.up);
        double const tail = 0x1p-120;  // e^-x is subnormal, or its factors are
        want_value.push_back({must.value, must.magnitude + tail});
        want_gate.push_back({must.gate, size * other});
        want_up.push_back({must.up, tail + std::abs(must.up) + std::abs(must.value) +
                                        (kind == activation_kind::geglu ? size : 0)});
      }
      EXPECT_TRUE(not_flat(want_value));
      EXPECT_TRUE(close(value, want_value, 12));
      EXPECT_TRUE(close(gate, want_gate, 24));
      EXPECT_TRUE(close(up, want_up, 24));
    });
  }
}

TEST(Activations, DerivativesAreThoseOfTheValues) {
  for (activation_kind kind : kinds) {
    SCOPED_TRACE(to_string(kind));
    activation const c(kind);
    auto const f = [&](double g, double u) {
      return activation_formula(kind, g, u, static_cast<double>(c.a), static_cast<double>(c.b));
    };
    rng d(9);
    for (int i = 0; i < 200; ++i) {
      double const g = 5 * d.normal(), u = 5 * d.normal(), h = 1e-5;
      if (std::abs(g) < 1e-3 || std::abs(std::abs(g) - 7) < 1e-3 ||
          std::abs(std::abs(u) - 7) < 1e-3 || std::abs(std::abs(u) - 10) < 1e-3 ||
          std::abs(g - 10) < 1e-3) {
        continue;  // a corner
      }
      auto const at = f(g, u);
      EXPECT_NEAR(at.gate, (f(g + h, u).value - f(g - h, u).value) / (2 * h), 1e-6 * (1 + u * u));
      EXPECT_NEAR(at.up, (f(g, u + h).value - f(g, u - h).value) / (2 * h), 1e-6 * (1 + u * u));
    }
  }
}

// The mask is zero exactly where the forward clamped, and one float before it is not.
TEST(Activations, TheMaskIsZeroExactlyWhereTheForwardClamped) {
  float const beyond = std::nextafterf(7.0f, 8.0f), below = std::nextafterf(-7.0f, -8.0f);
  swiglu_clamped const act;
  EXPECT_NE(act.slopes(7.0f, 1.0f).gate, 0.0f);
  EXPECT_EQ(act.slopes(beyond, 1.0f).gate, 0.0f);
  EXPECT_NE(act.slopes(-60.0f, 1.0f).gate, 0.0f);  // the gate is held from above only
  EXPECT_NE(act.slopes(1.0f, 7.0f).up, 0.0f);
  EXPECT_EQ(act.slopes(1.0f, beyond).up, 0.0f);
  EXPECT_NE(act.slopes(1.0f, -7.0f).up, 0.0f);
  EXPECT_EQ(act.slopes(1.0f, below).up, 0.0f);
  EXPECT_EQ(act.value(beyond, below), act.value(7.0f, -7.0f));
  swiglu_capped const capped{.limit = 7.0f};
  EXPECT_NE(capped.slopes(7.0f, 1.0f).gate, 0.0f);
  EXPECT_EQ(capped.slopes(beyond, 1.0f).gate, 0.0f);
  EXPECT_EQ(capped.slopes(1.0f, beyond).up, 0.0f);
  EXPECT_EQ(capped.slopes(1.0f, below).up, 0.0f);
  EXPECT_NE(capped.slopes(1.0f, -7.0f).up, 0.0f);
}

TEST(Activations, NanComesThrough) {
  float const nan = untouched<float>();
  for (activation_kind kind : kinds) {
    with_type(kind, [&](auto const& act) {
      EXPECT_TRUE(std::isnan(scalar(act, nan, 1.0f).value)) << to_string(kind);
      if (is_gated(kind)) {
        EXPECT_TRUE(std::isnan(scalar(act, 1.0f, nan).value)) << to_string(kind);
      }
    });
  }
}

/// A user's own: gated, with a parameter, and a plain one.
struct soft_gate {
  static constexpr bool gated = true;
  float steepness = 2.0f;
  [[nodiscard]] float value(float g, float u) const { return slopes(g, u).value; }
  [[nodiscard]] slopes_of_pair slopes(float g, float u) const {
    float const s = math::sigmoid(steepness * g);
    return {s * u, steepness * s * (1.0f - s) * u, s};
  }
};
struct softplus_unit {
  static constexpr bool gated = false;
  [[nodiscard]] float value(float x) const { return math::softplus(x); }
  [[nodiscard]] slope_of_one slope(float x) const { return {math::softplus(x), math::sigmoid(x)}; }
};
static_assert(activation_function<soft_gate> && activation_function<softplus_unit>);
struct no_activation {};
static_assert(!any_activation<no_activation> && any_activation<activation>);

/// ⟨a, b⟩ as the gate's gradient has it: of each 32 columns the products, rounded, by halves (16 with 16, 8 with 8,
/// …), and these sums in ascending order. Zeros stand behind the last column.
float dot_by_strips(std::vector<float> const& a, std::vector<float> const& b) {
  float dot = 0.0f;
  for (std::size_t first = 0; first < a.size(); first += 32) {
    float part[32] = {};
    for (std::size_t j = 0; j < 32 && first + j < a.size(); ++j) {
      part[j] = std::fmaf(a[first + j], b[first + j], 0.0f);  // no * that could be fused with the +
    }
    for (std::size_t half = 16; half > 0; half /= 2) {
      for (std::size_t j = 0; j < half; ++j) part[j] += part[j + half];
    }
    dot += part[0];
  }
  return dot;
}

/// The passes by rows equal the scalar types, bit for bit, in every world.
template <class A, class Scalar> void rows_are_the_scalars(A const& act, Scalar const& one) {
  auto const all = points();
  constexpr int R = 3;
  int const I = static_cast<int>(all.size()), halves = gated(act) ? 2 : 1;
  guarded<float> pre(static_cast<std::size_t>(R * halves * I)),
      d_act(static_cast<std::size_t>(R * I));
  guarded<float> const factor(std::vector<float>{1.0f, 0.3f, -2.5f});
  rng d(4);
  for (int r = 0; r < R; ++r) {
    for (int i = 0; i < I; ++i) {
      pre.as(R, halves * I)(r, i) = all[static_cast<std::size_t>(i)].first;
      if (halves == 2) pre.as(R, halves * I)(r, I + i) = all[static_cast<std::size_t>(i)].second;
      d_act.as(R, I)(r, i) = static_cast<float>(d.normal());
    }
  }
  for (on_host const& on : host_configs()) {
    guarded<float> out(d_act.size()), act_out(d_act.size()), d_pre(pre.size()), d_scale(R);
    ASSERT_TRUE(
        activation_forward(on, pre.as(R, halves * I), act, out.as(R, I), {.scale = {factor.as(R)}})
            .ok());
    ASSERT_TRUE(activation_backward(
                    on, d_act.as(R, I), pre.as(R, halves * I), act, d_pre.as(R, halves * I),
                    {.scale = {factor.as(R)}, .act = act_out.as(R, I), .d_scale = d_scale.as(R)})
                    .ok());
    EXPECT_TRUE(same_bits(out, act_out)) << name_of(on);
    for (int r = 0; r < R; ++r) {
      double dot = 0, size = 0;
      std::vector<float> values, gradients;
      for (int i = 0; i < I; ++i) {
        auto const [g, u] = all[static_cast<std::size_t>(i)];
        slopes_of_pair const s = scalar(one, g, u);
        float const f = factor[static_cast<std::size_t>(r)], given = d_act.as(R, I)(r, i) * f;
        ASSERT_EQ(out.as(R, I)(r, i), s.value * f) << name_of(on) << " at " << g << ", " << u;
        ASSERT_EQ(d_pre.as(R, halves * I)(r, i), given * s.gate) << " at " << g << ", " << u;
        if (halves == 2) {
          ASSERT_EQ(d_pre.as(R, halves * I)(r, I + i), given * s.up) << " at " << g << ", " << u;
        }
        values.push_back(s.value);
        gradients.push_back(d_act.as(R, I)(r, i));
        double const p = static_cast<double>(d_act.as(R, I)(r, i)) * static_cast<double>(s.value);
        dot += p;
        size += std::abs(p);
      }
      EXPECT_NEAR(static_cast<double>(d_scale[static_cast<std::size_t>(r)]), dot,
                  size * 0x1p-24 * (I / 32 + 8));
      EXPECT_EQ(d_scale[static_cast<std::size_t>(r)], dot_by_strips(gradients, values))
          << name_of(on);
    }
  }
}

TEST(Activations, PassesByRowsAreTheScalarFunctionsInEveryWorld) {
  for (activation_kind kind : kinds) {
    SCOPED_TRACE(to_string(kind));
    with_type(kind, [&](auto const& act) {
      rows_are_the_scalars(act, act);
      rows_are_the_scalars(activation(act), act);
      rows_are_the_scalars(activation(kind), act);
    });
  }
}

TEST(Activations, AUsersOwn) {
  rows_are_the_scalars(soft_gate{.steepness = 1.5f}, soft_gate{.steepness = 1.5f});
  rows_are_the_scalars(softplus_unit{}, softplus_unit{});
}

TEST(Activations, RowsInNoSegmentAndPaddingRows) {
  constexpr int R = 6, I = 33;
  auto pre = normal_values<bf16>(R * 2 * I, 1);
  auto d_act = normal_values<float>(R * I, 2);
  for (int i = 0; i < 2 * I; ++i) pre.as(R, 2 * I)(2, i) = untouched<bf16>();
  for (int i = 0; i < I; ++i) d_act.as(R, I)(2, i) = untouched<float>();
  guarded<index_t> const slot(std::vector<index_t>{3, 0, -1, 1, 2, 2});
  guarded<float> const gate(std::vector<float>{0.5f, 0.25f, 2.0f, -1.0f});
  guarded<index_t> const offset(std::vector<index_t>{0, 5});
  for (on_host const& on : host_configs()) {
    guarded<bf16> d_pre(pre.size()), act(R * I);
    guarded<float> d_gate(R);
    ASSERT_TRUE(activation_backward(on, d_act.as(R, I), pre.as(R, 2 * I), swiglu{},
                                    d_pre.as(R, 2 * I),
                                    {.rows = {offset.as(2)},
                                     .scale = {gate.as(4), slot.as(R)},
                                     .act = act.as(R, I),
                                     .d_scale = d_gate.as(R)})
                    .ok());
    for (int i = 0; i < I; ++i) {
      EXPECT_EQ(d_pre.as(R, 2 * I)(2, i).bits, 0);
      EXPECT_EQ(act.as(R, I)(2, i).bits, 0);
      EXPECT_TRUE(std::isnan(to_float(act.as(R, I)(5, i))));  // not in use: not written
      float const g = to_float(pre.as(R, 2 * I)(0, i)), u = to_float(pre.as(R, 2 * I)(0, I + i));
      EXPECT_EQ(act.as(R, I)(0, i), from_float<bf16>(swiglu{}.value(g, u) * -1.0f));
    }
    EXPECT_EQ(d_gate[2], 0.0f);
    EXPECT_TRUE(std::isnan(d_gate[5]));
  }
}

TEST(Activations, InPlace) {
  constexpr int R = 5, I = 150;
  auto const pre = normal_values<float>(R * 2 * I, 1), d_act = normal_values<float>(R * I, 2);
  guarded<float> d_pre(pre.size()), act(d_act.size());
  guarded<float> both = pre, both_act = d_act;
  for (auto [in, in_act, out, out_act] :
       {std::tuple{&pre, &d_act, &d_pre, &act},
        std::tuple{static_cast<guarded<float> const*>(&both),
                   static_cast<guarded<float> const*>(&both_act), &both, &both_act}}) {
    ASSERT_TRUE(activation_backward(on_host{}, in_act->as(R, I), in->as(R, 2 * I), geglu{},
                                    out->as(R, 2 * I), {.act = out_act->as(R, I)})
                    .ok());
  }
  EXPECT_TRUE(same_bits(d_pre, both) && same_bits(act, both_act));
}

TEST(Activations, TheKindKeepsItsPublishedNumbers) {
  EXPECT_EQ(activation(activation_kind::swiglu_clamped).a, 1.702f);
  EXPECT_EQ(activation(activation_kind::swiglu_clamped).b, 7.0f);
  EXPECT_EQ(activation(activation_kind::situ_glu).a, 4.0f);
  EXPECT_EQ(activation(activation_kind::situ_glu).b, 25.0f);
  EXPECT_EQ(activation(swiglu_capped{.limit = 3.0f}).a, 3.0f);
  EXPECT_TRUE(gated(activation(swiglu{})) && !gated(activation(relu2{})));
}

}  // namespace activations_test
}  // namespace shunt::test
