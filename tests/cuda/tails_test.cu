// The ends of tiles, segments and rows on a device: support/product_tails.hpp, by exact products and by
// tensor cores.
#include "shunt/experts.cuh"
#include "support/device.hpp"
#include "support/product_tails.hpp"

namespace shunt::test {
namespace tails_test {

/// Calls body(run) with the products of each arithmetic.
template <class T, class Body> void by_every_arithmetic(Body const& body) {
  constexpr auto tensor_cores = std::is_same_v<T, float> ? arithmetic::tf32 : arithmetic::best;
  for (arithmetic products : {arithmetic::exact, tensor_cores}) {
    SCOPED_TRACE(static_cast<int>(products));
    on_cuda const on{.products = products};
    body([&](tail_operands<T> const& x) {
      int const E = x.experts(), R = x.rows(), N = x.N, K = x.K;
      bool const gathers = !x.slot.empty();
      int const count = gathers ? x.tokens : R;
      on_device<T> const a(x.a), w(x.w), dc(x.dc);
      on_device<index_t> const offset(offsets_of(x.lengths)), slot(x.slot);
      view<T const, 2, space::device> const av(a.data(), {{count, K}}, {{K + x.spare, 1}}),
          dcv(dc.data(), {{count, N}}, {{N + x.spare, 1}});
      view<T const, 3, space::device> const wv(w.data(), {{E, N, K}},
                                               {{N * (offset_t{K} + x.spare), K + x.spare, 1}});
      segments<space::device> const rows{offset.as(E + 1)};
      row_gather<space::device> through;
      if (gathers) through = {slot.as(R), 1};
      on_device<T> const c(std::vector<T>(static_cast<std::size_t>(R * N), untouched<T>()));
      on_device<float> const da(
          std::vector<float>(static_cast<std::size_t>(R * K), untouched<float>())),
          dw(std::vector<float>(static_cast<std::size_t>(E * N * K), untouched<float>()));
      for (status const& done :
           {grouped_gemm(on, av, wv, rows, c.as(R, N), identity{}, {.gather = through}),
            grouped_dgrad(on, dcv, wv, rows, da.as(R, K), {.gather = through}),
            grouped_wgrad(on, dcv, av, rows, dw.as(E, N, K),
                          {.gather_dc = through, .gather_a = through})}) {
        EXPECT_TRUE(done.ok()) << done.message();
      }
      EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      return tail_products<T>{c.host(), da.host(), dw.host()};
    });
  }
}

template <class T> class CudaTails : public testing::Test {};
using types = testing::Types<float, bf16>;
TYPED_TEST_SUITE(CudaTails, types);

TYPED_TEST(CudaTails, Battery45_TailsAreWrittenAndPaddingIsNotRead) {
  by_every_arithmetic<TypeParam>(
      [](auto const& run) { tails_are_written_and_padding_is_not_read<TypeParam>(run); });
}
TYPED_TEST(CudaTails, Battery45_NanOfANeighborStaysThere) {
  by_every_arithmetic<TypeParam>(
      [](auto const& run) { nan_of_a_neighbor_stays_there<TypeParam>(run); });
}
TYPED_TEST(CudaTails, Battery45_EmptyExpertsEndAndAreZero) {
  by_every_arithmetic<TypeParam>(
      [](auto const& run) { empty_experts_end_and_are_zero<TypeParam>(run); });
}
TYPED_TEST(CudaTails, Battery45_PadsChangeNoToken) {
  by_every_arithmetic<TypeParam>([](auto const& run) { pads_change_no_token<TypeParam>(run); });
}

}  // namespace tails_test
}  // namespace shunt::test
