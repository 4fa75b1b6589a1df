// The products on tensor cores: within their bound of the oracle, the same bits wherever the weights
// lie and whatever the tile, and what they cost.
#include <gtest/gtest.h>

#include <array>

#include <softgpu/softgpu.hpp>

#include "support/device_experts.hpp"

namespace shunt::test {
namespace {

struct extents {
  int N, K;
};
// Nothing is a multiple of anything; words of 16 bytes with a rest; whole steps of the pipeline.
constexpr extents battery_extents[] = {{1, 1}, {6, 3}, {134, 259}, {72, 40}, {64, 96}};

/// Roundings of a sum of n terms on tensor cores, of the sum of magnitudes: see docs/numerics.md.
constexpr double roundings(int n) { return 3.0 * (n + 16); }

/// The device's answer to run(out).
template <class O, class Run> guarded<O> on_tensor_cores(std::size_t count, Run const& run) {
  on_device<O> const out(as_vector(guarded<O>(count)));
  status const done = run(out);
  EXPECT_TRUE(done.ok()) << done.message();
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return out.host();
}

template <class T> class CudaMma : public testing::Test {};
using half_types = testing::Types<bf16, fp16>;
TYPED_TEST_SUITE(CudaMma, half_types);

template <class T> void products_are_close(on_cuda const& on, double storing) {
  for (auto const& [name, lengths] : segment_battery()) {
    for (auto const& [N, K] : battery_extents) {
      SCOPED_TRACE(std::string(name) + " N " + std::to_string(N));
      product_case<T> x(lengths, N, K, 7, 3);
      device_product<T> const y(x);
      auto const a = in_double(x.a), w = in_double(x.w), dc = in_double(x.dc);
      auto const within = [&](auto const& got, auto const& want, int terms) {
        EXPECT_TRUE(close(in_segments(got, x.expert), in_segments(want, x.expert),
                          roundings(terms) + storing));
      };
      within(on_tensor_cores<T>(x.dc.size(),
                                [&](auto& c) {
                                  return grouped_gemm(on, y.a.as(y.R, K), y.w.as(y.E, N, K), y.rows,
                                                      c.as(y.R, N));
                                }),
             product(a, w, {}, x.expert, N, K), K);
      within(on_tensor_cores<float>(x.a.size(),
                                    [&](auto& da) {
                                      return grouped_dgrad(on, y.dc.as(y.R, N), y.w.as(y.E, N, K),
                                                           y.rows, da.as(y.R, K));
                                    }),
             product_to_rows(dc, w, x.expert, N, K), N);
      EXPECT_TRUE(
          close(on_tensor_cores<float>(x.w.size(),
                                       [&](auto& dw) {
                                         return grouped_wgrad(on, y.dc.as(y.R, N), y.a.as(y.R, K),
                                                              y.rows, dw.as(y.E, N, K));
                                       }),
                product_to_weights(dc, a, {}, x.expert, x.E, N, K), roundings(x.R) + storing));
    }
  }
}

TYPED_TEST(CudaMma, EachProductIsTheFormula) { products_are_close<TypeParam>(on_cuda{}, 0); }

}  // namespace
}  // namespace shunt::test
