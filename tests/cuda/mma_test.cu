// The products on tensor cores, of bf16: within their bound of the oracle, and the same bits wherever
// the operands lie, whatever the tile, and whichever rows stand beside.
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <string_view>

#include "support/device_graph.hpp"
#include "support/device_halves.hpp"
#include "support/device_products.hpp"
#include "support/halves_apart.hpp"

namespace shunt::test {
namespace mma_test {

TEST(CudaMma, EachProductIsTheFormula) { products_are_close<bf16>(on_cuda{}, 0, true); }

/// A matrix's elements, `stride` from row to row and from the `first` on.
template <class T>
std::vector<T> spread(std::vector<T> const& from, int rows, int columns, int stride, int first) {
  std::vector<T> to(static_cast<std::size_t>(first + rows * stride), untouched<T>());
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) {
      to[static_cast<std::size_t>(first + r * stride + c)] =
          from[static_cast<std::size_t>(r * columns + c)];
    }
  }
  return to;
}

template <class T> void same_bits_wherever_it_lies(int I, int K) {
  SCOPED_TRACE("I " + std::to_string(I) + " K " + std::to_string(K));
  int const N = 2 * I, E = 3;
  using weights = expert_matrix<T, space::device>;
  product_case<T> x({9, 0, 70}, N, K);
  device_product<T> const y(x);
  rows_of<T> const a(y.a.as(y.R, K)), dc(y.dc.as(y.R, N));
  auto const plain = ask<T>(y, weights(y.w.as(E, N, K), pair_layout{}), a, dc);
  auto const same = [&](char const* how, weights const& w) {
    SCOPED_TRACE(how);
    EXPECT_TRUE(same_answers(ask<T>(y, w, a, dc), plain));
  };
  for (pair_order order : {pair_order::gate_up, pair_order::up_gate}) {
    for (index_t block : {0, 1, 3, 8}) {
      SCOPED_TRACE("block " + std::to_string(block));
      pair_layout const layout{order, block};
      on_device<T> const lying(
          laid_out(as_vector(x.w), E, N, K, order == pair_order::up_gate, block));
      weights const w(lying.as(E, N, K), layout);
      same("where it lies", w);
      if (block == 3) continue;
      on_device<T> const packed(w.packed_elements());
      ASSERT_TRUE(pack_weights(on_cuda{}, w, packed.as(w.packed_elements())).ok());
      same("packed", weights::packed(packed.data(), E, N, K, layout));
    }
  }
  std::vector<T> turned(x.w.size());
  for (int i = 0; i < E * N * K; ++i) {
    int const e = i / (N * K), n = i / K % N, k = i % K;
    turned[static_cast<std::size_t>((e * K + k) * N + n)] = x.w[static_cast<std::size_t>(i)];
  }
  on_device<T> const ekn(turned);
  using lying = view<T const, 3, space::device>;
  same("[E,K,N]", weights(lying(ekn.data(), {{E, N, K}}, {{N * K, 1, N}}), pair_layout{}));
  on_device<T> const odd(spread(as_vector(x.w), E * N, K, K + 1, 1));
  same("odd rows",
       weights(lying(odd.data() + 1, {{E, N, K}}, {{N * (K + 1), K + 1, 1}}), pair_layout{}));
  on_device<T> const wide(spread(as_vector(x.w), E * N, K, (K + 15) / 8 * 8, 0));
  same("wide rows",
       weights(lying(wide.data(), {{E, N, K}}, {{N * ((K + 15) / 8 * 8), (K + 15) / 8 * 8, 1}}),
               pair_layout{}));
  on_device<T const*> const each(
      std::vector<T const*>{y.w.data(), nullptr, y.w.data() + 2 * N * K});
  same("one pointer each",
       weights::each(view<T const* const, 1, space::device>(each.as(E)), N, K, pair_layout{}));
  for (int spare : {0, 3, 8}) {
    halves_apart<T> const apart(x.w, E, I, K, spare);
    same("halves apart", device_halves<T const>(apart.weights()).there());
  }
  // Tokens that are not aligned, either.
  on_device<T> const odd_a(spread(as_vector(x.a), y.R, K, K + 3, 1)),
      odd_dc(spread(as_vector(x.dc), y.R, N, N + 5, 3));
  EXPECT_TRUE(same_answers(ask<T>(y, weights(y.w.as(E, N, K), pair_layout{}),
                                  rows_of<T>(odd_a.data() + 1, {{y.R, K}}, {{K + 3, 1}}),
                                  rows_of<T>(odd_dc.data() + 3, {{y.R, N}}, {{N + 5, 1}})),
                           plain));
}

TEST(CudaMma, Battery23_SameBitsWhereverTheWeightsLie) {
  same_bits_wherever_it_lies<bf16>(37, 70);
  same_bits_wherever_it_lies<bf16>(40, 72);
  same_bits_wherever_it_lies<bf16>(72, 40);
}

