#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "shunt/experts/formats.hpp"
#include "shunt/experts/weights.hpp"

/// The weight formats from their definitions, in double, naive: what a number's bits mean, and which
/// number is the nearest, found by trying all.
namespace shunt::test {

struct int8_oracle {
  using format = int8_channel;
  static constexpr int codes = 256, rows = 1, columns = 1 << 30;
  static double value(int code) { return code < 128 ? code : code - 256; }
  static bool counts(int code) { return code != 128; }  // -128 is not used
  static float scale_of(double most) {
    float const scale = static_cast<float>(most) / 127.0f;
    return std::isinf(scale * 127.0f) ? std::nextafter(scale, 0.0f) : scale;
  }
};
template <int Group> struct int8_group_oracle : int8_oracle {
  using format = int8_group<Group>;
  static constexpr int columns = Group;
};
struct fp8_oracle {
  using format = fp8_block;
  static constexpr int codes = 256, rows = 128, columns = 128;
  static double value(int code) {
    int const e = code >> 3 & 15, m = code & 7;
    if (e == 15 && m == 7) return std::nan("");
    double const size = e == 0 ? std::ldexp(m, -9) : std::ldexp(8 + m, e - 10);
    return code & 128 ? -size : size;
  }
  static bool counts(int code) { return (code & 127) != 127; }
  static float scale_of(double most) { return static_cast<float>(most) / 448.0f; }
};
struct mxfp4_oracle {
  using format = mxfp4;
  static constexpr int codes = 16, rows = 1, columns = 32;
  static double value(int code) {
    int const e = code >> 1 & 3, m = code & 1;
    double const size = e == 0 ? m / 2.0 : std::ldexp(2 + m, e - 2);
    return code & 8 ? -size : size;
  }
  static bool counts(int) { return true; }
  static double scale_value(int code) {
    return code == 255 ? std::nan("") : std::ldexp(1.0, code - 127);
  }
  static int scale_code(double most) {
    if (most == 0) return 0;
    int const e = std::ilogb(most) - 2 + 127;
    return e < 0 ? 0 : e;
  }
  static float scale_of(double most) { return static_cast<float>(scale_value(scale_code(most))); }
};

/// The number of a group's scale is fp8_oracle's, times the tensor's float.
struct nvfp4_oracle {
  using format = nvfp4;
  static constexpr int codes = 16, rows = 1, columns = 16;
  static double value(int code) { return mxfp4_oracle::value(code); }
  static bool counts(int) { return true; }
  static float tensor_of(double most) { return static_cast<float>(most) / 2688.0f; }
  static float scale_of(int e4m3, float tensor) {
    return static_cast<float>(fp8_oracle::value(e4m3) * static_cast<double>(tensor));
  }
};

/// About a zero point of 8.
template <int Group> struct int4_oracle {
  using format = int4_group<Group>;
  static constexpr int codes = 16, rows = 1, columns = Group;
  static double value(int code) { return code - 8; }
  static bool counts(int) { return true; }
  static float scale_of(double most) {
    float const scale = static_cast<float>(most) / 7.5f;
    return std::isinf(scale * 8.0f) ? std::numeric_limits<float>::max() / 8.0f : scale;
  }
};

/// The code whose value is nearest to x; of two, the even one; of two zeros, the one with x's sign.
template <class Oracle> std::uint8_t nearest_code(float x) {
  int best = -1;
  double least = std::numeric_limits<double>::infinity();
  for (int code = 0; code < Oracle::codes; ++code) {
    if (!Oracle::counts(code)) continue;
    double const v = Oracle::value(code), off = std::abs(v - static_cast<double>(x));
    bool const signs = std::signbit(v) == std::signbit(x);
    bool const tie = off == least && (v == Oracle::value(best) ? signs : code % 2 == 0);
    if (off < least || tie) best = code, least = off;
  }
  return static_cast<std::uint8_t>(best);
}

/// A weight [E,N,K] in its published form: a code for each number, a scale for each block.
struct published {
  int E, N, K, block_rows, block_columns;
  std::vector<std::uint8_t> code;
  std::vector<float> scale;
  std::vector<std::uint8_t> e4m3{};  ///< nvfp4: of each scale,
  std::vector<float> tensor{};       ///< and of each expert
  std::size_t at(int e, int n, int k) const {
    return (static_cast<std::size_t>(e) * static_cast<std::size_t>(N) +
            static_cast<std::size_t>(n)) *
               static_cast<std::size_t>(K) +
           static_cast<std::size_t>(k);
  }
  int row_blocks() const { return (N + block_rows - 1) / block_rows; }
  int column_blocks() const { return (K - 1) / block_columns + 1; }
  std::size_t block(int e, int n, int k) const {
    return static_cast<std::size_t>((e * row_blocks() + n / block_rows) * column_blocks() +
                                    k / block_columns);
  }
};

/// Rounds finite weights as quantize_weights promises to.
template <class Oracle, class Values>
published quantized_naively(Values const& w, int E, int N, int K) {
  published p{.E = E,
              .N = N,
              .K = K,
              .block_rows = Oracle::rows,
              .block_columns = Oracle::columns,
              .code = {},
              .scale = {}};
  p.code.resize(w.size());
  std::vector<double> most(static_cast<std::size_t>(E * p.row_blocks() * p.column_blocks()));
  auto const each = [&](auto body) {
    for (int e = 0; e < E; ++e)
      for (int n = 0; n < N; ++n)
        for (int k = 0; k < K; ++k) body(p.at(e, n, k), p.block(e, n, k));
  };
  each([&](std::size_t i, std::size_t b) {
    most[b] = std::max(most[b], std::abs(static_cast<double>(to_float(w[i]))));
  });
  if constexpr (std::same_as<Oracle, nvfp4_oracle>) {
    std::size_t const groups = most.size() / static_cast<std::size_t>(E);
    for (std::size_t i = 0; i < most.size(); ++i) {
      auto const first = most.begin() + static_cast<std::ptrdiff_t>(i / groups * groups);
      float const tensor =
          Oracle::tensor_of(*std::max_element(first, first + static_cast<std::ptrdiff_t>(groups)));
      if (i % groups == 0) p.tensor.push_back(tensor);
      float const wanted = static_cast<float>(most[i]) / 6.0f / tensor;
      p.e4m3.push_back(tensor > 0 ? nearest_code<fp8_oracle>(wanted) : std::uint8_t{0});
      p.scale.push_back(Oracle::scale_of(p.e4m3.back(), tensor));
    }
  } else {
    for (double m : most) p.scale.push_back(Oracle::scale_of(m));
  }
  each([&](std::size_t i, std::size_t b) {
    p.code[i] = nearest_code<Oracle>(p.scale[b] > 0 ? to_float(w[i]) / p.scale[b] : 0.0f);
  });
  return p;
}

/// Number times scale, rounded once.
template <class Oracle> std::vector<float> decoded_naively(published const& p) {
  std::vector<float> w;
  for (int e = 0; e < p.E; ++e)
    for (int n = 0; n < p.N; ++n)
      for (int k = 0; k < p.K; ++k)
        w.push_back(static_cast<float>(Oracle::value(p.code[p.at(e, n, k)]) *
                                       static_cast<double>(p.scale[p.block(e, n, k)])));
  return w;
}

}  // namespace shunt::test
