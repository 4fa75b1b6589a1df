// Contract 11: the weights where and how they lie. Every layout gives the bits of the plain one.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include "support/experts_case.hpp"
#include "support/layout_case.hpp"
#include "support/storage_types.hpp"

namespace shunt::test {
namespace experts_layout_test {

using namespace layout_case;

template <class T> class ExpertsLayout : public testing::Test {};
TYPED_TEST_SUITE(ExpertsLayout, storage_types);

constexpr int I = 37, N = 2 * I, K = 290;  // neither a multiple of a panel, nor of a block

TYPED_TEST(ExpertsLayout, Battery23_GateAndUpInEveryOrderAndInterleaving) {
  using T = TypeParam;
  for (auto const& configs : host_arithmetics<T>()) {
    product_case<T> x({9, 0, 70}, N, K);
    auto const bias = normal_values<T>(3 * N, 12);
    on_host const plain_config = configs.front();
    auto const want = run_all<T>(plain_config, x, x.w.as(3, N, K), expert_vector<>(bias.as(3, N)));
    EXPECT_TRUE(all_finite(in_segments(want.act, x.expert)));
    guarded<float> dw_want(x.w.size()), db_want(3 * N);
    ASSERT_TRUE(grouped_wgrad(plain_config, x.dc.as(x.R, N), x.a.as(x.R, K), x.rows,
                              dw_want.as(3, N, K), {.d_bias = db_want.as(3, N)})
                    .ok());
    for (bool up_first : {false, true}) {
      for (index_t block : {0, 1, 3, 16, 32, 64}) {
        std::string const what =
            std::string(up_first ? "up first" : "gate first") + ", block " + std::to_string(block);
        pair_layout const layout{up_first ? pair_order::up_gate : pair_order::gate_up, block};
        guarded<T> const w(laid_out(as_vector(x.w), 3, N, K, up_first, block));
        guarded<T> const b(laid_out(as_vector(bias), 3, N, 1, up_first, block));
        expert_matrix<T> const lying(w.as(3, N, K), layout);
        for (on_host const& on : configs) {
          expect_same(want, run_all<T>(on, x, lying, b.as(3, N)), what + ", " + name_of(on));
        }
        // Gradients land where the weights lie.
        guarded<float> dw(x.w.size()), db(3 * N);
        ASSERT_TRUE(grouped_wgrad(configs.front(), x.dc.as(x.R, N), x.a.as(x.R, K), x.rows,
                                  expert_gradient<>(dw.as(3, N, K), layout),
                                  {.d_bias = db.as(3, N)})
                        .ok());
        guarded<float> const dw_lying(laid_out(as_vector(dw_want), 3, N, K, up_first, block));
        guarded<float> const db_lying(laid_out(as_vector(db_want), 3, N, 1, up_first, block));
        EXPECT_TRUE(same_bits(dw, dw_lying) && same_bits(db, db_lying)) << what;
        // Packed from any layout.
        guarded<T> packed(static_cast<std::size_t>(lying.packed_elements()));
        ASSERT_TRUE(pack_weights(on_host{.threads = 2}, lying, packed).ok());
        EXPECT_TRUE(all_finite(packed));
        expect_same(
            want,
            run_all<T>(configs.front(), x, expert_matrix<T>::packed(packed.data(), 3, N, K, layout),
                       b.as(3, N)),
            "packed from " + what);
      }
    }
  }
}

TYPED_TEST(ExpertsLayout, PackedWeightsGiveTheSameBitsInEveryWorld) {
  using T = TypeParam;
  for (auto const& configs : host_arithmetics<T>()) {
    for (int rows : {1, 15, 16, 17, 33, 130}) {
      for (int columns : {1, 16, 257}) {
        product_case<T> x({3, 100, 0}, rows, columns);
        expert_matrix<T> const plain(x.w.as(3, rows, columns));
        guarded<T> packed(static_cast<std::size_t>(plain.packed_elements()));
        ASSERT_TRUE(pack_weights(configs.front(), plain, packed).ok());
        guarded<float> want = x.like_c(), da_want(x.a.size());
        ASSERT_TRUE(
            grouped_gemm(configs.front(), x.a.as(x.R, columns), plain, x.rows, want.as(x.R, rows))
                .ok());
        ASSERT_TRUE(grouped_dgrad(configs.front(), x.dc.as(x.R, rows), plain, x.rows,
                                  da_want.as(x.R, columns))
                        .ok());
        auto const w = expert_matrix<T>::packed(packed.data(), 3, rows, columns);
        for (on_host const& on : configs) {
          guarded<float> c = x.like_c(), da(x.a.size());
          ASSERT_TRUE(grouped_gemm(on, x.a.as(x.R, columns), w, x.rows, c.as(x.R, rows)).ok());
          ASSERT_TRUE(grouped_dgrad(on, x.dc.as(x.R, rows), w, x.rows, da.as(x.R, columns)).ok());
          EXPECT_TRUE(same_bits(want, c) && same_bits(da_want, da))
              << name_of(on) << " N " << rows << " K " << columns;
        }
      }
    }
  }
}

// Few rows have paths of their own: several panels or columns side by side, and what is left of them;
// rows longer than the buffer of their floats.
TYPED_TEST(ExpertsLayout, AFewRowsOfManyAndOfLongColumns) {
  using T = TypeParam;
  for (auto const& configs : host_arithmetics<T>()) {
    for (auto const& extents : {std::pair{230, 70}, {150, 61}, {66, 6050}, {34, 18450}}) {
      int const rows = extents.first, columns = extents.second;
      product_case<T> x({1, 2, 3, 0, 4, 5, 6, 7}, rows, columns, 5);
      auto const want_all = in_segments(
          product(in_double(x.a), in_double(x.w), {}, x.expert, rows, columns), x.expert);
      for (bool const pairs : {false, true}) {
        SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(columns) +
                     (pairs ? " pairs" : ""));
        expert_matrix<T> plain(x.w.as(8, rows, columns));
        if (pairs) plain = plain.in_pairs();
        guarded<T> packed(static_cast<std::size_t>(plain.packed_elements()));
        ASSERT_TRUE(pack_weights(on_host{}, plain, packed).ok());
        auto const w = pairs ? expert_matrix<T>::packed(packed.data(), 8, rows, columns, {})
                             : expert_matrix<T>::packed(packed.data(), 8, rows, columns);
        guarded<float> want;
        for (on_host const& on : configs) {
          guarded<float> c(product_case<T>::count(x.R, pairs ? rows / 2 : rows)),
              c_packed(c.size());
          auto const run = [&](expert_matrix<T> const& of, guarded<float>& to) {
            auto const a = x.a.as(x.R, columns);
            return pairs ? grouped_gemm(on, a, of, x.rows, to.as(x.R, rows / 2), swiglu{})
                         : grouped_gemm(on, a, of, x.rows, to.as(x.R, rows));
          };
          ASSERT_TRUE(run(plain, c).ok() && run(w, c_packed).ok());
          if (want.size() == 0) want = c;
          EXPECT_TRUE(same_bits(want, c) && same_bits(want, c_packed)) << name_of(on);
        }
        if (!pairs) { EXPECT_TRUE(close(in_segments(want, x.expert), want_all, columns + 1)); }
      }
    }
  }
}

TYPED_TEST(ExpertsLayout, OnePointerPerExpertAndAnyStrides) {
  using T = TypeParam;
  for (auto const& configs : host_arithmetics<T>()) {
    product_case<T> x({9, 0, 70}, N, K);
    auto const bias = normal_values<T>(3 * N, 12);
    auto const want =
        run_all<T>(configs.front(), x, x.w.as(3, N, K), expert_vector<>(bias.as(3, N)));
    std::vector<guarded<T>> own;
    for (int e = 0; e < 3; ++e) {
      own.emplace_back(N * (K + 5) - 5);
      for (int n = 0; n < N; ++n) {
        for (int k = 0; k < K; ++k) {
          own.back()[static_cast<std::size_t>(n * (K + 5) + k)] = x.w.as(3, N, K)(e, n, k);
        }
      }
    }
    // Expert 1 has no rows: its weights are never looked at, even by the forward product.
    T const* pointers[] = {own[2].data(), nullptr, own[0].data()};
    std::swap(pointers[0], pointers[2]);
    T const* bias_pointers[] = {bias.data(), nullptr, bias.data() + 2 * N};
    auto const w = expert_matrix<T>::each(view<T const* const, 1>(pointers, {{3}}), N, K, K + 5);
    auto const b = expert_vector<>::each<T>(view<T const* const, 1>(bias_pointers, {{3}}), N);
    for (on_host const& on : configs) expect_same(want, run_all<T>(on, x, w, b), name_of(on));

    // [E,K,N]: the same matrices the other way round.
    guarded<T> turned(x.w.size());
    for (int e = 0; e < 3; ++e) {
      for (int n = 0; n < N; ++n) {
        for (int k = 0; k < K; ++k) turned.as(3, K, N)(e, k, n) = x.w.as(3, N, K)(e, n, k);
      }
    }
    view<T const, 3> const ekn(turned.data(), {{3, N, K}}, {{N * K, 1, N}});
    for (on_host const& on : configs) {
      expect_same(want, run_all<T>(on, x, ekn, bias.as(3, N)), "[E,K,N] " + name_of(on));
    }
  }
}

TEST(ExpertsLayouts, GradientsThroughPointersAndStrides) {
  product_case<float> x({9, 0, 70}, N, K);
  guarded<float> want(x.w.size());
  ASSERT_TRUE(
      grouped_wgrad(on_host{}, x.dc.as(x.R, N), x.a.as(x.R, K), x.rows, want.as(3, N, K)).ok());
  for (on_host const& on : host_configs()) {
    std::vector<guarded<float>> own(3, guarded<float>(N * K));
    float* pointers[] = {own[0].data(), own[1].data(), own[2].data()};
    ASSERT_TRUE(grouped_wgrad(on, x.dc.as(x.R, N), x.a.as(x.R, K), x.rows,
                              expert_gradient<>::each(view<float* const, 1>(pointers, {{3}}), N, K))
                    .ok());
    guarded<float> turned(x.w.size());
    view<float, 3> const ekn(turned.data(), {{3, N, K}}, {{N * K, 1, N}});
    ASSERT_TRUE(grouped_wgrad(on, x.dc.as(x.R, N), x.a.as(x.R, K), x.rows, ekn).ok());
    for (int e = 0; e < 3; ++e) {
      EXPECT_EQ(std::memcmp(own[static_cast<std::size_t>(e)].data(), want.data() + e * N * K,
                            N * K * sizeof(float)),
                0);
      for (int n = 0; n < N; ++n) {
        for (int k = 0; k < K; ++k) ASSERT_EQ(ekn(e, n, k), want.as(3, N, K)(e, n, k));
      }
    }
  }
}

/// Address space without memory: pages come when they are touched.
template <class T> struct sparse {
  T* data = nullptr;
  std::size_t bytes;
  explicit sparse(offset_t elements) : bytes(static_cast<std::size_t>(elements) * sizeof(T)) {
    void* const at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at != MAP_FAILED) data = static_cast<T*>(at);
  }
  ~sparse() {
    if (data != nullptr) munmap(data, bytes);
  }
  sparse(sparse const&) = delete;
  sparse& operator=(sparse const&) = delete;
};

