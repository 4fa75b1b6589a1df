#pragma once
#include <string>
#include <vector>

#include "support/experts_case.hpp"

namespace shunt::test {
namespace layout_case {

/// Forward (gated and not), dgrad and wgrad of one product, with weights and gradients that lie as
/// given.
template <class T> struct results {
  guarded<float> act, plain, da;
};
template <class T>
results<T> run_all(on_host const& on, product_case<T> const& x, expert_matrix<T> const& w,
                   expert_vector<> const& bias) {
  results<T> out{guarded<float>(x.dc.size() / 2), guarded<float>(x.dc.size()),
                 guarded<float>(x.a.size())};
  auto const check = [](status s) { EXPECT_TRUE(s.ok()) << s.message(); };
  check(grouped_gemm(on, x.a.as(x.R, x.K), w, x.rows, out.act.as(x.R, x.N / 2), swiglu{},
                     {.bias = bias}));
  check(grouped_gemm(on, x.a.as(x.R, x.K), w, x.rows, out.plain.as(x.R, x.N), identity{},
                     {.bias = bias}));
  check(grouped_dgrad(on, x.dc.as(x.R, x.N), w, x.rows, out.da.as(x.R, x.K)));
  return out;
}
template <class T> void expect_same(results<T> const& a, results<T> const& b, std::string what) {
  EXPECT_TRUE(same_bits(a.act, b.act)) << what;
  EXPECT_TRUE(same_bits(a.plain, b.plain)) << what;
  EXPECT_TRUE(same_bits(a.da, b.da)) << what;
}
template <class T> std::vector<T> as_vector(guarded<T> const& g) { return {g.begin(), g.end()}; }

}  // namespace layout_case
}  // namespace shunt::test
