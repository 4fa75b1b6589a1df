#pragma once
// What the tests of CUB and Thrust share: inputs that sorts and scans find hard, and the two phases
// of a CUB call.

#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "device_array.hpp"

/// Around warps, blocks and CUB's tiles for 4-byte items on sm_80.
inline constexpr std::size_t small_sizes[] = {0, 1, 2, 31, 32, 33, 255, 256, 257, 1000};
inline constexpr std::size_t tile_sizes[] = {1919, 1920, 1921, 4863, 4864, 4865, 8063, 8064, 8065};

struct pattern {
  char const* name;
  int code;
};
inline constexpr pattern patterns[] = {{"random", 0}, {"few", 1},      {"equal", 2},
                                       {"sorted", 3}, {"reversed", 4}, {"extremes", 5}};

/// n values of a pattern, the same on every run.
template <class T> std::vector<T> values_of(pattern p, std::size_t n) {
  std::mt19937_64 rng(n * 8 + std::size_t(p.code));
  auto const any = [&] {
    if constexpr (std::is_floating_point_v<T>)
      return static_cast<T>(std::ldexp(double(std::int64_t(rng())), int(rng() % 40) - 60));
    else
      return static_cast<T>(rng());
  };
  std::vector<T> v(n);
  for (std::size_t i = 0; i < n; ++i) switch (p.code) {
      case 0: v[i] = any(); break;
      case 1: v[i] = static_cast<T>(rng() % 4); break;
      case 2: v[i] = static_cast<T>(7); break;
      case 3: v[i] = static_cast<T>(i); break;
      case 4: v[i] = static_cast<T>(n - i); break;
      default:
        v[i] = rng() % 2 == 0 ? std::numeric_limits<T>::max() : std::numeric_limits<T>::lowest();
    }
  return v;
}

/// Calls a CUB algorithm's two phases.
template <class F> void two_phases(F&& algorithm) {
  std::size_t bytes = 0;
  ASSERT_EQ(algorithm(nullptr, bytes), cudaSuccess);
  device_array<char> scratch(bytes);
  ASSERT_EQ(algorithm(scratch.data, bytes), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

/// The first n elements of an array on the device.
template <class T> std::vector<T> first_of(device_array<T> const& a, std::size_t n) {
  std::vector<T> out(n);
  EXPECT_LE(n, a.size);
  EXPECT_EQ(cudaMemcpy(out.data(), a.data, n * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
  return out;
}

struct add_up {
  template <class T> __host__ __device__ T operator()(T a, T b) const {
    return static_cast<T>(a + b);
  }
};