// Offsets past 2^31 elements in every operand: small data, huge strides.
TYPED_TEST(ExpertsLayout, Battery05_OffsetsPast31Bits) {
  using T = TypeParam;
  for (auto const& configs : host_arithmetics<T>()) {
    constexpr int n_rows = 6, n_columns = 20;
    product_case<T> x({2, 3, 4}, n_rows, n_columns);
    guarded<float> want = x.like_c(), da_want(x.a.size()), dw_want(x.w.size());
    auto const a0 = x.a.as(x.R, n_columns);
    auto const dc0 = x.dc.as(x.R, n_rows);
    ASSERT_TRUE(grouped_gemm(configs.front(), a0, x.w.as(3, n_rows, n_columns), x.rows,
                             want.as(x.R, n_rows))
                    .ok());
    ASSERT_TRUE(grouped_dgrad(configs.front(), dc0, x.w.as(3, n_rows, n_columns), x.rows,
                              da_want.as(x.R, n_columns))
                    .ok());
    ASSERT_TRUE(
        grouped_wgrad(configs.front(), dc0, a0, x.rows, dw_want.as(3, n_rows, n_columns)).ok());

    constexpr offset_t far = (offset_t{1} << 30) + 12345;  // the third expert lies past 2^31
    constexpr offset_t row_far = far / 4;                  // the ninth row too
    sparse<T> w(3 * far), a(9 * row_far), dc(9 * row_far);
    sparse<float> c(9 * row_far), da(9 * row_far), dw(3 * far);
    if (w.data == nullptr || a.data == nullptr || dc.data == nullptr || c.data == nullptr ||
        da.data == nullptr || dw.data == nullptr) {
      GTEST_SKIP() << "no address space for 70 GB of sparse memory";
    }
    view<T, 3> const wv(w.data, {{3, n_rows, n_columns}}, {{far, n_columns, 1}});
    view<float, 3> const dwv(dw.data, {{3, n_rows, n_columns}}, {{far, n_columns, 1}});
    view<T, 2> const av(a.data, {{9, n_columns}}, {{row_far, 1}});
    view<T, 2> const dcv(dc.data, {{9, n_rows}}, {{row_far, 1}});
    view<float, 2> const cv(c.data, {{9, n_rows}}, {{row_far, 1}});
    view<float, 2> const dav(da.data, {{9, n_columns}}, {{row_far, 1}});
    for (int e = 0; e < 3; ++e) {
      for (int n = 0; n < n_rows; ++n) {
        for (int k = 0; k < n_columns; ++k) wv(e, n, k) = x.w.as(3, n_rows, n_columns)(e, n, k);
      }
    }
    for (int r = 0; r < 9; ++r) {
      for (int k = 0; k < n_columns; ++k) av(r, k) = a0(r, k);
      for (int n = 0; n < n_rows; ++n) dcv(r, n) = dc0(r, n);
    }
    for (on_host const& on : configs) {
      if (on.threads > 1) continue;
      ASSERT_TRUE(grouped_gemm(on, av, wv, x.rows, cv).ok());
      ASSERT_TRUE(grouped_dgrad(on, dcv, wv, x.rows, dav).ok());
      ASSERT_TRUE(grouped_wgrad(on, dcv, av, x.rows, dwv).ok());
      for (int r = 0; r < 9; ++r) {
        for (int n = 0; n < n_rows; ++n) ASSERT_EQ(cv(r, n), want.as(x.R, n_rows)(r, n));
        for (int k = 0; k < n_columns; ++k) ASSERT_EQ(dav(r, k), da_want.as(x.R, n_columns)(r, k));
      }
      for (int e = 0; e < 3; ++e) {
        for (int n = 0; n < n_rows; ++n) {
          for (int k = 0; k < n_columns; ++k) {
            ASSERT_EQ(dwv(e, n, k), dw_want.as(3, n_rows, n_columns)(e, n, k));
          }
        }
      }
    }
  }
}