// A token's bits are its own: whatever the tile's height, and whichever rows stand beside it.
TEST(CudaMma, Battery16_BatchInvariance) {
  using T = bf16;
  constexpr int N = 48, K = 100;
  product_case<T> all({257}, N, K, 3);
  device_product<T> const y(all);
  using weights = expert_matrix<T, space::device>;
  weights const w(y.w.as(1, N, K));
  auto const whole = ask<T>(y, w, y.a.as(257, K), y.dc.as(257, N));
  for (int T_ : {1, 4, 16, 64}) {
    SCOPED_TRACE(T_);
    product_case<T> x({static_cast<index_t>(T_)}, N, K, 3);
    device_product<T> const part(x);
    auto const some = ask<T>(part, w, y.a.as(T_, K), y.dc.as(T_, N));
    EXPECT_TRUE(same_values(
        some.forward, std::vector<T>(whole.forward.begin(), whole.forward.begin() + T_ * N / 2)));
    EXPECT_TRUE(same_values(some.dgrad,
                            std::vector<float>(whole.dgrad.begin(), whole.dgrad.begin() + T_ * K)));
  }
}

// A row that is not finite stays in its row, and in its expert's weight gradient.
TEST(CudaMma, Battery17_NanAndInfinityStayInTheirRow) {
  using T = bf16;
  constexpr int N = 24, K = 33, bad = 22;
  product_case<T> x({20, 5, 23}, N, K, 5);
  device_product<T> const clean(x);
  auto const weights = expert_matrix<T, space::device>(clean.w.as(3, N, K));
  auto const before = ask<T>(clean, weights, clean.a.as(48, K), clean.dc.as(48, N));
  for (float poison :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (int k = 0; k < K; ++k) x.a[bad * K + static_cast<std::size_t>(k)] = from_float<T>(poison);
    for (int n = 0; n < N; ++n) x.dc[bad * N + static_cast<std::size_t>(n)] = from_float<T>(poison);
    device_product<T> const y(x);
    auto after = ask<T>(y, weights, y.a.as(48, K), y.dc.as(48, N));
    EXPECT_FALSE(std::isfinite(to_float(after.forward[bad * N / 2])));
    EXPECT_FALSE(std::isfinite(after.dgrad[bad * K]));
    EXPECT_FALSE(std::isfinite(after.wgrad[N * K]));
    auto const restore = [&](auto& is, auto const& was, int first, int count) {
      std::copy_n(was.begin() + first, count, is.begin() + first);
    };
    restore(after.forward, before.forward, bad * N / 2, N / 2);
    restore(after.dgrad, before.dgrad, bad * K, K);
    restore(after.wgrad, before.wgrad, N * K, N * K);
    EXPECT_TRUE(same_answers(after, before));
  }
}

// Gathered rows are the rows that a copy would have; padding is zeros.
TEST(CudaMma, GatheredRowsAreTheCopiedOnes) {
  using T = bf16;
  constexpr int N = 40, K = 56, tokens = 31, top_k = 3;
  product_case<T> x({20, 0, 33, 17}, N, K, 2);
  std::vector<index_t> slots(static_cast<std::size_t>(x.R));
  rng d(4);
  auto const token_a = as_vector(normal_values<T>(tokens * K, 5)),
             token_dc = as_vector(normal_values<T>(tokens * N, 6));
  for (int r = 0; r < x.R; ++r) {
    index_t const slot = r % 9 == 5 ? -1 : static_cast<index_t>(d.below(tokens * top_k));
    slots[static_cast<std::size_t>(r)] = slot;
    auto const copy = [&](std::vector<T> const& from, auto& to, int wide) {
      for (int c = 0; c < wide; ++c) {
        to[static_cast<std::size_t>(r * wide + c)] =
            slot < 0 ? T{} : from[static_cast<std::size_t>(slot / top_k * wide + c)];
      }
    };
    copy(token_a, x.a, K);
    copy(token_dc, x.dc, N);
  }
  device_product<T> const y(x);
  auto const w = y.w.as(4, N, K);
  auto const want = ask<T>(y, w, y.a.as(y.R, K), y.dc.as(y.R, N));
  on_device<index_t> const slot(slots);
  on_device<T> const a(token_a), dc(token_dc);
  row_gather<space::device> const through{slot.as(y.R), top_k};
  on_cuda const on;
  answers<T> got;
  got.forward = as_vector(on_tensor_cores<T>(want.forward.size(), [&](auto& c) {
    return grouped_gemm(on, a.as(tokens, K), w, y.rows, c.as(y.R, N / 2), swiglu{},
                        {.gather = through});
  }));
  got.dgrad = as_vector(on_tensor_cores<float>(want.dgrad.size(), [&](auto& da) {
    return grouped_dgrad(on, dc.as(tokens, N), w, y.rows, da.as(y.R, K), {.gather = through});
  }));
  got.wgrad = as_vector(on_tensor_cores<float>(want.wgrad.size(), [&](auto& dw) {
    return grouped_wgrad(on, dc.as(tokens, N), a.as(tokens, K), y.rows, dw.as(4, N, K),
                         {.gather_dc = through, .gather_a = through});
  }));
  EXPECT_TRUE(same_answers(got, want));
}

