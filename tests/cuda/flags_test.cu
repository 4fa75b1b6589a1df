// Which of nvcc's flags would silently end contract 2: --use_fast_math and what it is made of. nvcc
// defines no macro for them, so a program can only look at what becomes of its numbers. (The software
// device divides exactly whatever it is asked for: -prec-div=false alone shows on a GPU.)
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "shunt/backend/cuda/launch.cuh"
#include "shunt/core/math.hpp"
#include "support/device.hpp"

namespace shunt::test {
namespace flags_test {

constexpr int results = 7;

/// One thread an operand pair: what the library's kernels are made of.
SHUNT_KERNEL void arithmetic_of(float const* x, float const* y, int count, float* to) {
  int const i = static_cast<int>(threadIdx.x);
  if (i >= count) return;
  float* const out = to + i * results;
  out[0] = __fmaf_rn(x[i], 1.0f, 0.0f);
  out[1] = __fmul_rn(x[i], 0.5f);
  out[2] = __fadd_rn(x[i], x[i]);
  out[3] = x[i] * 0.25f;
  out[4] = x[i] / y[i];
  out[5] = __fdiv_rn(x[i], y[i]);
  out[6] = __fsqrt_rn(math::abs(x[i]));
}

TEST(CudaFlags, NothingIsFlushedToZeroNorDividedApproximately) {
  char const* const sentence =
      "Built with --use_fast_math, -ftz=true or -prec-div=false: the device does not have the "
      "host's "
      "bits (docs/contracts.md, 2). Build without these flags.";
  std::vector<float> x, y;
  for (int i = 0; i < 32; ++i) {
    x.push_back(i < 8 ? std::ldexp(1.0f + static_cast<float>(i) / 8, -130 - i)  // subnormal
                      : static_cast<float>(2 * i + 1) * 0x1.2345p-3f);
    y.push_back(i < 8 ? 3.0f : 7.0f + static_cast<float>(i * i));
  }
  on_device<float> const dx(x), dy(y), to(32 * results);
  ASSERT_TRUE(
      cuda::launch(on_cuda{}, "flags", 1, 32, arithmetic_of, dx.data(), dy.data(), 32, to.data())
          .ok());
  auto const got = to.host();
  for (std::size_t i = 0; i < 32; ++i) {
    float const a = x[i];
    float const want[results] = {a, a * 0.5f, a + a, a * 0.25f, a / y[i], a / y[i], std::sqrt(a)};
    for (std::size_t k = 0; k < results; ++k) {
      ASSERT_EQ(got[i * results + k], want[k])
          << "operation " << k << " of " << a << ". " << sentence;
    }
  }
}

}  // namespace flags_test
}  // namespace shunt::test
