// Published weights in fewer bits: numbers and scales that are none, scales of every size, and errors.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "support/expect_error.hpp"
#include "support/experts_case.hpp"
#include "support/packed_formats.hpp"

namespace shunt::test {
namespace experts_formats_published_test {

TEST(ExpertsFormatsPublished, ANumberOrAScaleThatIsNone) {
  std::vector<std::uint8_t> code(2 * 256, 0x38);  // ones
  code[3] = 0x7f;
  code[256 + 130] = 0xff;
  float const inf = std::numeric_limits<float>::infinity();
  for (float const scale : {1.0f, 0x1p120f, inf, -inf, std::nanf("")}) {
    published const p{1, 2, 256, 128, 128, code, {scale, 2.0f}};
    auto const w = decoded(on_host{}, pack<fp8_oracle>(on_host{}, p), 1, 2, 256);
    for (std::size_t k = 0; k < 128; ++k) {
      EXPECT_TRUE(std::isnan(w[k]));                     // holds a NaN
      EXPECT_EQ(w[128 + k], 2.0f);                       // the block beside it
      EXPECT_EQ(std::isnan(w[256 + k]), scale != 1.0f);  // the row below
      EXPECT_TRUE(std::isnan(w[256 + 128 + k]));
    }
  }
  // Of nvfp4: one of e4m3 that is none takes its 16, a tensor's float all.
  for (float const tensor : {0.5f, inf, std::nanf("")}) {
    published p{1, 2, 32, 1, 16, std::vector<std::uint8_t>(64, 2), {}};
    p.e4m3 = {0x7f, 0x38, 0x38, 0xff};
    p.tensor = {tensor};
    auto const w = decoded(on_host{}, pack<nvfp4_oracle>(on_host{}, p), 1, 2, 32);
    for (std::size_t i = 0; i < 64; ++i) {
      bool const none = i / 16 == 0 || i / 16 == 3 || std::isnan(tensor);
      EXPECT_TRUE(none ? std::isnan(w[i]) : w[i] == tensor) << i << " " << w[i];
    }
  }
  for (int s : {254, 255}) {  // a scale of mxfp4: the largest; none
    published const p{1,
                      1,
                      32,
                      1,
                      32,
                      std::vector<std::uint8_t>(32, 2),
                      {static_cast<float>(mxfp4_oracle::scale_value(s))}};
    for (float x : decoded(on_host{}, pack<mxfp4_oracle>(on_host{}, p), 1, 1, 32)) {
      EXPECT_TRUE(s == 255 ? std::isnan(x) : x == 0x1p127f) << x;
    }
  }
}

/// Few rows are summed in units of the scales where nothing can leave the normal numbers: on both
/// sides of that edge the bits are those of the float product.
TEST(ExpertsFormatsPublished, ScalesAndRowsOfEverySize) {
  constexpr int N = 70, K = 330, blocks = (K + 31) / 32;
  rng d(4);
  struct {
    int low, high;
  } const ranges[] = {{103, 151}, {102, 152}, {0, 254}, {120, 121}};
  for (auto const& range : ranges) {
    published p{1, N, K, 1, 32, {}, {}};
    for (int i = 0; i < N * K; ++i) p.code.push_back(static_cast<std::uint8_t>(d.below(16)));
    for (int i = 0; i < N * blocks; ++i) {
      auto const e = range.low + d.below(range.high - range.low + 1);
      p.scale.push_back(static_cast<float>(mxfp4_oracle::scale_value(static_cast<int>(e))));
    }
    auto const bytes = pack<mxfp4_oracle>(on_host{}, p);
    auto const floats = decoded_naively<mxfp4_oracle>(p);
    // The size of all of a, and one number of it.
    struct {
      float size, one;
    } const kinds[] = {{1.0f, 1.0f},
                       {1.0f, 0.0f},
                       {1.0f, 0x1.8p-61f},
                       {1.0f, 0x1p40f},
                       {1.0f, std::numeric_limits<float>::infinity()},
                       {0x1p-59f, 0x1p-60f},
                       {0x1p-84f, 0x1p-60f},
                       {0x1p-130f, 0x1p-140f},
                       {0x1p118f, 0x1p118f}};
    for (int const rows : {1, 2, 3, 4, 5}) {
      for (auto const [size, special] : kinds) {
        auto a = normal_values<float>(static_cast<std::size_t>(rows * K), 8);
        for (float& x : a) x *= d.below(3) == 0 ? size * 0x1p-40f : size;
        a[static_cast<std::size_t>(rows * K - 7)] = special;
        guarded<index_t> const offset(std::vector<index_t>{0, rows});
        guarded<float> want(static_cast<std::size_t>(rows * N)), got(want.size());
        fine(grouped_gemm(on_host{.threads = 1}, a.as(rows, K),
                          view<float const, 3>(floats.data(), {{1, N, K}}), {offset},
                          want.as(rows, N)));
        for (on_host const& on : host_configs()) {
          fine(grouped_gemm(on, a.as(rows, K), handle(bytes, 1, N, K), {offset}, got.as(rows, N)));
          for (std::size_t i = 0; i < got.size(); ++i) {
            ASSERT_TRUE(std::bit_cast<std::uint32_t>(got[i]) ==
                            std::bit_cast<std::uint32_t>(want[i]) ||
                        (std::isnan(got[i]) && std::isnan(want[i])))
                << got[i] << " for " << want[i] << ", rows " << rows << ", " << special << ", "
                << name_of(on);
          }
        }
      }
    }
  }
}

TEST(ExpertsFormatsErrors, AreSentences) {
  on_host const on;
  guarded<float> w(4 * 6), out(4 * 6);
  guarded<mxfp4> bytes(10), enough(272);
  expect_error(quantize_weights(on, w.as(1, 4, 6), bytes), error::bad_shape,
               "quantize_weights.packed: it has 10 elements; it must have 272");
  expect_error(quantize_weights(on, expert_matrix<float>::packed(w.data(), 1, 1, 1), enough),
               error::bad_argument, "quantize_weights.w: it is packed already");
  expect_error(quantize_weights(on, expert_matrix<float>(w.as(1, 3, 8), pair_layout{}), enough),
               error::bad_shape,
               "quantize_weights.w: it has 3 rows in pairs; they must be even in number");
  guarded<std::int8_t> numbers(24);
  guarded<int8_channel> eight(1000);
  expect_error(pack_int8(on, numbers.as(1, 4, 6), out.as(1, 3), eight), error::bad_shape,
               "pack_int8.scale: extent 1 is 3; it must be 4 (rows of numbers)");
  expect_error(
      pack_int8(on, numbers.as(1, 3, 8), out.as(1, 3), eight, pair_layout{}), error::bad_shape,
      "pack_int8.packed: 3 rows in pairs, in blocks of 0; they must be even in number, and the "
      "blocks 0 or more");
  expect_error(pack_int8(on, numbers.as(1, 4, 0), out.as(1, 4), eight), error::bad_shape,
               "pack_int8.packed: it is for 4 rows of 0; both must be 1 or more");
  guarded<int8_group<32>> groups(1000);
  expect_error(pack_int8_groups(on, numbers.as(1, 4, 6), out.as(1, 4, 2), groups), error::bad_shape,
               "pack_int8_groups.scale: extent 2 is 2; it must be 1 (groups of a row)");
  guarded<fp8_e4m3> e4m3(129 * 2);
  guarded<fp8_block> block(100000);
  expect_error(pack_fp8(on, e4m3.as(1, 129, 2), out.as(1, 1, 1), block), error::bad_shape,
               "pack_fp8.scale: extent 1 is 1; it must be 2 (blocks of 128 rows)");
  guarded<std::uint8_t> four(64);
  expect_error(pack_mxfp4(on, four.as(1, 4, 1, 15), four.as(1, 4, 1), enough), error::bad_shape,
               "pack_mxfp4.blocks: extent 3 is 15; it must be 16 (bytes of a block)");
  expect_error(pack_mxfp4(on, four.as(1, 2, 2, 16), four.as(1, 2, 1), enough), error::bad_shape,
               "pack_mxfp4.scales: extent 2 is 1; it must be 2 (blocks of a row)");
  guarded<nvfp4> small(1000);
  expect_error(pack_nvfp4(on, four.as(1, 4, 9), e4m3.as(1, 4, 1), out.as(1), small),
               error::bad_shape,
               "pack_nvfp4.numbers: extent 2 is 9; it must be 8 (bytes of 16 numbers for each of a "
               "row's scales)");
  expect_error(pack_nvfp4(on, four.as(1, 4, 8), e4m3.as(1, 3, 1), out.as(1), small),
               error::bad_shape,
               "pack_nvfp4.scales: extent 1 is 3; it must be 4 (rows of numbers)");
  expect_error(pack_nvfp4(on, four.as(1, 4, 8), e4m3.as(1, 4, 1), out.as(2), small),
               error::bad_shape, "pack_nvfp4.of_tensor: extent 0 is 2; it must be 1 (experts)");
  expect_error(dequantize_weights(on, handle(enough, 1, 4, 6), out.as(1, 6, 4)), error::bad_shape,
               "dequantize_weights.out: extent 1 is 6; it must be 4 (rows of w)");
  expect_error(
      dequantize_weights(on, expert_matrix<mxfp4>::packed(nullptr, 1, 4, 6), out.as(1, 4, 6)),
      error::null_pointer, "dequantize_weights.w: the pointer is null; it must point to 1 experts");
  // A product takes gate and up from weights that were packed as pairs.
  guarded<index_t> offset(std::vector<index_t>{0, 1});
  expect_error(
      grouped_gemm(on, w.as(1, 6), handle(enough, 1, 4, 6), {offset}, out.as(1, 2), swiglu{}),
      error::bad_argument,
      "grouped_gemm.w: it was packed without pairs; a gated activation takes pairs");
}

}  // namespace experts_formats_published_test
}  // namespace shunt::test