// Weights of more than 2^31 elements in truth; most of them are one page of zeros.
TEST(ExpertsLayouts, Battery05_MoreThan2To31Weights) {
  if (small_scale()) GTEST_SKIP() << "reads 4.3 GB of address space";
  constexpr offset_t rows = 525000, columns = 2050;
  sparse<bf16> w(2 * rows * columns);
  ASSERT_NE(w.data, nullptr);
  view<bf16, 3> const wv(w.data, {{2, rows, columns}});
  ASSERT_GT(wv.size(), offset_t{1} << 31);
  wv(1, rows - 1, columns - 1) = from_float<bf16>(3.0f);
  wv(1, rows - 1, 0) = from_float<bf16>(0.5f);
  wv(0, 0, 0) = from_float<bf16>(-7.0f);
  guarded<index_t> const offset(std::vector<index_t>{0, 1, 2});
  guarded<float> a(2 * columns), c(2 * rows), da(2 * columns);
  for (float& v : a) v = 1.0f;
  ASSERT_TRUE(grouped_gemm(on_host{}, a.as(2, columns), wv, {offset.as(3)}, c.as(2, rows)).ok());
  EXPECT_EQ(c.as(2, rows)(0, 0), -7.0f);
  EXPECT_EQ(c.as(2, rows)(1, rows - 1), 3.5f);
  EXPECT_EQ(c.as(2, rows)(1, 0), 0.0f);
  EXPECT_EQ(c.as(2, rows)(0, rows - 1), 0.0f);
  ASSERT_TRUE(grouped_dgrad(on_host{}, c.as(2, rows), wv, {offset.as(3)}, da.as(2, columns)).ok());
  EXPECT_EQ(da.as(2, columns)(0, 0), 49.0f);
  EXPECT_EQ(da.as(2, columns)(1, columns - 1), 10.5f);
  EXPECT_EQ(da.as(2, columns)(1, 0), 1.75f);
}

