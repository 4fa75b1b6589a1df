// What the layer refuses, and in which words; nothing is written before.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "shunt/layer.hpp"
#include "support/layer_cases.hpp"

namespace shunt::test {
namespace layer_error_test {

on_host const one{.threads = 1};

/// A call with everything right, for one thing to be made wrong.
struct attempt {
  layer_setup<float> s;
  moe_weights<float> w;
  layer_options<activation> o;
  moe_outputs<float> outputs;
  guarded<float> y, d_x;
  gradient_buffers d;
  guarded<std::byte> keep, work;
  moe_saved<float> saved;
  view<float const, 2> x, d_y;
  view<float, 2> out, back;
  moe_gradients<> g;

  explicit attempt(char const* name)
      : s(family(name)), w(s.weights()), o(s.options()), y(s.x.size()), d_x(s.x.size()), d(s) {
    layer_formula const& f = s.is.f;
    keep = guarded<std::byte>(moe_saved_bytes(f.tokens, w, o));
    work = guarded<std::byte>(std::max(moe_layer_scratch_bytes(one, f.tokens, w, o),
                                       moe_layer_backward_scratch_bytes(one, f.tokens, w, o)));
    arena<> from(keep);
    saved = carve_moe_saved(from, f.tokens, w, o);
    outputs.saved = &saved;
    x = s.x.as(f.tokens, f.width);
    d_y = s.d_y.as(f.tokens, f.width);
    out = y.as(f.tokens, f.width);
    back = d_x.as(f.tokens, f.width);
    g = d.views(f, s.layout());
  }
  status forward() { return moe_layer(one, x, w, out, outputs, arena<>(work), o); }
  status backward() { return moe_layer_backward(one, x, w, d_y, saved, back, g, arena<>(work), o); }
};

void refuses(char const* name, std::function<void(attempt&)> const& spoil, error code,
             char const* sentence) {
  SCOPED_TRACE(sentence);
  attempt a(name);
  spoil(a);
  status const is = a.forward();
  EXPECT_EQ(is.code(), code) << is.message();
  EXPECT_NE(std::string(is.message()).find(sentence), std::string::npos) << is.message();
  for (float v : a.y) ASSERT_TRUE(std::isnan(v)) << "written before it was refused";
}
void refuses_backward(char const* name, std::function<void(attempt&)> const& spoil, error code,
                      char const* sentence) {
  SCOPED_TRACE(sentence);
  attempt a(name);
  ASSERT_TRUE(a.forward().ok());
  spoil(a);
  status const is = a.backward();
  EXPECT_EQ(is.code(), code) << is.message();
  EXPECT_NE(std::string(is.message()).find(sentence), std::string::npos) << is.message();
  for (float v : a.d_x) ASSERT_TRUE(std::isnan(v)) << "written before it was refused";
}

TEST(LayerErrors, TheCallThatTheyStartFromIsGood) {
  for (char const* name : {"olmoe", "kimi_k3", "gpt_oss", "qwen_shared_gate", "longcat"}) {
    attempt a(name);
    EXPECT_TRUE(a.forward().ok()) << a.forward().message();
    EXPECT_TRUE(a.backward().ok()) << a.backward().message();
  }
}

TEST(LayerErrors, ExtentsThatDoNotFitTheWeights) {
  using enum error;
  refuses(
      "olmoe", [](attempt& a) { a.x = a.s.x.as(19, 13); }, bad_shape,
      "moe_layer.x: extent 1 is 13; it must be 19 (the gate's width)");
  refuses(
      "olmoe", [](attempt& a) { a.out = a.out.slice(0, 12); }, bad_shape,
      "moe_layer.y: extent 0 is 12; it must be 13 (tokens of x)");
  refuses(
      "olmoe", [](attempt& a) { a.w.down = a.w.down.slice(0, 6); }, bad_shape,
      "moe_layer.weights.down: extent 0 is 6; it must be 7");
  refuses(
      "olmoe", [](attempt& a) { a.w.up = a.s.up.as(7, 19, 18); }, bad_shape,
      "moe_layer.weights.up: extent 1 is 19; it must be 18 (twice the columns of down)");
  refuses(
      "kimi_k3", [](attempt& a) { a.w.latent_up = a.s.latent_up.as(10, 19); }, bad_shape,
      "moe_layer.weights.latent_up: extent 0 is 10; it must be 19 (the gate's width)");
  refuses(
      "kimi_k3", [](attempt& a) { a.w.latent_down = a.w.latent_up = {}; }, bad_shape,
      "moe_layer.weights.down: extent 1 is 10; it must be 19 (the gate's width: there are no "
      "latents)");
  refuses(
      "olmoe", [](attempt& a) { a.w.gate_bias = view<float const, 1>(a.s.x.data(), {{6}}); },
      bad_shape, "moe_layer.weights.gate_bias: extent 0 is 6; it must be 7 (experts)");
  refuses(
      "gpt_oss", [](attempt& a) { a.w.down_bias = a.s.down_bias.as(7, 19).slice(0, 5); }, bad_shape,
      "moe_layer.weights.down_bias: extent 0 is 5; it must be 7");
  refuses(
      "olmoe", [](attempt& a) { a.o.first_expert = 1; }, bad_argument,
      "moe_layer.options.first_expert is 1; it must be from 0 to 0");
  refuses(
      "olmoe", [](attempt& a) { a.o.top_k = 8; }, bad_argument,
      "route.top_k (extent 1 of expert) is 8; it must be from 1 to 7");
  refuses(
      "olmoe",
      [](attempt& a) {
        static std::uint8_t const mask[4] = {};
        a.o.valid = view<std::uint8_t const, 1>(mask, {{4}});
      },
      bad_shape, "moe_layer.options.valid: extent 0 is 4; it must be 13 (tokens of x)");
}

TEST(LayerErrors, OneWithoutTheOther) {
  using enum error;
  refuses(
      "kimi_k3", [](attempt& a) { a.w.latent_up = {}; }, null_pointer,
      "moe_layer.weights.latent_down is given without latent_up; both must be given");
  refuses(
      "qwen_shared_gate", [](attempt& a) { a.w.shared_up = a.w.shared_down = {}; }, null_pointer,
      "moe_layer.weights.shared_gate is given without shared_up");
  refuses(
      "qwen_shared_gate", [](attempt& a) { a.w.shared_down = {}; }, null_pointer,
      "moe_layer.weights.shared_up is given without shared_down");
  refuses_backward(
      "gpt_oss", [](attempt& a) { a.g.up = {}; }, null_pointer,
      "moe_layer_backward.gradients.up_bias is given without gradients.up");
  refuses_backward(
      "gpt_oss", [](attempt& a) { a.g.gate = {}; }, null_pointer,
      "moe_layer_backward.gradients.gate_bias is given without gradients.gate");
  refuses_backward(
      "olmoe", [](attempt& a) { a.g.shared_up = a.g.up; }, bad_shape,
      "moe_layer_backward.gradients.shared_up: extent 0 is 7; it must be 0");
}

TEST(LayerErrors, CombinationsWithoutMeaning) {
  using enum error;
  refuses(
      "longcat", [](attempt& a) { a.o.route.gate_on_input = true; }, bad_argument,
      "moe_layer: options.route.gate_on_input means nothing with zero experts");
  refuses(
      "olmoe",
      [](attempt& a) {
        a.o.tokens_per_expert = 3;
        a.o.balance_loss = 0.1f;
      },
      bad_argument,
      "moe_layer: a loss on the balance or the logits means nothing where experts choose");
  refuses(
      "mixtral", [](attempt& a) { a.o.tokens_per_expert = 3; }, bad_argument,
      "moe_layer: a gate that is not raw means nothing where experts choose");
  refuses(
      "olmoe", [](attempt& a) { a.o.balance_loss = std::numeric_limits<float>::infinity(); },
      bad_argument, "moe_layer.options.balance_loss is inf; it must be a finite number");
  refuses(
      "olmoe", [](attempt& a) { a.o.route.accumulate = true; }, null_pointer,
      "moe_layer.outputs.route: counts, importance or tokens is missing");
  refuses(
      "olmoe", [](attempt& a) { a.o.capacity = -1; }, bad_argument,
      "moe_layer.options.capacity is -1; it must be from 0");
}

TEST(LayerErrors, MemoryThatIsMissingOrShared) {
  using enum error;
  refuses(
      "olmoe", [](attempt& a) { a.x = view<float const, 2>(nullptr, {{13, 19}}); }, null_pointer,
      "moe_layer.x: the pointer is null; it must point to 247 elements");
  refuses(
      "olmoe", [](attempt& a) { a.w.up = {}; }, bad_argument,
      "moe_layer.weights.up: extent 0 (experts) is 0; it must be from 1 to 7");
  refuses(
      "olmoe", [](attempt& a) { a.x = a.out; }, overlap,
      "moe_layer.y and x share memory; they must not");
  refuses(
      "olmoe", [](attempt& a) { a.saved.pre = {}; }, bad_shape,
      "moe_layer.saved.pre: extent 0 is 0; it must be 39 (rows of the plan)");
  refuses(
      "olmoe", [](attempt& a) { a.saved.logits = a.saved.logits.slice(0, 4); }, bad_shape,
      "moe_layer.saved.logits: extent 0 is 4; it must be 13 (tokens of x)");
  refuses(
      "kimi_k3", [](attempt& a) { a.saved.latent_sum = {}; }, bad_shape,
      "moe_layer.saved.latent_sum: extent 0 is 0; it must be 13 (tokens of x)");
  refuses(
      "olmoe", [](attempt& a) { a.saved.d_importance = {}; }, bad_shape,
      "moe_layer.saved.d_importance: extent 0 is 0; it must be 7 (experts, for the balance loss)");
  refuses(
      "qwen_shared_gate", [](attempt& a) { a.saved.shared_pre = {}; }, bad_shape,
      "moe_layer.saved.shared_pre: extent 0 is 0; it must be 13 (tokens of x)");
  refuses(
      "olmoe", [](attempt& a) { a.work = guarded<std::byte>(100); }, arena_too_small,
      "moe_layer.work: the arena has 100 bytes; it must have ");
  refuses_backward(
      "olmoe", [](attempt& a) { a.work = guarded<std::byte>(100); }, arena_too_small,
      "moe_layer_backward.work: the arena has 100 bytes; it must have ");
  refuses_backward(
      "olmoe", [](attempt& a) { a.d_y = a.back; }, overlap,
      "moe_layer_backward.d_x and d_y share memory; they must not");
}

TEST(LayerErrors, CountsBeyondTheirType) {
  using enum error;
  refuses(
      "olmoe",
      [](attempt& a) {
        // Three strides of nothing: 2^31 slots are refused before a row is read.
        a.x = view<float const, 2>(a.s.x.data(), {{offset_t{1} << 30, 19}}, {{0, 1}});
        a.out = view<float, 2>(a.y.data(), {{offset_t{1} << 30, 19}}, {{0, 1}});
      },
      too_large, "moe_layer.x: tokens x options.top_k is 1073741824 x 3");
}

}  // namespace layer_error_test
}  // namespace shunt::test
