// wmma through nvcuda::wmma: every shape and type, both layouts, against plain products; and the
// shapes of mma.sync that are not in matrix_test.
#include <mma.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "device_array.hpp"

namespace wmma_test {

using namespace nvcuda;

/// C = A·B + C; leading dimensions leave gaps.
template <int M, int N, int K, class T, class Stored, class Sum, class LayoutA, class LayoutB,
          wmma::layout_t LayoutC>
__global__ void multiply(Stored const* a, int lda, Stored const* b, int ldb, Sum* c, int ldc) {
  wmma::fragment<wmma::matrix_a, M, N, K, T, LayoutA> fa;
  wmma::fragment<wmma::matrix_b, M, N, K, T, LayoutB> fb;
  wmma::fragment<wmma::accumulator, M, N, K, Sum> fc;
  wmma::load_matrix_sync(fa, a, lda);
  wmma::load_matrix_sync(fb, b, ldb);
  wmma::load_matrix_sync(fc, c, ldc, LayoutC);
  for (int i = 0; i < fc.num_elements; ++i) fc.x[i] = fc.x[i] + fc.x[i];  // any layout can do this
  wmma::mma_sync(fc, fa, fb, fc);
  wmma::store_matrix_sync(c, fc, ldc, LayoutC);
}

struct matrix {
  int rows, columns, stride;
  bool by_row;
  std::vector<double> x;
  std::size_t at(int r, int c) const {
    return std::size_t(by_row ? r * stride + c : c * stride + r);
  }
};
matrix random_matrix(int rows, int columns, bool by_row, int seed) {
  matrix m{rows, columns, (by_row ? columns : rows) + 16, by_row, {}};
  m.x.resize(std::size_t(m.stride) * (by_row ? rows : columns));
  std::mt19937 rng(seed);
  for (double& v : m.x) v = int(rng() % 17) - 8;
  return m;
}
template <class T> std::vector<T> as(matrix const& m) {
  std::vector<T> out;
  for (double const v : m.x) out.push_back(T(float(v)));
  return out;
}

template <int M, int N, int K, class T, class Stored, class Sum, bool RowA, bool RowB, bool RowC>
void check() {
  using layout_a = std::conditional_t<RowA, wmma::row_major, wmma::col_major>;
  using layout_b = std::conditional_t<RowB, wmma::row_major, wmma::col_major>;
  constexpr auto layout_c = RowC ? wmma::mem_row_major : wmma::mem_col_major;
  matrix a = random_matrix(M, K, RowA, 1), b = random_matrix(K, N, RowB, 2);
  matrix const c = random_matrix(M, N, RowC, 3);
  if (std::is_unsigned_v<Stored>)
    for (matrix* const m : {&a, &b})
      for (double& v : m->x) v = v < 0 ? v + 256 : v;
  device_array<Stored> da(as<Stored>(a)), db(as<Stored>(b));
  device_array<Sum> dc(as<Sum>(c));
  multiply<M, N, K, T, Stored, Sum, layout_a, layout_b, layout_c>
      <<<1, 32>>>(da.data, a.stride, db.data, b.stride, dc.data, c.stride);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const r = dc.host();
  std::vector<double> expected = c.x;
  for (int i = 0; i < M; ++i)
    for (int j = 0; j < N; ++j) {
      double sum = 2 * c.x[c.at(i, j)];
      for (int k = 0; k < K; ++k) sum += a.x[a.at(i, k)] * b.x[b.at(k, j)];
      expected[c.at(i, j)] = sum;
    }
  for (std::size_t i = 0; i < expected.size(); ++i)  // small integers: exact; gaps untouched
    ASSERT_EQ(double(r[i]), expected[i]) << i;
}

template <int M, int N> void check_halves() {
  check<M, N, 16, half, half, float, true, false, true>();
  check<M, N, 16, half, half, half, false, true, false>();
  check<M, N, 16, half, half, float, false, false, false>();
  check<M, N, 16, __nv_bfloat16, __nv_bfloat16, float, true, true, true>();
  check<M, N, 16, signed char, signed char, int, true, false, false>();
  check<M, N, 16, unsigned char, unsigned char, int, false, true, true>();
}
TEST(Wmma, Squares) { check_halves<16, 16>(); }
TEST(Wmma, Tall) { check_halves<32, 8>(); }
TEST(Wmma, Broad) { check_halves<8, 32>(); }
TEST(Wmma, Tf32) {
  check<16, 16, 8, wmma::precision::tf32, float, float, true, false, true>();
  check<16, 16, 8, wmma::precision::tf32, float, float, false, true, false>();
}
TEST(Wmma, Doubles) {
  check<8, 8, 4, double, double, double, true, false, true>();
  check<8, 8, 4, double, double, double, false, true, false>();
}

}  // namespace wmma_test