// More than caches hold: written in whole lines, where rows lie so, and past the caches.
TEST(ExpertsLayouts, GradientsPastTheCaches) {
  if (small_scale()) GTEST_SKIP() << "computes two thousand million products";
  constexpr int n_rows = 1030, n_columns = 4112;
  product_case<float> const x({5, 43}, n_rows, n_columns);
  constexpr std::size_t line = 16, size = std::size_t{2} * n_rows * n_columns;
  std::vector<float> memory(size + 2 * line);
  std::size_t const to_line =
      line - reinterpret_cast<std::uintptr_t>(memory.data()) / sizeof(float) % line;
  for (std::size_t start : {to_line, to_line + 1}) {
    for (isa set : instruction_sets()) {
      std::fill(memory.begin(), memory.end(), NAN);
      view<float, 3> const dw(memory.data() + start, {{2, n_rows, n_columns}});
      ASSERT_TRUE(grouped_wgrad(on_host{.instructions = set}, x.dc.as(x.R, n_rows),
                                x.a.as(x.R, n_columns), x.rows, dw)
                      .ok());
      int wrong = 0;
      for (int e = 0, first = 0, last = 5; e < 2; ++e, first = 5, last = x.R) {
        for (int n = e; n < n_rows; n += 19) {
          for (int k = 0; k < n_columns; ++k) {
            float sum = 0.0f;
            for (int r = first; r < last; ++r) {
              sum = std::fmaf(x.dc.as(x.R, n_rows)(r, n), x.a.as(x.R, n_columns)(r, k), sum);
            }
            wrong += dw(e, n, k) != sum;
          }
        }
      }
      EXPECT_EQ(wrong, 0) << to_string(set) << ", start " << start;
      EXPECT_TRUE(std::isnan(memory[start - 1]) && std::isnan(memory[start + size]));
      EXPECT_EQ(std::count_if(memory.begin(), memory.end(), [](float v) { return v != v; }),
                std::ptrdiff_t{2 * line});
    }
  }
}

}  // namespace experts_layout_test
}  // namespace shunt::test