TEST(CudaMma, Battery18_CapturedAndReplayedWithOtherSegments) {
  constexpr int N = 64, K = 40, R = 71;
  product_case<bf16> x({30, 0, 41}, N, K, 3);
  device_product<bf16> const y(x);
  on_device<bf16> const c(R * N / 2);
  on_device<float> const da(R * K), dw(3 * N * K);
  auto const w = y.w.as(3, N, K);
  captured graph([&](on_cuda const& on) {
    status done = grouped_gemm(on, y.a.as(R, K), w, y.rows, c.as(R, N / 2), swiglu{});
    if (done.ok()) done = grouped_dgrad(on, y.dc.as(R, N), w, y.rows, da.as(R, K));
    if (!done.ok()) return done;
    return grouped_wgrad(on, y.dc.as(R, N), y.a.as(R, K), y.rows, dw.as(3, N, K));
  });
  for (auto const& lengths : {std::vector<index_t>{30, 0, 41}, {1, 70, 0}, {0, 0, 0}, {71, 0, 0}}) {
    const_cast<on_device<index_t>&>(y.offset).fill(offsets_of(lengths));
    const_cast<on_device<bf16>&>(c).fill(as_vector(guarded<bf16>(c.size())));
    const_cast<on_device<float>&>(da).fill(as_vector(guarded<float>(da.size())));
    graph.replay();
    auto const want = ask<bf16>(y, w, y.a.as(R, K), y.dc.as(R, N));
    EXPECT_TRUE(same_answers({c.host(), da.host(), dw.host()}, want));
  }
}

// What tensor cores do not take has the host's bits: operands of two types, gradients with row factors.
TEST(CudaMma, TheRestIsExact) {
  product_case<bf16> x({9, 0, 70}, 34, 50);
  device_product<bf16> const y(x);
  twin<float> w(as_vector(normal_values<float>(x.w.size(), 4))), factor(w.host);
  guarded<float> c(x.dc.size()), dw(x.w.size());
  ASSERT_TRUE(
      grouped_gemm(on_host{}, x.a.as(x.R, 50), w.of(on_host{}, 3, 34, 50), x.rows, c.as(x.R, 34))
          .ok());
  EXPECT_TRUE(same_values(as_vector(on_tensor_cores<float>(c.size(),
                                                           [&](auto& to) {
                                                             return grouped_gemm(
                                                                 on_cuda{}, y.a.as(x.R, 50),
                                                                 w.device.as(3, 34, 50), y.rows,
                                                                 to.as(x.R, 34));
                                                           })),
                          as_vector(c)));
  ASSERT_TRUE(grouped_wgrad(on_host{}, x.dc.as(x.R, 34), x.a.as(x.R, 50), x.rows, dw.as(3, 34, 50),
                            {.scale = {factor.of(on_host{}, x.R)}})
                  .ok());
  EXPECT_TRUE(same_values(as_vector(on_tensor_cores<float>(
                              dw.size(),
                              [&](auto& to) {
                                return grouped_wgrad(on_cuda{}, y.dc.as(x.R, 34), y.a.as(x.R, 50),
                                                     y.rows, to.as(3, 34, 50),
                                                     {.scale = {factor.of(on_cuda{}, x.R)}});
                              })),
                          as_vector(dw)));
}

// The dense products of linear layers take the same rungs.
TEST(CudaMma, DenseProducts) {
  constexpr int R = 70, N = 9, K = 200;
  product_case<bf16> x({R}, N, K);
  device_product<bf16> const y(x);
  auto const rows = on_tensor_cores<float>(R * N, [&](auto& c) {
    return cuda::dense_product<bf16, bf16>(on_cuda{}, "linear", cuda::gemm_kind::forward,
                                           y.a.as(R, K), y.w.as(N, K), c.as(R, N), false);
  });
  EXPECT_TRUE(
      close(rows, product(in_double(x.a), in_double(x.w), {}, x.expert, N, K), roundings(K)));
  auto const dw = on_tensor_cores<float>(N * K, [&](auto& to) {
    return cuda::dense_wgrad<bf16, bf16>(on_cuda{}, "wgrad", y.dc.as(R, N), y.a.as(R, K),
                                         to.as(N, K), false);
  });
  EXPECT_TRUE(close(dw, product_to_weights(in_double(x.dc), in_double(x.a), {}, x.expert, 1, N, K),
                    roundings(R)));
}

}  // namespace mma_test
}  // namespace shunt::test
