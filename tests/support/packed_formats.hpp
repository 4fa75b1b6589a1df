#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <vector>

#include "shunt/experts.hpp"
#include "shunt/pack_int4.hpp"
#include "support/experts_case.hpp"
#include "support/oracle_formats.hpp"

/// Weights of a format, packed through the library's functions.
namespace shunt::test {

using shunt::detail::is_int4;

inline void fine(status const& s) { EXPECT_TRUE(s.ok()) << s.message(); }

template <class F>
guarded<F> buffer_for(int E, int N, int K, std::optional<pair_layout> pairs = {}) {
  auto const shape = pairs ? expert_matrix<F>::packed(nullptr, E, N, K, *pairs)
                           : expert_matrix<F>::packed(nullptr, E, N, K);
  return guarded<F>(static_cast<std::size_t>(shape.packed_elements()));
}
template <class F>
expert_matrix<F> handle(guarded<F> const& bytes, int E, int N, int K,
                        std::optional<pair_layout> pairs = {}) {
  return pairs ? expert_matrix<F>::packed(bytes.data(), E, N, K, *pairs)
               : expert_matrix<F>::packed(bytes.data(), E, N, K);
}

/// Whole blocks, two numbers a byte, the first in the lower half.
inline std::vector<std::uint8_t> two_a_byte(published const& p) {
  int const row_bytes = p.column_blocks() * p.block_columns / 2;
  std::vector<std::uint8_t> two(static_cast<std::size_t>(p.E * p.N * row_bytes));
  for (int row = 0; row < p.E * p.N; ++row) {
    for (int k = 0; k < p.K; ++k) {
      auto const at = static_cast<std::size_t>(row * row_bytes + k / 2);
      two[at] = static_cast<std::uint8_t>(two[at] | p.code[p.at(0, row, k)] << k % 2 * 4);
    }
  }
  return two;
}

/// Packs a published weight through the function for its form.
template <class Oracle>
guarded<typename Oracle::format> pack(on_host const& on, published const& p,
                                      std::optional<pair_layout> pairs = {}) {
  auto bytes = buffer_for<typename Oracle::format>(p.E, p.N, p.K, pairs);
  view<float const, 3> const scale(p.scale.data(), {{p.E, p.row_blocks(), p.column_blocks()}});
  if constexpr (std::same_as<Oracle, int8_oracle>) {
    auto const numbers = reinterpret_cast<std::int8_t const*>(p.code.data());
    fine(pack_int8(on, view<std::int8_t const, 3>(numbers, {{p.E, p.N, p.K}}),
                   view<float const, 2>(p.scale.data(), {{p.E, p.N}}), bytes, pairs));
  } else if constexpr (std::derived_from<Oracle, int8_oracle>) {
    auto const numbers = reinterpret_cast<std::int8_t const*>(p.code.data());
    fine(pack_int8_groups(on, view<std::int8_t const, 3>(numbers, {{p.E, p.N, p.K}}), scale, bytes,
                          pairs));
  } else if constexpr (std::same_as<Oracle, fp8_oracle>) {
    auto const numbers = reinterpret_cast<fp8_e4m3 const*>(p.code.data());
    fine(pack_fp8(on, view<fp8_e4m3 const, 3>(numbers, {{p.E, p.N, p.K}}), scale, bytes, pairs));
  } else if constexpr (is_int4<typename Oracle::format>) {
    std::vector<std::uint8_t> const two = two_a_byte(p);
    int const row_bytes = p.column_blocks() * p.block_columns / 2;
    fine(pack_int4(on, view<std::uint8_t const, 3>(two.data(), {{p.E, p.N, row_bytes}}), scale, {},
                   bytes, pairs));
  } else if constexpr (std::same_as<Oracle, nvfp4_oracle>) {
    int const blocks = p.column_blocks();
    std::vector<std::uint8_t> const two = two_a_byte(p);
    auto const e4m3 = reinterpret_cast<fp8_e4m3 const*>(p.e4m3.data());
    fine(pack_nvfp4(on, view<std::uint8_t const, 3>(two.data(), {{p.E, p.N, 8 * blocks}}),
                    view<fp8_e4m3 const, 3>(e4m3, {{p.E, p.N, blocks}}),
                    view<float const, 1>(p.tensor.data(), {{p.E}}), bytes, pairs));
  } else {
    int const blocks = p.column_blocks();
    std::vector<std::uint8_t> const two = two_a_byte(p);
    std::vector<std::uint8_t> exponent;
    for (float s : p.scale) {
      exponent.push_back(static_cast<std::uint8_t>(std::isnan(s) ? 255 : std::ilogb(s) + 127));
    }
    view<std::uint8_t const, 4> const numbers(two.data(), {{p.E, p.N, blocks, 16}});
    view<std::uint8_t const, 3> const scales(exponent.data(), {{p.E, p.N, blocks}});
    fine(pack_mxfp4(on, numbers, scales, bytes, pairs));
  }
  return bytes;
}

template <class F>
std::vector<float> decoded(on_host const& on, guarded<F> const& bytes, int E, int N, int K,
                           std::optional<pair_layout> pairs = {}) {
  guarded<float> out(product_case<float>::count(E * N, K));
  fine(dequantize_weights(on, handle(bytes, E, N, K, pairs), out.as(E, N, K)));
  return {out.begin(), out.end()};
}

}  // namespace shunt::test
