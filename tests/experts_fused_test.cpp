// What grouped_gemm does to its sums in the same pass: bias, kept pre-activations, activation, row
// factors; and what the checks say about bad arguments.
#include <gtest/gtest.h>

#include "support/experts_case.hpp"
#include "support/storage_types.hpp"

namespace shunt::test {
namespace experts_fused_test {

constexpr activation_kind kinds[] = {
    activation_kind::identity, activation_kind::relu,           activation_kind::relu2,
    activation_kind::gelu,     activation_kind::gelu_tanh,      activation_kind::swiglu,
    activation_kind::geglu,    activation_kind::swiglu_clamped, activation_kind::swiglu_capped,
    activation_kind::situ_glu};

template <class T> class ExpertsFused : public testing::Test {};
TYPED_TEST_SUITE(ExpertsFused, storage_types);

// The kept pre-activations are the product plus bias; the output is the activation of what was kept.
TYPED_TEST(ExpertsFused, BiasPreActivationsActivationAndFactor) {
  using T = TypeParam;
  for (auto const& configs : host_arithmetics<T>()) {
    constexpr int I = 83, K = 270;
    for (activation_kind kind : kinds) {
      SCOPED_TRACE(to_string(kind));
      activation const act(kind);
      int const N = is_gated(kind) ? 2 * I : I;
      product_case<T> x({3, 0, 30, 99}, N, K);
      for (T& v : x.w) v = from_float<T>(to_float(v) * 0.4f);  // pre-activations of a few units
      auto const bias = normal_values<T>(static_cast<std::size_t>(x.E * N), 3);
      auto const factor = normal_values<float>(static_cast<std::size_t>(x.R), 4);
      guarded<T> first_c, first_pre;
      for (on_host const& on : configs) {
        guarded<T> c(static_cast<std::size_t>(x.R * I)), pre(x.dc.size());
        status const s = grouped_gemm(
            on, x.a.as(x.R, K), x.w.as(x.E, N, K), x.rows, c.as(x.R, I), act,
            {.bias = bias.as(x.E, N), .pre = pre.as(x.R, N), .scale = {factor.as(x.R)}});
        ASSERT_TRUE(s.ok()) << s.message();
        guarded<T> again(c.size()), alone(c.size()), rounded(c.size());
        ASSERT_TRUE(activation_forward(on, pre.as(x.R, N), act, again.as(x.R, I),
                                       {.scale = {factor.as(x.R)}})
                        .ok());
        EXPECT_TRUE(same_bits(c, again)) << name_of(on);
        ASSERT_TRUE(
            grouped_gemm(on, x.a.as(x.R, K), x.w.as(x.E, N, K), x.rows, rounded.as(x.R, I), act,
                         {.bias = bias.as(x.E, N), .round_pre = true, .scale = {factor.as(x.R)}})
                .ok());
        EXPECT_TRUE(same_bits(c, rounded)) << name_of(on);
        if (first_c.size() == 0) {
          first_c = c;
          first_pre = pre;
          EXPECT_TRUE(
              close(pre, product(in_double(x.a), in_double(x.w), in_double(bias), x.expert, N, K),
                    K + 2));
          std::vector<expectation> want;
          for (int r = 0; r < x.R; ++r) {
            for (int i = 0; i < I; ++i) {
              auto const at = [&](int n) {
                return static_cast<double>(to_float(pre.as(x.R, N)(r, n)));
              };
              auto const m =
                  activation_formula(kind, at(i), is_gated(kind) ? at(I + i) : 0.0,
                                     static_cast<double>(act.a), static_cast<double>(act.b));
              auto const f = static_cast<double>(factor[static_cast<std::size_t>(r)]);
              want.push_back({m.value * f, m.magnitude * std::abs(f) + 0x1p-120});
            }
          }
          EXPECT_TRUE(not_flat(want));
          EXPECT_TRUE(close(c, want, 14));
        }
        EXPECT_TRUE(same_bits(first_c, c) && same_bits(first_pre, pre)) << name_of(on);
      }
    }
  }
}

struct cubic {
  static constexpr bool gated = false;
  float strength = 0.1f;
  [[nodiscard]] float value(float x) const { return slope(x).value; }
  [[nodiscard]] slope_of_one slope(float x) const {
    float const square = x * x;
    return {x * math::fma(square, strength, 1.0f), math::fma(square, 3.0f * strength, 1.0f)};
  }
};

TYPED_TEST(ExpertsFused, AUsersOwnActivationInEveryWeightForm) {
  using T = TypeParam;
  for (auto const& configs : host_arithmetics<T>()) {
    constexpr int N = 50, K = 61;
    product_case<T> x({30, 5}, N, K);
    expert_matrix<T> const plain(x.w.as(2, N, K));
    guarded<T> packed(static_cast<std::size_t>(plain.packed_elements()));
    ASSERT_TRUE(pack_weights(configs.front(), plain, packed).ok());
    guarded<float> pre = x.like_c();
    ASSERT_TRUE(grouped_gemm(configs.front(), x.a.as(x.R, K), plain, x.rows, pre.as(x.R, N)).ok());
    for (on_host const& on : configs) {
      for (auto const& w : {plain, expert_matrix<T>::packed(packed.data(), 2, N, K)}) {
        guarded<float> c = x.like_c();
        ASSERT_TRUE(
            grouped_gemm(on, x.a.as(x.R, K), w, x.rows, c.as(x.R, N), cubic{.strength = 0.2f})
                .ok());
        for (std::size_t i = 0; i < c.size(); ++i) {
          ASSERT_EQ(c[i], cubic{.strength = 0.2f}.value(pre[i])) << name_of(on);
        }
      }
    }
  }
}

// A factor by slot: the gate [T,K] of a plan, 0 where a row is padding.
TEST(ExpertsFused1, FactorsBySlot) {
  constexpr int N = 9, K = 12;
  product_case<float> x({4, 3}, N, K);
  guarded<float> const gate(std::vector<float>{0.5f, -2.0f, 3.0f});
  guarded<index_t> const slot(std::vector<index_t>{2, 0, -1, 1, 1, 2, 0});
  guarded<float> c = x.like_c(), plain = x.like_c();
  ASSERT_TRUE(grouped_gemm(on_host{}, x.a.as(7, K), x.w.as(2, N, K), x.rows, plain.as(7, N)).ok());
  ASSERT_TRUE(grouped_gemm(on_host{}, x.a.as(7, K), x.w.as(2, N, K), x.rows, c.as(7, N), identity{},
                           {.scale = {gate.as(3), slot.as(7)}})
                  .ok());
  for (int r = 0; r < 7; ++r) {
    index_t const s = slot[static_cast<std::size_t>(r)];
    float const f = s < 0 ? 0.0f : gate[static_cast<std::size_t>(s)];
    for (int n = 0; n < N; ++n) EXPECT_EQ(c.as(7, N)(r, n), plain.as(7, N)(r, n) * f);
  }
}

/// The sentence of a failed call; nothing may have been written.
class ExpertsErrors : public testing::Test {
 protected:
  product_case<float> x{{4, 3}, 6, 5};
  guarded<float> c = x.like_c(), da = guarded<float>(x.a.size()), dw = guarded<float>(x.w.size());
  view<float, 2> a_ = x.a.as(7, 5), dc_ = x.dc.as(7, 6);
  view<float, 3> w_ = x.w.as(2, 6, 5);

