// Bad input to the router: each its sentence, before anything is written.
#include <gtest/gtest.h>

#include <string>

#include "shunt/route.hpp"
#include "support/route_harness.hpp"

namespace shunt::test {
namespace route_errors_test {

struct fixture {
  guarded<float> logits = normal_values<float>(6 * 8, 1);
  route_outputs out{6, 8, 3};
  guarded<std::byte> bytes = route_scratch_for({}, 6, 8, 3);
  routing<> wanted = out.all();
  route_options options;
  route_inputs<> with;
  view<float const, 2> in = matrix(std::as_const(logits), 6, 8);

  void refused(error code, std::string const& sentence) {
    status const s = route(on_host{}, in, with, wanted, arena<>(bytes), options);
    EXPECT_EQ(s.code(), code) << s.message();
    EXPECT_NE(std::string(s.message()).find(sentence), std::string::npos) << s.message();
    for (index_t id : out.expert) EXPECT_EQ(id, untouched<index_t>()) << "something was written";
    for (index_t n : out.counts) EXPECT_EQ(n, untouched<index_t>());
    EXPECT_FALSE(all_finite(out.gate));
  }
};

TEST(RouteErrors, ShapesThatDoNotFit) {
  {
    fixture f;
    f.in = {f.logits.data(), {{5, 8}}};
    f.refused(error::bad_shape, "route.expert: extent 0 is 6; it must be 5 (tokens)");
  }
  {
    fixture f;
    f.wanted.gate = matrix(f.out.gate, 6, 2);
    f.refused(error::bad_shape, "route.gate: extent 1 is 2; it must be 3 (top_k)");
  }
  {
    fixture f;
    f.wanted.counts = view<index_t, 1>(f.out.counts.data(), {{7}});
    f.refused(error::bad_shape, "route.counts: extent 0 is 7; it must be 8 (experts)");
  }
  {
    fixture f;
    f.wanted.sequence_importance = {f.out.sequence_importance.data(), {{4, 8}}};
    f.refused(error::bad_shape, "must be at least 1 and divide the number of tokens, 6");
  }
  {
    fixture f;
    guarded<std::uint64_t> seeds(2);
    f.with.draws.seed = view<std::uint64_t const, 1>(seeds.data(), {{2}});
    f.refused(error::bad_shape, "route.draws.seed: extent 0 is 2; it must be 1 (one number)");
  }
  {
    fixture f;
    f.in = {f.logits.data(), {{6, 0}}};
    f.refused(error::bad_argument, "route.logits: extent 1 (experts) is 0");
  }
  {
    fixture f;
    f.in = {f.logits.data(), {{6, 8}}, {{8, 2}}};
    f.refused(error::bad_shape, "route.logits: the last axis has stride 2; it must be 1");
  }
}

TEST(RouteErrors, NullPointers) {
  fixture f;
  f.in = {nullptr, {{6, 8}}};
  f.refused(error::null_pointer, "route.logits: the pointer is null; it must point to 48 elements");
  fixture g;
  g.wanted.gate = {nullptr, {{6, 3}}};
  g.refused(error::null_pointer, "route.gate: the pointer is null");
}

TEST(RouteErrors, MoreChoicesThanExperts) {
  guarded<float> const logits = normal_values<float>(2 * 4, 1);
  route_outputs out(2, 4, 5);
  guarded<std::byte> bytes = route_scratch_for({}, 2, 4, 5);
  status const s = route(on_host{}, matrix(logits, 2, 4), out.plain(), arena<>(bytes));
  EXPECT_EQ(s.code(), error::bad_argument);
  EXPECT_STREQ(s.message(), "route.top_k (extent 1 of expert) is 5; it must be from 1 to 4");
}

TEST(RouteErrors, GroupsThatCannotHoldTheChoice) {
  fixture f;
  f.options = {.groups = 4, .top_groups = 1};
  f.refused(
      error::bad_argument,
      "route.top_groups is 1, of 2 experts each: they hold 2 experts; they must hold at least "
      "top_k, 3");
  fixture g;
  g.options = {.groups = 3, .top_groups = 2};
  g.refused(error::bad_argument, "route.groups is 3; it must divide the number of experts, 8");
  fixture h;
  h.options = {.groups = 4, .top_groups = 5};
  h.refused(error::bad_argument, "route.top_groups is 5; it must be from 1 to 4");
}

TEST(RouteErrors, OptionsWithoutMeaning) {
  {
    fixture f;
    f.options.scale = std::numeric_limits<float>::infinity();
    f.refused(error::bad_argument, "route.scale is inf; it must be a finite number");
  }
  {
    fixture f;
    f.options.epsilon = -1.0f;
    f.refused(error::bad_argument, "route.epsilon is -1; it must be 0 or more");
  }
  {
    fixture f;
    f.options.jitter = 1.0f;
    f.refused(error::bad_argument, "route.jitter is 1; it must be in [0, 1)");
  }
  {
    fixture f;
    f.options.random_second = true;
    f.refused(error::bad_argument, "needs a choice of two experts; top_k is 3, it must be 2");
  }
  {
    fixture f;
    f.options.zero_experts = 8;
    f.refused(error::bad_argument, "route.zero_experts is 8; it must be from 0 to 7");
  }
  guarded<float> const logits = normal_values<float>(2 * 4, 1);
  route_outputs out(2, 4, 2);
  status const s = run_route<float>({}, logits, out, {.random_second = true});
  EXPECT_NE(std::string(s.message()).find("gates is raw, it must be renormalized"),
            std::string::npos)
      << s.message();
}

TEST(RouteErrors, InputsThatDoNotFit) {
  guarded<float> const bias(7);
  guarded<std::uint8_t> const valid(8);  // the mask of T tokens, with the length of E experts
  guarded<index_t> const ids(18), token(6);
  guarded<std::int16_t> const narrow(12);
  {
    fixture f;
    f.with.choice_bias = bias;
    f.refused(error::bad_shape, "route.choice_bias: extent 0 is 7; it must be 8 (experts)");
  }
  {
    fixture f;
    f.with.valid = valid;
    f.refused(error::bad_shape, "route.valid: extent 0 is 8; it must be 6 (tokens)");
  }
  {
    fixture f;
    f.with.ids = matrix(narrow, 6, 2);
    f.refused(error::bad_shape, "route.ids: extent 1 is 2; it must be 3 (top_k)");
  }
  {
    fixture f;
    f.with.ids = view<index_t const, 2>(ids.data(), {{5, 3}});
    f.refused(error::bad_shape, "route.ids: extent 0 is 5; it must be 6 (tokens)");
  }
  {
    fixture f;
    f.with.token = token;
    f.refused(error::bad_argument, "route.token is given without route.ids");
  }
}

TEST(RouteErrors, HistogramsNeedABiasAndAFreeChoice) {
  guarded<index_t> histogram(80), ids(18);
  guarded<float> const bias = normal_values<float>(8, 2);
  {
    fixture f;
    f.wanted.histogram = matrix(histogram, 8, 10);
    f.refused(error::bad_argument, "it must come with a choice_bias");
  }
  {
    fixture f;
    f.wanted.histogram = matrix(histogram, 8, 10);
    f.with.choice_bias = bias;
    f.with.ids = matrix(std::as_const(ids), 6, 3);
    f.refused(error::bad_argument, "it must come with a free choice, not with ids");
  }
  {
    fixture f;
    f.wanted.histogram = matrix(histogram, 8, 10);
    f.with.choice_bias = bias;
    f.options = {.groups = 2, .top_groups = 2};
    f.refused(error::bad_argument, "it must come with groups to be 1");
  }
}

TEST(RouteErrors, OverlappingMemory) {
  fixture f;
  f.wanted.gate = {f.logits.data(), {{6, 3}}};
  f.refused(error::overlap, "route.gate and route.logits share memory; they must not");
}

TEST(RouteErrors, SlotsThatDoNotFitTheirType) {
  fixture f;
  float one = 0.0f;
  index_t id = 0;
  // Strides of 0: large counts over one element.
  view<float const, 2> const wide(&one, {{1 << 27, 64}}, {{0, 1}});
  routing<> r;
  r.expert = {&id, {{1 << 27, 32}}, {{0, 1}}};
  r.gate = {&one, {{1 << 27, 32}}, {{0, 1}}};
  status const s = route(on_host{}, wide, r, arena<>(f.bytes));
  EXPECT_EQ(s.code(), error::too_large) << s.message();
  EXPECT_NE(std::string(s.message()).find("route: tokens x top_k is 134217728 x 32"),
            std::string::npos)
      << s.message();
}

TEST(RouteErrors, ArenaTooSmallSaysHowMuch) {
  fixture f;
  f.bytes = guarded<std::byte>(64);
  f.refused(error::arena_too_small, "route: the arena has 64 bytes; it must have ");
  fixture g;
  g.bytes = guarded<std::byte>(0);
  g.refused(error::arena_too_small, "route: the arena has 0 bytes");
}

TEST(RouteErrors, BackwardAndTheRest) {
  fixture f;
  guarded<float> d_logits(48), loss(1), d(8), d_short(7);
  guarded<float> const d_gate(18);
  route_gradients<> g;
  g.gate = matrix(d_gate, 6, 3);
  auto const expect_error = [](status const& s, error code, std::string const& sentence) {
    EXPECT_EQ(s.code(), code) << s.message();
    EXPECT_NE(std::string(s.message()).find(sentence), std::string::npos) << s.message();
  };
  expect_error(
      route_backward(on_host{}, f.in, f.wanted, g, matrix(d_logits, 8, 6), arena<>(f.bytes)),
      error::bad_shape, "route_backward.d_logits: extent 0 is 8; it must be 6 (tokens)");
  expect_error(route_backward(on_host{}, f.in, f.wanted, g,
                              view<float, 2>(d_logits.data(), {{6, 8}}), arena<>{}),
               error::arena_too_small, "route_backward: the arena has 0 bytes");
  expect_error(
      route_backward(on_host{}, f.in, f.wanted, g,
                     view<float, 2>(f.logits.data(), {{6, 8}}, {{7, 1}}), arena<>(f.bytes)),
      error::overlap, "route_backward.d_logits and logits share memory");
  expect_error(balance_loss(on_host{}, f.out.plain(), loss, d), error::null_pointer,
               "balance_loss.load: counts, importance or tokens is missing");
  expect_error(balance_loss(on_host{}, f.wanted, loss, d_short), error::bad_shape,
               "d_importance: extent 0 is 7; it must be 8 (experts)");
  expect_error(band_loss(on_host{}, f.wanted, loss, d, {.low = 2.0f}), error::bad_argument,
               "band_loss.low is 2 and high is 1.5; they must be 0 <= low <= high");
  expect_error(z_loss(on_host{}, f.out.plain(), loss, d), error::null_pointer,
               "z_loss.load: z or tokens is missing");
  expect_error(sequence_balance_loss(on_host{}, f.out.plain(), loss, matrix(d, 1, 8)),
               error::null_pointer, "sequence_balance_loss.load");
  expect_error(sign_step(on_host{}, f.out.counts, d_short), error::bad_shape,
               "sign_step.bias: extent 0 is 7; it must be 8 (experts)");
  guarded<index_t> const histogram(80);
  expect_error(quantile_step(on_host{}, matrix(histogram, 8, 10), d, 9), error::bad_argument,
               "quantile_step.top_k is 9; it must be from 1 to 8");
  expect_error(gate_logits(on_host{}, f.in, f.in, matrix(d_logits, 6, 8)), error::bad_shape,
               "gate.logits: extent 1 is 8; it must be 6 (experts)");
  expert_choice<> by_expert{.token = {f.out.expert.data(), {{8, 2}}},
                            .gate = {f.out.gate.data(), {{8, 2}}}};
  expect_error(route_expert_choice(on_host{}, f.in, by_expert, arena<>(f.bytes), {.jitter = 0.5f}),
               error::bad_argument,
               "expert_choice.options: jitter mean nothing where the experts choose");
  expect_error(route(on_host{.threads = -1}, f.in, f.wanted, arena<>(f.bytes)), error::bad_argument,
               "on_host.threads is -1");
}

}  // namespace route_errors_test
}  // namespace shunt::test
