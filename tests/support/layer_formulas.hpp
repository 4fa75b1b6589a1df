#pragma once
#include "support/layer_cases.hpp"

namespace shunt::test {

/// y and all gradients are the oracle's, with the choice as the library has it.
inline void expect_formulas(layer_setup<float>& s, layer_run<float>& r) {
  ASSERT_TRUE(r.forward.ok()) << r.forward.message();
  ASSERT_TRUE(r.backward.ok()) << r.backward.message();
  r.tell(s.is.f);
  layer_result<var> result;
  auto const g = layer_gradients(s.is.f, s.numbers(), in_double(s.d_y), &result);
  std::vector<expectation> y;
  for (var const& v : result.y) y.push_back({v.v, v.m});
  EXPECT_TRUE(close(r.y, y, 24.0));
  EXPECT_TRUE(close(r.d_x, g.x, 24.0));
  EXPECT_TRUE(close(r.d.gate, g.gate, 24.0));
  EXPECT_TRUE(close(r.d.up, g.up, 24.0));
  EXPECT_TRUE(close(r.d.down, g.down, 24.0));
}

}  // namespace shunt::test
