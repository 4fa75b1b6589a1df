#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "support/device_experts.hpp"

/// The products of tensor cores, whose bits are not the host's: held against the oracle, and against
/// themselves.
namespace shunt::test {

struct matrix_extents {
  int N, K;
};
// Nothing is a multiple of anything; words of 16 bytes with a rest; whole steps of the pipeline.
inline constexpr matrix_extents mma_extents[] = {{1, 1}, {6, 3}, {134, 259}, {72, 40}, {64, 96}};

/// Roundings of a sum of n terms on tensor cores, of the sum of magnitudes: see docs/numerics.md.
inline constexpr double roundings(int n) { return 3.0 * (n + 16); }

/// The device's answer to run(out).
template <class O, class Run> guarded<O> on_tensor_cores(std::size_t count, Run const& run) {
  on_device<O> const out(as_vector(guarded<O>(count)));
  status const done = run(out);
  EXPECT_TRUE(done.ok()) << done.message();
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return out.host();
}

/// All three products of T, `storing` roundings beside those of the sums; of every shape, or only of
/// those that end within everything.
template <class T> void products_are_close(on_cuda const& on, double storing, bool every_shape) {
  for (auto const& [name, lengths] : segment_battery()) {
    if (!every_shape && std::string_view(name) != "tiles" && std::string_view(name) != "blocks") {
      continue;
    }
    for (auto const& [N, K] : mma_extents) {
      SCOPED_TRACE(std::string(name) + " N " + std::to_string(N));
      product_case<T> x(lengths, N, K, 7, 3);
      device_product<T> const y(x);
      auto const a = in_double(x.a), w = in_double(x.w), dc = in_double(x.dc);
      auto const within = [&](auto const& got, auto const& want, int terms) {
        EXPECT_TRUE(close(in_segments(got, x.expert), in_segments(want, x.expert),
                          roundings(terms) + storing));
      };
      within(on_tensor_cores<T>(x.dc.size(),
                                [&](auto& c) {
                                  return grouped_gemm(on, y.a.as(y.R, K), y.w.as(y.E, N, K), y.rows,
                                                      c.as(y.R, N));
                                }),
             product(a, w, {}, x.expert, N, K), K);
      within(on_tensor_cores<float>(x.a.size(),
                                    [&](auto& da) {
                                      return grouped_dgrad(on, y.dc.as(y.R, N), y.w.as(y.E, N, K),
                                                           y.rows, da.as(y.R, K));
                                    }),
             product_to_rows(dc, w, x.expert, N, K), N);
      EXPECT_TRUE(
          close(on_tensor_cores<float>(x.w.size(),
                                       [&](auto& dw) {
                                         return grouped_wgrad(on, y.dc.as(y.R, N), y.a.as(y.R, K),
                                                              y.rows, dw.as(y.E, N, K));
                                       }),
                product_to_weights(dc, a, {}, x.expert, x.E, N, K), roundings(x.R) + storing));
    }
  }
}

/// The answers of the products of one case, which must be the same bits however it is asked.
template <class T> struct answers {
  std::vector<T> forward;
  std::vector<float> dgrad;
  std::vector<float> wgrad;
};
template <class T> testing::AssertionResult same_answers(answers<T> const& a, answers<T> const& b) {
  if (auto r = same_values(a.forward, b.forward); !r) return r << " of the forward";
  if (auto r = same_values(a.dgrad, b.dgrad); !r) return r << " of dgrad";
  if (auto r = same_values(a.wgrad, b.wgrad); !r) return r << " of wgrad";
  return testing::AssertionSuccess();
}

template <class T> using rows_of = view<T const, 2, space::device>;

/// swiglu forward and dgrad with weights w, and wgrad, of operands wherever they lie.
template <class T, class W>
answers<T> ask(device_product<T> const& y, W const& w, rows_of<T> a, rows_of<T> dc) {
  on_cuda const on;
  answers<T> is;
  is.forward = as_vector(on_tensor_cores<T>(static_cast<std::size_t>(y.R * y.N / 2), [&](auto& c) {
    return grouped_gemm(on, a, w, y.rows, c.as(y.R, y.N / 2), swiglu{});
  }));
  is.dgrad = as_vector(on_tensor_cores<float>(static_cast<std::size_t>(y.R * y.K), [&](auto& da) {
    return grouped_dgrad(on, dc, w, y.rows, da.as(y.R, y.K));
  }));
  is.wgrad =
      as_vector(on_tensor_cores<float>(static_cast<std::size_t>(y.E * y.N * y.K), [&](auto& dw) {
        return grouped_wgrad(on, dc, a, y.rows, dw.as(y.E, y.N, y.K));
      }));
  return is;
}

}  // namespace shunt::test
