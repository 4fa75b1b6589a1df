#include <gtest/gtest.h>
#include "support/layer_setup.hpp"
namespace shunt::test {
namespace {
TEST(Layer, Smoke) {
  layer_case c{.name = "olmoe",
               .f = {.tokens = 13, .width = 19, .intermediate = 9, .experts = 7, .top_k = 3}};
  layer_setup<float> s(c);
  layer_run<float> r(on_host{.threads = 1}, s, s.options());
  ASSERT_TRUE(r.forward.ok()) << r.forward.message();
  ASSERT_TRUE(r.backward.ok()) << r.backward.message();
  s.is.f.chosen = r.chosen();
  s.is.f.kept = r.kept(s.is.f.local());
  layer_result<var> out;
  auto g = layer_gradients(s.is.f, s.numbers(), in_double(s.d_y), &out);
  std::vector<expectation> y;
  for (auto& v : out.y) y.push_back({v.v, v.m});
  EXPECT_TRUE(close(r.y, y, 16));
  EXPECT_TRUE(close(r.d_x, g.x, 16));
  EXPECT_TRUE(close(r.d.up, g.up, 16));
  EXPECT_TRUE(close(r.d.down, g.down, 16));
  EXPECT_TRUE(close(r.d.gate, g.gate, 16));
}
}  // namespace
}  // namespace shunt::test
