// The whole layer with experts' weights in fewer bits: the bits of the layer with the decoded weights,
// and what the rounding of the weights does to its output.
#include <gtest/gtest.h>

#include <cmath>

#include "support/expect_error.hpp"
#include "support/layer_cases.hpp"
#include "support/layer_weights.hpp"

namespace shunt::test {
namespace layer_formats_test {

template <class F> class LayerFormats : public testing::Test {};
using all_formats = testing::Types<int8_channel, fp8_block, mxfp4, nvfp4, int4_group<32>>;
TYPED_TEST_SUITE(LayerFormats, all_formats);

/// One matrix of experts, rounded; and what a product sees of it.
template <class F> struct rounded {
  guarded<F> bytes;
  guarded<float> floats;
  expert_matrix<F> packed;
  expert_matrix<float> decoded;

  template <class T> explicit rounded(expert_matrix<T> const& w) {
    if (!w) return;
    offset_t const E = w.experts(), N = w.rows(), K = w.columns();
    auto const handle = [&](F const* at) {
      return w.has_pairs() ? expert_matrix<F>::packed(at, E, N, K, w.pairs())
                           : expert_matrix<F>::packed(at, E, N, K);
    };
    bytes = guarded<F>(static_cast<std::size_t>(handle(nullptr).packed_elements()));
    floats = guarded<float>(static_cast<std::size_t>(E * N * K));
    packed = handle(bytes.data());
    EXPECT_TRUE(quantize_weights(on_host{}, w, bytes).ok());
    EXPECT_TRUE(dequantize_weights(on_host{}, packed, floats.as(E, N, K)).ok());
    decoded = floats.as(E, N, K);
    if (w.has_pairs()) decoded = decoded.in_pairs(w.pairs());
  }
};

template <class T, class W>
guarded<T> forward(on_host const& on, layer_setup<T> const& s,
                   moe_weights<T, T, space::host, W> const& w, bool int8_rows = false) {
  layer_formula const& f = s.is.f;
  auto o = s.options();
  o.int8_rows = int8_rows;
  guarded<T> y(s.x.size());
  guarded<std::byte> work(moe_layer_scratch_bytes(on, f.tokens, w, o));
  status const done = moe_layer(on, s.x.as(f.tokens, f.width), w, y.as(f.tokens, f.width), work, o);
  EXPECT_TRUE(done.ok()) << done.message();
  return y;
}

/// The RMS of what `got` is off, of the RMS of `want`.
double relative_rms(guarded<float> const& got, guarded<float> const& want) {
  double off = 0, all = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    off += std::pow(static_cast<double>(got[i]) - static_cast<double>(want[i]), 2);
    all += std::pow(static_cast<double>(want[i]), 2);
  }
  return std::sqrt(off / all);
}

template <class F, class T> void has_the_bits_of_the_decoded(layer_case const& c) {
  layer_setup<T> const s(c);
  auto const w = s.weights();
  rounded<F> const up(w.up), down(w.down), shared_up(w.shared_up), shared_down(w.shared_down);
  auto const few = with_experts(w, up.packed, down.packed, shared_up.packed, shared_down.packed);
  for (auto const& configs : host_arithmetics<T>()) {
    auto const want =
        forward(configs.front(), s,
                with_experts(w, up.decoded, down.decoded, shared_up.decoded, shared_down.decoded));
    EXPECT_TRUE(all_finite(want)) << c.name;
    for (on_host const& on : configs) {
      EXPECT_TRUE(same_bits(forward(on, s, few), want)) << c.name << ", " << name_of(on);
    }
  }
}

TYPED_TEST(LayerFormats, HasTheBitsOfTheDecodedWeights) {
  for (char const* name : {"gpt_oss", "deepseek_v3", "qwen_shared_gate", "nemotron"}) {
    has_the_bits_of_the_decoded<TypeParam, float>(family(name));
  }
  has_the_bits_of_the_decoded<TypeParam, bf16>(family("gpt_oss"));
}

TYPED_TEST(LayerFormats, TheOutputLosesWhatIsDocumented) {
  layer_setup<float> const s(
      {.name = "wide",
       .f = {.tokens = 64, .width = 256, .intermediate = 160, .experts = 8, .top_k = 2},
       .route = {.gates = gate_kind::renormalized}});
  auto const w = s.weights();
  rounded<TypeParam> const up(w.up), down(w.down);
  auto const want = forward(on_host{}, s, w);
  auto const got =
      forward(on_host{}, s, with_experts<TypeParam>(w, up.packed, down.packed, {}, {}));
  double const relative = relative_rms(got, want);
  testing::Test::RecordProperty("relative_rms", std::to_string(relative));
  // Three matrices are rounded, each with an RMS of 0.7, 2.6, 9.5 and 11.5 % of its weights' (int4: 9.5): times 1.73.
  double const most = std::same_as<TypeParam, int8_channel> ? 0.013
                      : std::same_as<TypeParam, fp8_block>  ? 0.048
                      : std::same_as<TypeParam, mxfp4>      ? 0.21
                                                            : 0.17;
  EXPECT_LE(relative, most);
  EXPECT_GE(relative, most / 3) << "the bound is not tight: it would hide errors";
}

/// The experts, the shared one too, with rows in int8: the same bits everywhere, and not far from the layer whose
/// rows are kept.
template <class F> void rows_in_int8(char const* name) {
  layer_setup<float> const s(family(name));
  auto const w = s.weights();
  rounded<F> const up(w.up), down(w.down), shared_up(w.shared_up), shared_down(w.shared_down);
  auto const few = with_experts(w, up.packed, down.packed, shared_up.packed, shared_down.packed);
  auto const kept = forward(on_host{}, s, few);
  auto const want = forward(on_host{.threads = 1}, s, few, true);
  double const relative = relative_rms(want, kept);
  EXPECT_LE(relative, 0.03) << name;
  EXPECT_GE(relative, 0.001) << name << ": nothing was rounded";
  for (on_host const& on : host_configs()) {
    EXPECT_TRUE(same_bits(forward(on, s, few, true), want)) << name << ", " << name_of(on);
  }
}
TEST(LayerInt8Rows, AreTheSameBitsEverywhereAndLoseLittle) {
  for (char const* name : {"gpt_oss", "deepseek_v3", "qwen_shared_gate", "nemotron"}) {
    rows_in_int8<int8_channel>(name);
    rows_in_int8<mxfp4>(name);
  }
}

TEST(LayerInt8Rows, AreForWeightsOfIntegers) {
  layer_setup<float> const s(family("olmoe"));
  layer_formula const& f = s.is.f;
  auto o = s.options();
  o.int8_rows = true;
  guarded<float> y(s.x.size());
  guarded<std::byte> work(moe_layer_scratch_bytes(on_host{}, f.tokens, s.weights(), o));
  expect_error(
      moe_layer(on_host{}, s.x.as(f.tokens, f.width), s.weights(), y.as(f.tokens, f.width), work,
                o),
      error::bad_argument,
      "moe_layer.options.int8_rows: it is set; rows are rounded for weights in int8_channel or "
      "mxfp4 only");
}

TYPED_TEST(LayerFormats, NothingIsSavedForABackwardThatIsNot) {
  layer_setup<float> const s(family("olmoe"));
  layer_formula const& f = s.is.f;
  auto const w = s.weights();
  rounded<TypeParam> const up(w.up), down(w.down);
  auto const few = with_experts<TypeParam>(w, up.packed, down.packed, {}, {});
  auto const o = s.options();
  guarded<float> y(s.x.size());
  guarded<std::byte> work(moe_layer_scratch_bytes(on_host{}, f.tokens, few, o));
  moe_saved<float> const saved;
  expect_error(moe_layer(on_host{}, s.x.as(f.tokens, f.width), few, y.as(f.tokens, f.width),
                         {.saved = &saved}, work, o),
               error::bad_argument,
               "moe_layer.outputs.saved is given; with experts' weights of another type than the "
               "tokens' there is "
               "no backward, and it must be null");
}

}  // namespace layer_formats_test
}  // namespace shunt::test
