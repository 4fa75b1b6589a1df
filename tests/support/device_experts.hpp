#pragma once
#include <string>
#include <vector>

#include "shunt/experts.cuh"
#include "support/device_plan.hpp"
#include "support/experts_case.hpp"

namespace shunt::test {

template <class T> std::vector<T> as_vector(guarded<T> const& g) { return {g.begin(), g.end()}; }

/// The same product's numbers in device memory.
template <class T> struct device_product {
  int E, N, K, R;
  on_device<index_t> offset;
  on_device<T> a, w, dc;
  segments<space::device> rows;

  explicit device_product(product_case<T> const& x)
      : E(x.E),
        N(x.N),
        K(x.K),
        R(x.R),
        offset(as_vector(x.offset)),
        a(as_vector(x.a)),
        w(as_vector(x.w)),
        dc(as_vector(x.dc)),
        rows{offset.as(x.E + 1)} {}
};

/// Calls run(policy, side, out) with both policies; what they leave in out must be the same bits, so
/// that products are exact ones.
/// `before` is what out holds first; empty: NaN.
template <class O, class T, class Run>
void same_in_both(product_case<T> const& x, device_product<T> const& y, std::size_t count,
                  Run const& run, guarded<O> const& before = guarded<O>()) {
  guarded<O> h(count);
  if (before.size() > 0) h = before;
  on_device<O> const d(as_vector(h));
  status const on_h = run(on_host{}, x, h),
               on_d = run(on_cuda{.products = arithmetic::exact}, y, d);
  ASSERT_TRUE(on_h.ok()) << on_h.message();
  ASSERT_TRUE(on_d.ok()) << on_d.message();
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_TRUE(same_values(d.host(), as_vector(h)));
}

}  // namespace shunt::test
