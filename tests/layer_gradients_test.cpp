// Where a layer's gradients come from and where they go: losses, the router, what is frozen.
#include <gtest/gtest.h>

#include "shunt/layer.hpp"
#include "support/layer_cases.hpp"
#include "support/layer_formulas.hpp"

namespace shunt::test {
namespace layer_gradients_test {

using setup = layer_setup<float>;
using run = layer_run<float>;
on_host const one{.threads = 1};

TEST(LayerContract, Battery11_LossesEnterOnceWithTheirCoefficient) {
  layer_case c = family("olmoe");
  c.f.balance = 0.3;
  c.f.z = 0.0;
  setup s(c);
  guarded<float> loss(2);
  auto o = s.options();
  run r(one, s, o, true, {.loss = loss.as(2)});
  r.tell(s.is.f);
  double const balance = layer_forward(s.is.f, s.numbers()).aux;
  EXPECT_NEAR(static_cast<double>(loss[0]), balance, 1e-6 * balance);
  EXPECT_TRUE(std::isnan(loss[1])) << "a loss without coefficient was written";
  s.is.f.balance = 0.0;
  s.is.f.z = 0.2;
  o.balance_loss = 0.0f;
  o.z_loss = 0.2f;
  run z(one, s, o, true, {.loss = loss.as(2)});
  double const squares = layer_forward(s.is.f, s.numbers()).aux;
  EXPECT_NEAR(static_cast<double>(loss[1]), squares, 1e-6 * squares);
  expect_formulas(s, z);
}

TEST(LayerContract, LossesFromOutsideTakeTheirPlace) {
  layer_case c = family("olmoe");
  setup const s(c);
  auto o = s.options();
  guarded<index_t> counts(7), tokens(1);
  guarded<float> importance(7), loss(1), d(7);
  o.z_loss = 0.0f;
  run own(one, s, o);
  o.balance_loss = 0.0f;
  routing<> const load{
      .counts = counts.as(7), .importance = importance.as(7), .tokens = tokens.as(1)};
  run first(one, s, o, true, {.route = load});
  ASSERT_TRUE(first.forward.ok()) << first.forward.message();
  ASSERT_TRUE(balance_loss(one, load, loss.as(1), d.as(7), {.coefficient = 0.1f}).ok());
  o.from_losses.importance = d.as(7);
  run outside(one, s, o);
  EXPECT_TRUE(same_results(own, outside));
}

TEST(LayerContract, Battery14_RouterGradientAgainstCentralDifferences) {
  for (layer_case const& c : layer_families()) {
    SCOPED_TRACE(c.name);
    setup s(c);
    run r(one, s, s.options());
    ASSERT_TRUE(r.backward.ok()) << r.backward.message();
    r.tell(s.is.f);
    auto const numbers = s.numbers();
    auto const d_y = in_double(s.d_y);
    auto const tape = layer_gradients(s.is.f, numbers, d_y);
    auto const some = [&](auto which, auto magnitude, guarded<float> const& got) {
      for (std::size_t i = 0; i < got.size(); i += 1 + got.size() / 19) {
        double const size = (tape.*magnitude)[i].magnitude;
        double const is = layer_difference(s.is.f, numbers, d_y, which, i);
        ASSERT_NEAR(static_cast<double>(got[i]), is, 2e-6 * size + 1e-8) << i;
      }
    };
    using plain = layer_numbers<double>;
    using wide = layer_numbers<expectation>;
    some(&plain::gate, &wide::gate, r.d.gate);
    some(&plain::x, &wide::x, r.d_x);
    some(&plain::up, &wide::up, r.d.up);
    some(&plain::down, &wide::down, r.d.down);
  }
}

TEST(LayerContract, Battery27_GradientsOverwriteOrAdd) {
  for (char const* name : {"gpt_oss", "kimi_k3", "qwen_shared_gate", "longcat"}) {
    SCOPED_TRACE(name);
    setup const s(family(name));
    layer_formula const& f = s.is.f;
    run first(one, s, s.options());
    ASSERT_TRUE(first.backward.ok()) << first.backward.message();
    auto o = s.options();
    o.accumulate = true;
    gradient_buffers d(s);
    std::uint64_t seed = 99;
    std::vector<std::vector<double>> before;
    d.each_weight([&](char const*, guarded<float>& g) {
      g = normal_values<float>(g.size(), ++seed);
      before.push_back(in_double(g));
    });
    guarded<std::byte> work(moe_layer_backward_scratch_bytes(one, f.tokens, s.weights(), o));
    guarded<float> d_x(s.x.size());
    status const done = moe_layer_backward(
        one, s.x.as(f.tokens, f.width), s.weights(), s.d_y.as(f.tokens, f.width), first.saved,
        d_x.as(f.tokens, f.width), d.views(f, s.layout()), arena<>(work), o);
    ASSERT_TRUE(done.ok()) << done.message();
    EXPECT_TRUE(same_bits(d_x, first.d_x));
    std::vector<guarded<float> const*> once;
    first.d.each_weight([&](char const*, guarded<float>& g) { once.push_back(&g); });
    std::size_t at = 0;
    d.each_weight([&](char const* which, guarded<float>& g) {
      for (std::size_t i = 0; i < g.size(); ++i) {
        ASSERT_EQ(g[i], static_cast<float>(before[at][i]) + (*once[at])[i]) << which << " " << i;
      }
      ++at;
    });
  }
}

TEST(LayerContract, AFrozenExpertsBuffersAreNotTouchedAndTheRestIsTheSame) {
  setup const s(family("gpt_oss"));
  run all(one, s, s.options());
  guarded<std::uint8_t> const frozen(std::vector<std::uint8_t>{0, 1, 0, 0, 1, 1, 0});
  auto o = s.options();
  o.frozen = frozen.as(7);
  run some(one, s, o);
  ASSERT_TRUE(some.backward.ok()) << some.backward.message();
  EXPECT_TRUE(same_bits(all.d_x, some.d_x));
  EXPECT_TRUE(same_bits(all.d.gate, some.d.gate));
  auto const compare = [&](guarded<float> const& whole, guarded<float> const& part) {
    std::size_t const each = whole.size() / 7;
    for (std::size_t i = 0; i < whole.size(); ++i) {
      if (frozen[i / each] != 0) {
        ASSERT_TRUE(std::isnan(part[i])) << i;
      } else {
        ASSERT_EQ(part[i], whole[i]) << i;
      }
    }
  };
  compare(all.d.up, some.d.up);
  compare(all.d.down, some.d.down);
  compare(all.d.up_bias, some.d.up_bias);
  compare(all.d.down_bias, some.d.down_bias);
}

}  // namespace layer_gradients_test
}  // namespace shunt::test