  void expect_error(status const& s, error code, char const* sentence) {
    EXPECT_EQ(s.code(), code);
    EXPECT_STREQ(s.message(), sentence);
    for (float v : c) EXPECT_TRUE(std::isnan(v));
    for (float v : dw) EXPECT_TRUE(std::isnan(v));
  }
  segments<> rows_of(std::vector<index_t> const& values) {
    kept_ = guarded<index_t>(values);
    return {kept_.as(values.size())};
  }
  guarded<index_t> kept_;
};

TEST_F(ExpertsErrors, Shapes) {
  expect_error(grouped_gemm(on_host{}, x.a.as(5, 7), w_, x.rows, c.as(7, 6)), error::bad_shape,
               "grouped_gemm.a: extent 1 is 7; it must be 5 (columns of w)");
  expect_error(grouped_gemm(on_host{}, a_.slice(0, 6), w_, x.rows, c.as(7, 6)), error::bad_shape,
               "grouped_gemm.a: extent 0 is 6; it must be 7 (rows of c)");
  expect_error(grouped_gemm(on_host{}, a_, w_, x.rows, c.as(7, 5)), error::bad_shape,
               "grouped_gemm.c: extent 1 is 5; it must be 6 (rows of w)");
  expect_error(grouped_gemm(on_host{}, a_, w_, x.rows, c.as(7, 6), swiglu{}), error::bad_shape,
               "grouped_gemm.c: extent 1 is 6; it must be 3 (half the rows of w)");
  expect_error(grouped_gemm(on_host{}, a_, w_.slice(0, 1), x.rows, c.as(7, 6)), error::bad_shape,
               "grouped_gemm.w: extent 0 is 1; it must be 2 (experts of the segments)");
  expect_error(grouped_dgrad(on_host{}, x.dc.as(6, 7), w_, x.rows, da.as(7, 5)), error::bad_shape,
               "grouped_dgrad.dc: extent 1 is 7; it must be 6 (rows of w)");
  expect_error(grouped_wgrad(on_host{}, dc_, a_, x.rows, dw.as(2, 5, 6)), error::bad_shape,
               "grouped_wgrad.dc: extent 1 is 6; it must be 5 (rows of dw)");
}

TEST_F(ExpertsErrors, Segments) {
  expect_error(grouped_gemm(on_host{}, a_, w_, rows_of({0, 4, 8}), c.as(7, 6)), error::bad_shape,
               "grouped_gemm.rows: the last offset is 8; it must be at most 7 (rows)");
  expect_error(grouped_gemm(on_host{}, a_, w_, rows_of({0, 4, 3}), c.as(7, 6)), error::bad_argument,
               "grouped_gemm.rows: offset 2 is 3; it must be at least the one before, 4");
  expect_error(grouped_gemm(on_host{}, a_, w_, rows_of({1, 4, 7}), c.as(7, 6)), error::bad_argument,
               "grouped_gemm.rows: offset 0 is 1; it must be 0");
  expect_error(grouped_gemm(on_host{}, a_, w_, segments<>{}, c.as(7, 6)), error::bad_shape,
               "grouped_gemm.rows: extent 0 is 0; it must be 1 or more (experts + 1)");
}

TEST_F(ExpertsErrors, PointersAndOverlap) {
  view<float, 2> const none(nullptr, {{7, 5}});
  expect_error(grouped_gemm(on_host{}, none, w_, x.rows, c.as(7, 6)), error::null_pointer,
               "grouped_gemm.a: the pointer is null; it must point to 35 elements");
  expect_error(
      grouped_gemm(on_host{}, a_, view<float, 3>(nullptr, {{2, 6, 5}}), x.rows, c.as(7, 6)),
      error::null_pointer, "grouped_gemm.w: the pointer is null; it must point to 2 experts");
  expect_error(
      grouped_gemm(on_host{}, a_, w_, x.rows, view<float, 2>(x.a.data(), {{7, 6}}, {{5, 1}})),
      error::overlap, "grouped_gemm.c and grouped_gemm.a share memory; they must not");
  view<float, 2> const columns(x.a.data(), {{7, 5}}, {{1, 7}});
  expect_error(grouped_gemm(on_host{}, columns, w_, x.rows, c.as(7, 6)), error::bad_shape,
               "grouped_gemm.a: the last axis has stride 7; it must be 1 (contiguous)");
  expect_error(grouped_gemm(on_host{.threads = -1}, a_, w_, x.rows, c.as(7, 6)),
               error::bad_argument, "on_host.threads is -1; it must be 0 or more");
}

TEST_F(ExpertsErrors, HalvesApart) {
  float* halves[] = {x.w.data(), x.w.data()};
  using gradient = expert_gradient<>;
  view<float* const, 1> const two(halves, {{2}}), one(halves, {{1}}), none(nullptr, {{2}});
  view<float const* const, 1> const both(halves, {{2}});
  using weights = expert_matrix<float>;
  auto const forward = [&](weights const& w) {
    return grouped_gemm(on_host{}, a_, w, x.rows, c.as(7, 3), swiglu{});
  };
  expect_error(
      forward(weights::each(both, {halves, {{1}}}, 3, 5)), error::bad_shape,
      "grouped_gemm.w: it has pointers to 2 gate halves and to 1 up halves; they must be as many");
  expect_error(forward(weights::each(both, {nullptr, {{2}}}, 3, 5)), error::null_pointer,
               "grouped_gemm.w: the pointer to the up halves is null; it must point to 2 of them");
  expect_error(forward(weights::each({nullptr, {{2}}}, both, 3, 5)), error::null_pointer,
               "grouped_gemm.w: the pointer is null; it must point to 2 experts");
  expect_error(forward(weights::each(both, both, 0, 5)), error::bad_shape,
               "grouped_gemm.w: it has 0 rows of 5; both must be 1 or more");
  expect_error(forward(weights::each(both, both, 3, 5).slice(0, 1)), error::bad_shape,
               "grouped_gemm.w: extent 0 is 1; it must be 2 (experts of the segments)");
  expect_error(forward(weights::each(both, both, 4, 5)), error::bad_shape,
               "grouped_gemm.c: extent 1 is 3; it must be 4 (half the rows of w)");
  auto const wgrad = [&](gradient const& to) {
    return grouped_wgrad(on_host{}, dc_, a_, x.rows, to);
  };
  expect_error(
      wgrad(gradient::each(two, one, 3, 5)), error::bad_shape,
      "grouped_wgrad.dw: it has pointers to 2 gate halves and to 1 up halves; they must be as "
      "many");
  expect_error(
      wgrad(gradient::each(two, none, 3, 5)), error::null_pointer,
      "grouped_wgrad.dw: the pointer to the up halves is null; it must point to 2 of them");
  expect_error(wgrad(gradient::each(two, two, 2, 5)), error::bad_shape,
               "grouped_wgrad.dc: extent 1 is 6; it must be 4 (rows of dw)");
  // As many as one another and of the segments, in every slice.
  auto const w = weights::each(both, both, 3, 5);
  EXPECT_EQ(w.slice(1, 1).second_halves(), 1);
  EXPECT_EQ(w.slice(1, 1).second_pointers(), w.second_pointers() + 1);
  EXPECT_TRUE(w.halves_apart() && w.has_pairs());
  EXPECT_TRUE(w.pairs().order == pair_order::gate_up && w.pairs().block == 0);
  EXPECT_EQ(w.rows(), 6);
}

TEST_F(ExpertsErrors, OptionsAndPacking) {
  guarded<index_t> const slot(std::vector<index_t>{0, 1, 2});
  expect_error(
      grouped_gemm(on_host{}, a_, w_, x.rows, c.as(7, 6), identity{}, {.gather = {slot.as(3)}}),
      error::bad_shape, "grouped_gemm.gather: it has 3 slots; it must have 7 (rows)");
  expect_error(grouped_gemm(on_host{}, a_, w_, x.rows, c.as(7, 6), identity{},
                            {.gather = {x.offset.as(3), 0}}),
               error::bad_argument, "grouped_gemm.gather is 0; it must be from 1 to 2147483647");
  expect_error(
      grouped_gemm(on_host{}, a_, w_, x.rows, c.as(7, 6), identity{}, {.bias = dw.as(2, 5)}),
      error::bad_shape, "grouped_gemm.bias: extent 1 is 5; it must be 6 (rows of w)");
  expect_error(
      grouped_gemm(on_host{}, a_, w_, x.rows, c.as(7, 6), identity{}, {.pre = dw.as(7, 5)}),
      error::bad_shape, "grouped_gemm.pre: extent 1 is 5; it must be 6 (columns)");
  expect_error(
      grouped_gemm(on_host{}, a_, w_, x.rows, c.as(7, 6), identity{}, {.scale = {dw.as(6)}}),
      error::bad_shape, "grouped_gemm.scale: it has 6 entries; it must have 7 (rows)");
  auto const packed = expert_matrix<float>::packed(x.w.data(), 2, 6, 5);
  expect_error(grouped_gemm(on_host{}, a_, packed, x.rows, c.as(7, 3), swiglu{}),
               error::bad_argument,
               "grouped_gemm.w: it was packed without pairs; a gated activation takes pairs");
  guarded<float> few(159);
  expect_error(pack_weights(on_host{}, w_, few), error::bad_shape,
               "pack_weights.packed: it has 159 elements; it must have 160");
  expect_error(pack_weights(on_host{}, packed, few), error::bad_argument,
               "pack_weights.w: it is packed already");
  expect_error(
      grouped_wgrad(on_host{}, dc_, a_, x.rows, expert_gradient<>::packed(dw.data(), 2, 6, 5)),
      error::bad_argument, "grouped_wgrad.dw: it is packed; gradients go to plain matrices");
  view<float, 3> const odd(x.w.data(), {{2, 5, 5}});
  expect_error(grouped_gemm(on_host{}, a_, odd, x.rows, c.as(7, 2), swiglu{}), error::bad_shape,
               "grouped_gemm.w: it has 5 rows; a gated activation takes an even number");
}

TEST_F(ExpertsErrors, Activations) {
  expect_error(activation_forward(on_host{}, dc_, swiglu{}, c.as(7, 6)), error::bad_shape,
               "activation_forward.pre: extent 1 is 6; it must be 12 (twice the columns of out)");
  expect_error(activation_backward(on_host{}, dc_, dc_, relu{}, c.as(6, 7)), error::bad_shape,
               "activation_backward.d_pre: extent 0 is 6; it must be 7 (rows of d_act)");
}

}  // namespace experts_fused_test
}  // namespace shunt::test
