// The products on tensor cores, of the other types, and which kernel is chosen for what.
#include <gtest/gtest.h>

#include <string>

#include "support/device_products.hpp"

namespace shunt::test {
namespace mma_types_test {

TEST(CudaMmaTypes, Fp16IsTheFormula) { products_are_close<fp16>(on_cuda{}, 0, false); }

// Operands rounded to 11 bits; without being asked, floats stay floats (experts_test: the host's bits).
TEST(CudaMmaTypes, Tf32OnRequest) {
  products_are_close<float>(on_cuda{.products = arithmetic::tf32}, 0x1p14 + 8, false);
}

/// The choice for so many rows of eight experts, as text.
std::string choice(on_cuda const& on, element_type a, element_type w, offset_t rows) {
  cuda::gemm_job job;
  job.experts = 8;
  job.rows = rows;
  job.n = job.k = 1024;
  job.a.type = a;
  job.w.type = w;
  char text[160];
  cuda::choice_of(on, job).print(text, sizeof text);
  return text;
}

TEST(CudaMmaTypes, TheChoiceIsSaidOnRequest) {
  EXPECT_EQ(choice({}, element_type::bf16, element_type::bf16, 8),
            "bf16 tensor cores, tiles of 16 x 128, 32 terms a step, 5 steps in shared memory "
            "(48616 bytes), 256 threads");
  EXPECT_EQ(choice({}, element_type::fp16, element_type::fp16, 8192),
            "fp16 tensor cores, tiles of 128 x 128, 32 terms a step, 3 steps in shared memory "
            "(52584 bytes), 256 threads");
  auto const starts = [](std::string const& text, char const* with) {
    EXPECT_EQ(text.rfind(with, 0), 0u) << text;
  };
  on_cuda const exact{.products = arithmetic::exact}, tf32{.products = arithmetic::tf32};
  starts(choice({}, element_type::f32, element_type::f32, 400), "fma in float, tiles of 64 x 128");
  starts(choice(tf32, element_type::f32, element_type::f32, 400),
         "tf32 tensor cores, tiles of 64 x 128");
  starts(choice(exact, element_type::bf16, element_type::bf16, 400), "fma in float");
  starts(choice({}, element_type::bf16, element_type::f32, 400), "fma in float");
}

// A shard of 8 of 256 experts has room for the rows of all, 8 · 1024, and may expect 32 an expert.
TEST(CudaMmaTypes, TheTilesOfAShardAreThoseOfItsExpectedRows) {
  cuda::gemm_job job;
  job.experts = 8;
  job.rows = 8192;
  job.n = job.k = 1024;
  job.a.type = job.w.type = element_type::bf16;
  EXPECT_EQ(cuda::choice_of({}, job).rows, 128);
  job.expected = 32;
  EXPECT_EQ(cuda::choice_of({}, job).rows, 64);
  job.expected = 1;
  EXPECT_EQ(cuda::choice_of({}, job).rows, 16);
  job.kind = cuda::gemm_kind::wgrad;  // whose tiles are of the matrix
  EXPECT_EQ(cuda::choice_of({}, job).rows, 128);
}

TEST(CudaMmaTypes, BitsDoNotDependOnTheExpectedRows) {
  for (auto const& [name, lengths] : segment_battery()) {
    SCOPED_TRACE(name);
    product_case<bf16> const x(lengths, 134, 72, 7, 3);
    device_product<bf16> y(x);
    auto const answer = [&](index_t expected) {
      y.rows.expected = expected;
      return ask(y, expert_matrix<bf16, space::device>(y.w.as(y.E, 134, 72), pair_layout{}),
                 rows_of<bf16>(y.a.as(y.R, 72)), rows_of<bf16>(y.dc.as(y.R, 134)));
    };
    auto const want = answer(0);
    for (index_t expected : {1, 60, 1000}) EXPECT_TRUE(same_answers(answer(expected), want));
  }
}

}  // namespace mma_types_test
}  // namespace shunt::test
