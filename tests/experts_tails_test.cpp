// The ends of tiles, segments and rows: support/product_tails.hpp, on every instruction set.
#include "support/product_tails.hpp"
#include "support/storage_types.hpp"

namespace shunt::test {
namespace experts_tails_test {

template <class T> guarded<T> guard(std::vector<T> const& from) { return guarded<T>(from); }

/// Calls body(run) with the products of each instruction set and thread count.
template <class T, class Body> void on_every_host(Body const& body) {
  for (on_host const& on : host_configs()) {
    SCOPED_TRACE(name_of(on));
    body([&](tail_operands<T> const& x) {
      int const E = x.experts(), R = x.rows(), N = x.N, K = x.K;
      bool const gathers = !x.slot.empty();
      int const count = gathers ? x.tokens : R;
      guarded<T> const a = guard(x.a), w = guard(x.w), dc = guard(x.dc);
      guarded<index_t> const offset(offsets_of(x.lengths)), slot(x.slot);
      view<T const, 2> const av(a.data(), {{count, K}}, {{K + x.spare, 1}}),
          dcv(dc.data(), {{count, N}}, {{N + x.spare, 1}});
      view<T const, 3> const wv(w.data(), {{E, N, K}},
                                {{N * (offset_t{K} + x.spare), K + x.spare, 1}});
      segments<> const rows{offset.as(E + 1)};
      row_gather<> const through = gathers ? row_gather<>{slot.as(R), 1} : row_gather<>{};
      guarded<T> c(static_cast<std::size_t>(R * N));
      guarded<float> da(static_cast<std::size_t>(R * K)), dw(static_cast<std::size_t>(E * N * K));
      for (status const& done :
           {grouped_gemm(on, av, wv, rows, c.as(R, N), identity{}, {.gather = through}),
            grouped_dgrad(on, dcv, wv, rows, da.as(R, K), {.gather = through}),
            grouped_wgrad(on, dcv, av, rows, dw.as(E, N, K),
                          {.gather_dc = through, .gather_a = through})}) {
        EXPECT_TRUE(done.ok()) << done.message();
      }
      return tail_products<T>{{c.begin(), c.end()}, {da.begin(), da.end()}, {dw.begin(), dw.end()}};
    });
  }
}

template <class T> class ExpertsTails : public testing::Test {};
TYPED_TEST_SUITE(ExpertsTails, storage_types);

TYPED_TEST(ExpertsTails, Battery45_TailsAreWrittenAndPaddingIsNotRead) {
  on_every_host<TypeParam>(
      [](auto const& run) { tails_are_written_and_padding_is_not_read<TypeParam>(run); });
}
TYPED_TEST(ExpertsTails, Battery45_NanOfANeighborStaysThere) {
  on_every_host<TypeParam>([](auto const& run) { nan_of_a_neighbor_stays_there<TypeParam>(run); });
}
TYPED_TEST(ExpertsTails, Battery45_EmptyExpertsEndAndAreZero) {
  on_every_host<TypeParam>([](auto const& run) { empty_experts_end_and_are_zero<TypeParam>(run); });
}
TYPED_TEST(ExpertsTails, Battery45_PadsChangeNoToken) {
  on_every_host<TypeParam>([](auto const& run) { pads_change_no_token<TypeParam>(run); });
}

}  // namespace experts_tails_test
}  // namespace shunt::test
