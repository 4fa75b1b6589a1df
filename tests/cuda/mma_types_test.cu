// The products on tensor cores, of the other types, and which kernel is chosen for what.
#include <gtest/gtest.h>

#include <string>

#include "support/device_products.hpp"

namespace shunt::test {
namespace {

TEST(CudaMmaTypes, Fp16IsTheFormula) { products_are_close<fp16>(on_cuda{}, 0, false); }

// Operands rounded to 11 bits; without being asked, floats stay floats (experts_test: the host's bits).
TEST(CudaMmaTypes, Tf32OnRequest) {
  products_are_close<float>(on_cuda{.products = arithmetic::tf32}, 0x1p14 + 8, false);
}

/// The choice for so many rows of eight experts, as text.
std::string choice(on_cuda const& on, stored a, stored w, offset_t rows) {
  cuda::gemm_job job;
  job.experts = 8;
  job.rows = rows;
  job.outs = job.ins = 1024;
  job.a.type = a;
  job.w.type = w;
  char text[160];
  cuda::choice_of(on, job).print(text, sizeof text);
  return text;
}

TEST(CudaMmaTypes, TheChoiceIsSaidOnRequest) {
  EXPECT_EQ(choice({}, stored::bf16, stored::bf16, 8),
            "bf16 tensor cores, tiles of 16 x 128, 32 terms a step, 5 steps in shared memory "
            "(48616 bytes), 256 threads");
  EXPECT_EQ(choice({}, stored::fp16, stored::fp16, 8192),
            "fp16 tensor cores, tiles of 128 x 128, 32 terms a step, 3 steps in shared memory "
            "(52584 bytes), 256 threads");
  auto const starts = [](std::string const& text, char const* with) {
    EXPECT_EQ(text.rfind(with, 0), 0u) << text;
  };
  on_cuda const exact{.products = arithmetic::exact}, tf32{.products = arithmetic::tf32};
  starts(choice({}, stored::f32, stored::f32, 400), "fma in float, tiles of 64 x 128");
  starts(choice(tf32, stored::f32, stored::f32, 400), "tf32 tensor cores, tiles of 64 x 128");
  starts(choice(exact, stored::bf16, stored::bf16, 400), "fma in float");
  starts(choice({}, stored::bf16, stored::f32, 400), "fma in float");
}

}  // namespace
}  // namespace shunt::test
