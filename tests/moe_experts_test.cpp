// The experts for given ids and gates: against formulas in double, beside the layer, and its contract.
#include "shunt/moe_experts.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <string>
#include <vector>

#include "shunt/layer.hpp"
#include "support/compare.hpp"
#include "support/expect_error.hpp"
#include "support/guarded.hpp"
#include "support/host_configs.hpp"
#include "support/moe_experts_case.hpp"
#include "support/storage_types.hpp"

namespace shunt::test {
namespace moe_experts_test {

template <class T> class MoeExpertsOf : public testing::Test {};
TYPED_TEST_SUITE(MoeExpertsOf, storage_types);

/// Float roundings, in units of the magnitude, that a value may lose; of T where it is stored.
template <class T> constexpr double lost = 24.0 + 3.0 * (unit_roundoff<T>() / 0x1p-24 - 1.0);

TYPED_TEST(MoeExpertsOf, OutputAndGradientsAreTheFormulas) {
  for (experts_formula const& f : experts_formulas()) {
    SCOPED_TRACE(f.name);
    experts_numbers<TypeParam> const in(f);
    experts_run<TypeParam> const run(on_host{.threads = 1}, in, in.options());
    ASSERT_TRUE(run.forward.ok()) << run.forward.message();
    ASSERT_TRUE(run.backward.ok()) << run.backward.message();
    experts_expected const want = expected_of(in);
    auto const check = [&](char const* name, auto const& got, auto const& wanted) {
      SCOPED_TRACE(name);
      ASSERT_TRUE(not_flat(wanted));
      EXPECT_TRUE(close(got, wanted, lost<TypeParam>));
      EXPECT_LT(relative_distance(got, wanted), 6 * unit_roundoff<TypeParam>() + 2e-6);
    };
    check("y", run.y, want.y);
    check("x", run.d_x, want.x);
    check("gate", run.d_gate, want.gate);
    check("up", run.d_up, want.up);
    check("down", run.d_down, want.down);
    if (!f.biases) continue;
    check("up_bias", run.d_up_bias, want.up_bias);
    check("down_bias", run.d_down_bias, want.down_bias);
  }
}

TYPED_TEST(MoeExpertsOf, SameBitsOnEveryHostSavedOrNotRecomputedOrNot) {
  for (experts_formula const& f : experts_formulas()) {
    SCOPED_TRACE(f.name);
    experts_numbers<TypeParam> const in(f);
    for (auto const& configs : host_arithmetics<TypeParam>()) {
      experts_run<TypeParam> const want(configs.front(), in, in.options());
      for (on_host const& on : configs) {
        SCOPED_TRACE(name_of(on));
        auto options = in.options();
        EXPECT_TRUE(same_bits(experts_run<TypeParam>(on, in, options, false).y, want.y));
        for (memory_mode const mode : {memory_mode::save, memory_mode::recompute}) {
          options.memory = mode;
          experts_run<TypeParam> const got(on, in, options);
          EXPECT_TRUE(same_bits(got.y, want.y));
          EXPECT_TRUE(same_bits(got.d_x, want.d_x));
          EXPECT_TRUE(same_bits(got.d_gate, want.d_gate));
          EXPECT_TRUE(same_bits(got.d_up, want.d_up));
          EXPECT_TRUE(same_bits(got.d_down, want.d_down));
        }
      }
    }
  }
}

TEST(MoeExperts, PackedWeightsHaveTheBitsOfPlainOnes) {
  experts_numbers<float> const in(experts_formulas().front());
  on_host const on{};
  auto plain = in.weights();
  auto const pack = [&](expert_matrix<float> const& w, guarded<float>& memory) {
    return packed_by(w, memory,
                     [&](auto const& from, auto& to) { return pack_weights(on, from, to); });
  };
  guarded<float> up, down;
  auto packed = plain;
  packed.up = pack(plain.up, up);
  packed.down = pack(plain.down, down);
  EXPECT_TRUE(same_bits(in.infer(on, packed, in.options()), in.infer(on, plain, in.options())));
}

/// Each shard has its own experts; their outputs add up to the whole's.
TEST(MoeExperts, ShardsAddUpToTheWhole) {
  experts_numbers<float> const in(experts_formulas().front());
  experts_formula const& f = in.f;
  auto const whole = in.infer({}, in.weights(), in.options());
  std::vector<double> sum(whole.size(), 0.0);
  index_t const half = f.experts / 2;
  for (index_t first : {index_t{0}, half}) {
    auto options = in.options();
    options.first_expert = first;
    options.global_experts = f.experts;
    auto const part =
        in.infer({}, in.weights(first, first == 0 ? half : f.experts - half), options);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += double(part[i]);
  }
  for (std::size_t i = 0; i < sum.size(); ++i) EXPECT_NEAR(sum[i], double(whole[i]), 1e-5);
}

TEST(MoeExperts, PaddingAndTokensWithoutExpertsGiveZero) {
  experts_formula f = experts_formulas().front();
  f.valid.assign(std::size_t(f.tokens), 1);
  f.valid[1] = 0;
  f.without_expert = {3};
  experts_numbers<float> const in(f);
  experts_run<float> const run({}, in, in.options());
  ASSERT_TRUE(run.backward.ok()) << run.backward.message();
  for (int t : {1, 3}) {
    for (int h = 0; h < f.hidden; ++h) {
      EXPECT_EQ(run.y[std::size_t(t * f.hidden + h)], 0.0f);
      EXPECT_EQ(run.d_x[std::size_t(t * f.hidden + h)], 0.0f);
    }
    for (int k = 0; k < f.top_k; ++k) EXPECT_EQ(run.d_gate[std::size_t(t * f.top_k + k)], 0.0f);
  }
}

TEST(MoeExperts, GradientsAccumulateAndFrozenExpertsAreNotTouched) {
  experts_numbers<float> const in(experts_formulas().front());
  experts_run<float> const once({}, in, in.options());
  guarded<std::uint8_t> const frozen(std::vector<std::uint8_t>{0, 1, 0, 0, 0});
  auto options = in.options();
  options.accumulate = true;
  options.frozen = frozen.as(in.f.experts);
  experts_run<float> const twice({}, in, options, true, 2.0f);
  std::size_t const each = once.d_up.size() / frozen.size();
  for (std::size_t i = 0; i < once.d_up.size(); ++i) {
    float const want = i / each == 1 ? 2.0f : 2.0f + once.d_up[i];
    EXPECT_NEAR(twice.d_up[i], want, 1e-5f);
  }
  EXPECT_TRUE(same_bits(twice.d_x, once.d_x));
  EXPECT_TRUE(same_bits(twice.d_gate, once.d_gate));
}

TEST(MoeExperts, ResidualIsAdded) {
  experts_numbers<float> const in(experts_formulas().front());
  auto options = in.options();
  auto const plain = in.infer({}, in.weights(), options);
  options.add_to_y = true;
  auto const added = in.infer({}, in.weights(), options, 0.5f);
  for (std::size_t i = 0; i < plain.size(); ++i) EXPECT_EQ(added[i], plain[i] + 0.5f);
}

TEST(MoeExperts, CapacityDropsAndTellsWhat) {
  experts_numbers<float> const in(experts_formulas().front());
  auto options = in.options();
  guarded<plan_counts> totals(1);
  options.capacity = 1;
  static_cast<void>(in.infer({}, in.weights(), options, 0.0f, {.plan = {.totals = totals.as(1)}}));
  EXPECT_LE(totals[0].rows, in.f.experts);
  EXPECT_EQ(totals[0].rows + totals[0].dropped, in.f.tokens * in.f.top_k);
}

/// Weight formats run in inference, with the bits of the layer's experts.
template <class F> void quantized_are_near(double bound) {
  experts_formula f = experts_formulas().front();
  f.hidden = 64, f.intermediate = 32, f.biases = false;
  experts_numbers<float> const in(f);
  auto const plain = in.infer({}, in.weights(), in.options());
  auto const quantized = in.template infer_quantized<F>(in.options());
  double worst = 0.0, peak = 0.0;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    worst = std::max(worst, std::abs(double(plain[i]) - double(quantized[i])));
    peak = std::max(peak, std::abs(double(plain[i])));
  }
  EXPECT_LT(worst, bound * peak);
  EXPECT_GT(worst, bound / 10 * peak) << "the bound is not tight: it would hide errors";
}
TEST(MoeExperts, QuantizedWeightsAreNearPlainOnes) {
  quantized_are_near<int8_channel>(0.03);
  quantized_are_near<int8_group<32>>(0.02);
  quantized_are_near<int4_group<32>>(0.3);
  quantized_are_near<nvfp4>(0.3);
}

TEST(MoeExperts, NoTokens) {
  experts_formula f = experts_formulas().front();
  f.tokens = 0;
  experts_numbers<float> const in(f);
  experts_run<float> const run({}, in, in.options());
  EXPECT_TRUE(run.forward.ok()) << run.forward.message();
  EXPECT_TRUE(run.backward.ok()) << run.backward.message();
  for (float d : run.d_up) EXPECT_EQ(d, 0.0f);
}

TEST(MoeExperts, ErrorsAreSentencesAndNothingIsWritten) {
  experts_numbers<float> const in(experts_formulas().front());
  experts_formula const& f = in.f;
  offset_t const T = f.tokens, H = f.hidden, K = f.top_k;
  guarded<float> y(std::vector<float>(std::size_t(T * H), 7.0f));
  guarded<std::byte> work(in.scratch_bytes(in.options()));
  auto const run = [&](auto x, auto expert, auto gate, auto const& w, auto o) {
    return moe_experts(on_host{}, x, expert, gate, w, y.as(T, H), arena<>(work), o);
  };
  auto const x = in.x.as(T, H);
  auto const ids = in.expert.as(T, K);
  auto const gates = in.gate.as(T, K);
  auto const w = in.weights();
  auto const o = in.options();
  expect_error(run(x.slice(0, 2), ids, gates, w, o), error::bad_shape,
               "moe_experts.gate: extent 0 is 6; it must be 2 (tokens of x)");
  expect_error(run(x, ids.slice(0, 2), gates, w, o), error::bad_shape,
               "moe_experts.expert: extent 0 is 2; it must be 6 (tokens of x)");
  view<float const, 2> const wide(in.gate.data(), {{T, K}}, {{K + 1, 1}});
  expect_error(run(x, ids, wide, w, o), error::bad_shape,
               "moe_experts.gate: axis 0 has stride 3; it must be 2 (contiguous)");
  auto narrow = w;
  narrow.down = in.down.as(f.experts, H, f.intermediate - 1);
  expect_error(run(x, ids, gates, narrow, o), error::bad_shape,
               "moe_experts.weights.up: extent 1 is 14; it must be 12 (twice the columns of down)");
  auto shard = o;
  shard.first_expert = -1;
  expect_error(run(x, ids, gates, w, shard), error::bad_argument,
               "moe_experts.options.first_expert is -1; it must be from 0 to 2147483642");
  auto int8 = o;
  int8.int8_rows = true;
  expect_error(run(x, ids, gates, w, int8), error::bad_argument,
               "moe_experts.options.int8_rows: it is set; rows are rounded for weights in "
               "int8_channel or mxfp4 only");
  guarded<std::byte> little(64);
  expect_error(moe_experts(on_host{}, x, ids, gates, w, y.as(T, H), arena<>(little), o),
               error::arena_too_small,
               "moe_experts.work: the arena has 64 bytes; it must have 1344 (ask an arena "
               "that is measuring)");
  for (float v : y) EXPECT_EQ(v, 7.0f);
}

/// moe_layer is made of it: with the layer's own ids and gates the bits are the layer's.
TEST(MoeExperts, IsWhatTheLayerRuns) {
  experts_numbers<float> const in(experts_formulas().front());
  experts_formula const& f = in.f;
  auto const e = in.weights();
  guarded<float> router(normal_values<float>(std::size_t(f.experts * f.hidden), 3, 0.5));
  moe_weights<float> w{.gate = router.as(f.experts, f.hidden),
                       .up = e.up,
                       .down = e.down,
                       .up_bias = e.up_bias,
                       .down_bias = e.down_bias};
  layer_options<activation> o{.top_k = f.top_k, .act = f.act()};
  guarded<std::byte> kept(moe_saved_bytes(f.tokens, w, o));
  arena<> from(kept);
  auto const saved = carve_moe_saved(from, f.tokens, w, o);
  guarded<std::byte> work(moe_layer_scratch_bytes(on_host{}, f.tokens, w, o));
  guarded<float> y(in.x.size());
  auto const x = in.x.as(f.tokens, f.hidden);
  ASSERT_TRUE(
      moe_layer(on_host{}, x, w, y.as(f.tokens, f.hidden), {.saved = &saved}, arena<>(work), o)
          .ok());
  experts_numbers<float> same = in;
  for (std::size_t i = 0; i < same.gate.size(); ++i) {
    same.expert[i] = saved.choice.expert.data()[i];
    same.gate[i] = saved.choice.gate.data()[i];
  }
  EXPECT_TRUE(same_bits(same.infer({}, e, same.options()), y));
}

}  // namespace moe_experts_test
}  // namespace shunt::test
