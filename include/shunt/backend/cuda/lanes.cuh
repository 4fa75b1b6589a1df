#pragma once
#include <cstdint>
#include <type_traits>

#include "shunt/backend/cuda/policy.cuh"
#include "shunt/core/numeric.hpp"
#include "shunt/core/view.hpp"

/// What kernels share: who a thread is, vectors of elements, sums over a warp.
namespace shunt::cuda {

inline constexpr int warp_lanes = 32;
inline constexpr unsigned all_lanes = 0xffffffffu;

__device__ inline int lane_of_thread() { return static_cast<int>(threadIdx.x) % warp_lanes; }
/// This thread's number, of which a compiler knows nothing: what a loop makes of it is made again in
/// each round, instead of being kept in registers that sums need.
__device__ inline unsigned opaque_thread_id() noexcept {
  unsigned thread = threadIdx.x;
  asm volatile("" : "+r"(thread));
  return thread;
}
/// The number of this thread, or of its warp, in the grid; and how many there are.
__device__ inline offset_t grid_thread() { return offset_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ inline offset_t grid_threads() { return offset_t{gridDim.x} * blockDim.x; }
__device__ inline offset_t grid_warp() { return grid_thread() / warp_lanes; }
__device__ inline offset_t grid_warps() { return grid_threads() / warp_lanes; }
__device__ inline unsigned lanes_below() { return (1u << lane_of_thread()) - 1; }

/// V elements that are read or written at once.
template <class T, int V> struct alignas(sizeof(T) * V) pack {
  T at[V];
};

template <int V, class T> __device__ void load(T const* from, float (&to)[V]) {
  auto const p = *reinterpret_cast<pack<T, V> const*>(from);
#pragma unroll
  for (int i = 0; i < V; ++i) to[i] = to_float(p.at[i]);
}
template <int V, class T> __device__ void store(float const (&from)[V], T* to) {
  pack<T, V> p;
#pragma unroll
  for (int i = 0; i < V; ++i) p.at[i] = from_float<T>(from[i]);
  *reinterpret_cast<pack<T, V>*>(to) = p;
}

/// The lanes' values combined by halves; the same in all lanes.
template <class T, class Op> __device__ T warp_fold(T part, Op const& op) {
  for (int half = warp_lanes / 2; half > 0; half /= 2) {
    part = op(part, __shfl_xor_sync(all_lanes, part, half));
  }
  return part;
}
/// The lanes' partial sums, as every row reduction ends.
__device__ inline float warp_sum(float part) {
  return warp_fold(part, [](float a, float b) { return __fadd_rn(a, b); });
}
__device__ inline float warp_largest(float x) {
  return warp_fold(x, [](float a, float b) { return a < b ? b : a; });
}
/// Sums of integers over the warp, each to all lanes.
template <class... Count> __device__ void warp_totals(Count&... n) {
  ((n = __reduce_add_sync(all_lanes, n)), ...);
}
/// The sum over this lane and those below it.
template <class T> __device__ T warp_prefix(T n) {
  for (int step = 1; step < warp_lanes; step *= 2) {
    T const left = __shfl_up_sync(all_lanes, n, step);
    if (lane_of_thread() >= step) n += left;
  }
  return n;
}

/// <a, b> in the order of every row reduction: a lane is one of the 32 strided partial sums. All
/// lanes of the warp take part and get the sum.
template <class A, class B> __device__ float row_dot(A const* a, B const* b, offset_t n) {
  float part = 0;
  for (offset_t i = lane_of_thread(); i < n; i += warp_lanes) {
    part = __fmaf_rn(to_float(a[i]), to_float(b[i]), part);
  }
  return warp_sum(part);
}

/// The sum of a row, in the same order.
__device__ inline float row_sum(float const* row, offset_t n) {
  float part = 0.0f;
#pragma unroll 8
  for (offset_t i = lane_of_thread(); i < n; i += warp_lanes) part = __fadd_rn(part, row[i]);
  return warp_sum(part);
}

/// How much of a row may be moved at once: as many bytes, 16 at most, as the addresses, strides and
/// widths of all rows involved are multiples of.
class row_width {
 public:
  template <class T> row_width& operator()(view<T, 2, space::device> const& m) noexcept {
    if (!m) return *this;
    constexpr int size = sizeof(T);
    auto const address = static_cast<offset_t>(reinterpret_cast<std::uintptr_t>(m.data()));
    offset_t const all = address | m.stride(0) * size | m.extent(1) * size | 16;
    auto const here = static_cast<int>(all & -all);
    bytes_ = here < bytes_ ? here : bytes_;
    elements_ = here / size < elements_ ? (here / size > 1 ? here / size : 1) : elements_;
    return *this;
  }
  [[nodiscard]] int bytes() const noexcept { return bytes_; }
  /// Elements at once, whatever their types: 1, 2, 4 or 8.
  [[nodiscard]] int elements() const noexcept { return elements_; }

 private:
  int bytes_ = 16, elements_ = 8;
};

/// Calls f(integral_constant<int, V>) with the widest of 8, 4 and 1 that `elements` allows.
template <class F> [[nodiscard]] auto with_width(int elements, F const& f) noexcept {
  if (elements >= 8) return f(std::integral_constant<int, 8>{});
  if (elements >= 4) return f(std::integral_constant<int, 4>{});
  return f(std::integral_constant<int, 1>{});
}

}  // namespace shunt::cuda
