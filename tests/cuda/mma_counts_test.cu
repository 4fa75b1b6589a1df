// What the products on tensor cores cost, counted: instructions of tensor cores, bank conflicts and
// bytes against the least; and what ptxas makes of the kernels.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include <softgpu/softgpu.hpp>

#include "support/device_experts.hpp"

namespace shunt::test {
namespace mma_counts_test {

/// The counts of the one launch that run() makes.
template <class Run> softgpu::launch_counts counted(Run const& run) {
  (void)softgpu::take_counts();
  softgpu::configure().count_unique_bytes = true;
  status const done = run();
  EXPECT_TRUE(done.ok()) << done.message();
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  softgpu::configure().count_unique_bytes = false;
  auto const counts = softgpu::take_counts();
  EXPECT_EQ(counts.size(), 1u);
  return counts.empty() ? softgpu::launch_counts{} : counts[0];
}

void expect_lean(char const* what, softgpu::launch_counts const& c, double multiply_adds) {
  double const mma = static_cast<double>(c.mma) / 32, least = multiply_adds / (16 * 8 * 16);
  EXPECT_LE(mma, 1.02 * least) << what;
  EXPECT_EQ(c.bank_conflicts, 0u) << what;
  EXPECT_EQ(c.local_bytes, 0u) << what;
  std::printf(
      "%-16s %.3f of the least mma, %llu conflicts in %llu accesses, %.1f other "
      "instructions an mma\n",
      what, mma / least, static_cast<unsigned long long>(c.bank_conflicts),
      static_cast<unsigned long long>(c.shared_accesses),
      (static_cast<double>(c.warp_instructions) - mma) / mma);
}

/// Instructions beside those of tensor cores, for one of these, in the main loop: what 512 terms more
/// add to what there is.
double beside_mma(softgpu::launch_counts const& shorter, softgpu::launch_counts const& longer) {
  auto const mma = static_cast<double>(longer.mma - shorter.mma) / 32;
  return (static_cast<double>(longer.warp_instructions - shorter.warp_instructions) - mma) / mma;
}

TEST(CudaMmaCounts, FewInstructionsBesideThoseOfTensorCores) {
  for (int rows : {64, 128}) {
    auto const forward = [&](int K) {
      product_case<bf16> x({rows}, 128, K);
      device_product<bf16> const y(x);
      on_device<bf16> const c(rows * 128);
      return counted([&] {
        return grouped_gemm(on_cuda{}, y.a.as(rows, K), y.w.as(1, 128, K), y.rows, c.as(rows, 128));
      });
    };
    auto const wgrad = [&](int R) {
      product_case<bf16> x({R}, rows, 128);
      device_product<bf16> const y(x);
      on_device<float> const dw(rows * 128);
      return counted([&] {
        return grouped_wgrad(on_cuda{}, y.dc.as(R, rows), y.a.as(R, 128), y.rows,
                             dw.as(1, rows, 128));
      });
    };
    double const f = beside_mma(forward(512), forward(1024)),
                 w = beside_mma(wgrad(512), wgrad(1024));
    EXPECT_LE(f, rows == 64 ? 10 : 6);
    EXPECT_LE(w, rows == 64 ? 12 : 8);
    std::printf("beside one mma, tiles of %d rows: forward %.1f, wgrad %.1f instructions\n", rows,
                f, w);
  }
}

// Full tiles of 128 and of 64 rows; three experts, whose rows end where tiles do.
TEST(CudaMmaCounts, FullTilesTakeTheLeastMmaWithoutConflicts) {
  constexpr int N = 256, K = 512;
  for (int rows : {64, 128}) {
    product_case<bf16> x({rows, rows, rows}, N, K);
    device_product<bf16> const y(x);
    int const R = x.R;
    on_device<bf16> const c(R * N), da(R * K);
    on_device<float> const dw(3 * N * K);
    on_cuda const on;
    double const work = static_cast<double>(R) * N * K;
    std::string const of = " of " + std::to_string(rows);
    auto const w = y.w.as(3, N, K);
    expect_lean(("forward" + of).c_str(),
                counted([&] { return grouped_gemm(on, y.a.as(R, K), w, y.rows, c.as(R, N)); }),
                work);
    expect_lean(("swiglu" + of).c_str(), counted([&] {
                  return grouped_gemm(on, y.a.as(R, K), w, y.rows, da.as(R, N / 2), swiglu{});
                }),
                work);
    expect_lean(("dgrad" + of).c_str(),
                counted([&] { return grouped_dgrad(on, y.dc.as(R, N), w, y.rows, da.as(R, K)); }),
                work);
    expect_lean(("wgrad" + of).c_str(), counted([&] {
                  return grouped_wgrad(on, y.dc.as(R, N), y.a.as(R, K), y.rows, dw.as(3, N, K));
                }),
                work);
  }
}

// Decode: a row or a few of each of five experts among eight. Their weights are read once, and no other.
TEST(CudaMmaCounts, DecodeReadsEachTouchedExpertsWeightsOnce) {
  constexpr int N = 256, K = 1024;
  for (int rows : {1, 4}) {
    product_case<bf16> x({rows, 0, rows, 0, rows, rows, 0, rows}, N, K);
    device_product<bf16> const y(x);
    on_device<bf16> const c(x.R * N);
    auto const is = counted([&] {
      return grouped_gemm(on_cuda{}, y.a.as(x.R, K), y.w.as(8, N, K), y.rows, c.as(x.R, N));
    });
    // Tokens come once for each strip of 128 columns.
    double const weights = 5.0 * N * K * 2, tokens = x.R * K * 2.0 * (N / 128);
    double const read = 32.0 * static_cast<double>(is.sectors_read);
    EXPECT_LE(read, 1.01 * (weights + tokens));
    EXPECT_LE(static_cast<double>(is.unique_bytes_read), 1.01 * (weights + x.R * K * 2.0));
    EXPECT_EQ(is.bank_conflicts, 0u);
    std::printf("decode, %d rows an expert: %.4f of the touched weights and tokens read\n", rows,
                read / (weights + tokens));
  }
}

// Of the others, tests/cuda/matrix keeps a table.
TEST(CudaMmaCounts, NothingSpills) {
  auto const check = [](char const* name, auto* kernel) {
    for (auto const& r : softgpu::resources_of(reinterpret_cast<void const*>(kernel))) {
      EXPECT_EQ(r.error, "");
      EXPECT_EQ(r.spill_store_bytes + r.spill_load_bytes + r.stack_bytes, 0)
          << name << " on " << r.architecture;
      std::printf("%-16s %-7s %3d registers\n", name, r.architecture.c_str(), r.registers);
    }
  };
  using cuda::gemm_tensor;
  using forward = cuda::epilogue_forward<cuda::device_activation<activation>>;
  check("forward 128", &gemm_tensor<bf16, 128, forward>);
  check("wgrad 128", &gemm_tensor<bf16, 128, cuda::epilogue_gradient>);
}

}  // namespace mma_counts_test
}  // namespace shunt::test
