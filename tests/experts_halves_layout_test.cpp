// Contract 11: gate and up as two arrays give the bits of one, forward and backward.
#include <gtest/gtest.h>

#include "support/experts_case.hpp"
#include "support/halves_apart.hpp"
#include "support/layout_case.hpp"
#include "support/storage_types.hpp"

namespace shunt::test {
namespace experts_halves_layout_test {

using namespace layout_case;

template <class T> class ExpertsHalves : public testing::Test {};
TYPED_TEST_SUITE(ExpertsHalves, storage_types);

constexpr int I = 37, N = 2 * I, K = 290;  // neither a multiple of a panel, nor of a block

/// Forward, dgrad and packing with halves that lie apart, against one array.
template <class T> void same_with_halves_apart(int half, int columns, int spare) {
  for (auto const& configs : host_arithmetics<T>()) {
    SCOPED_TRACE("I " + std::to_string(half) + " K " + std::to_string(columns));
    int const all = 2 * half;
    product_case<T> x({9, 0, 130}, all, columns);
    auto const bias = normal_values<T>(product_case<T>::count(3, all), 12);
    expert_matrix<T> const whole(x.w.as(3, all, columns), pair_layout{});
    auto const want = run_all<T>(configs.front(), x, whole, bias.as(3, all));
    halves_apart<T> w(x.w, 3, half, columns, spare);
    guarded<T> packed(static_cast<std::size_t>(whole.packed_elements())), same(packed.size());
    ASSERT_EQ(w.weights().packed_elements(), whole.packed_elements());
    ASSERT_TRUE(pack_weights(configs.front(), whole, packed).ok());
    ASSERT_TRUE(pack_weights(on_host{.threads = 2}, w.weights(), same).ok());
    EXPECT_TRUE(same_bits(packed, same));
    w.forget(1);  // it has no rows
    for (on_host const& on : configs) {
      expect_same(want, run_all<T>(on, x, w.weights(), bias.as(3, all)), name_of(on));
    }
    // The last two experts.
    guarded<index_t> const offset(std::vector<index_t>{0, 0, 130});
    guarded<float> act(want.act.size());
    ASSERT_TRUE(grouped_gemm(configs.front(), x.a.as(x.R, columns).slice(9, 130),
                             w.weights().slice(1, 2), {offset.as(3)},
                             act.as(x.R, half).slice(9, 130), swiglu{},
                             {.bias = bias.as(3, all).slice(1, 2)})
                    .ok());
    EXPECT_EQ(std::memcmp(act.data() + 9 * half, want.act.data() + 9 * half,
                          product_case<T>::count(130, half) * sizeof(float)),
              0);
  }
}

TYPED_TEST(ExpertsHalves, Battery23_HalvesApart) {
  same_with_halves_apart<TypeParam>(I, K, 0);
  same_with_halves_apart<TypeParam>(I, K, 5);
  same_with_halves_apart<TypeParam>(64, 64, 0);
  same_with_halves_apart<TypeParam>(1, 1, 0);
  same_with_halves_apart<TypeParam>(450, 33, 0);  // dgrad: many pieces, one of both halves
}

TEST(ExpertsHalvesApart, HalvesApartInAnyOrder) {
  product_case<float> x({9, 0, 70}, N, K);
  auto const bias = normal_values<float>(3 * N, 12);
  halves_apart<float> const w(x.w, 3, I, K);
  for (pair_layout how :
       {pair_layout{pair_order::up_gate, 0}, pair_layout{pair_order::gate_up, 3}}) {
    expect_same(run_all<float>(on_host{}, x, {x.w.as(3, N, K), how}, bias.as(3, N)),
                run_all<float>(on_host{}, x, w.weights().in_pairs(how), bias.as(3, N)),
                "block " + std::to_string(how.block));
  }
}

/// Weight gradients to halves that lie apart, written and added.
void gradients_to_halves_apart(std::vector<index_t> const& lengths, int half, int columns,
                               int spare, std::vector<on_host> const& configs) {
  SCOPED_TRACE("I " + std::to_string(half) + " K " + std::to_string(columns));
  int const E = static_cast<int>(lengths.size()), all = 2 * half;
  product_case<float> x(lengths, all, columns);
  guarded<float> want(x.w.size()), bias_want(product_case<float>::count(E, all));
  auto const run = [&](on_host const& on, expert_gradient<> const& dw, guarded<float>& d_bias,
                       bool add) {
    status const done = grouped_wgrad(on, x.dc.as(x.R, all), x.a.as(x.R, columns), x.rows, dw,
                                      {.accumulate = add, .d_bias = d_bias.as(E, all)});
    EXPECT_TRUE(done.ok()) << done.message();
  };
  expert_gradient<> const whole(want.as(E, all, columns), pair_layout{});
  run(on_host{.threads = 1}, whole, bias_want, false);
  guarded<float> const first(want), bias_first(bias_want);
  run(on_host{.threads = 1}, whole, bias_want, true);
  for (on_host const& on : configs) {
    SCOPED_TRACE(name_of(on));
    halves_apart<float> dw(E, half, columns, spare);
    guarded<float> d_bias(bias_want.size());
    run(on, dw.gradients(), d_bias, false);
    EXPECT_TRUE(same_bits(dw.together(), first) && same_bits(d_bias, bias_first));
    run(on, dw.gradients(), d_bias, true);
    EXPECT_TRUE(same_bits(dw.together(), want) && same_bits(d_bias, bias_want));
    EXPECT_TRUE(dw.clean_between());
  }
}

TEST(ExpertsHalvesApart, Battery23_GradientsToHalvesApart) {
  gradients_to_halves_apart({9, 0, 70}, I, K, 0, host_configs());
  gradients_to_halves_apart({9, 0, 70}, I, K, 5, host_configs());
  gradients_to_halves_apart({9, 0, 70}, 100, 32, 0, host_configs());  // a block of both halves
  // More than caches hold goes past them.
  gradients_to_halves_apart({2, 1}, 1100, 2048, 0, {on_host{}});
}

}  // namespace experts_halves_layout_test
}  // namespace shunt::test
