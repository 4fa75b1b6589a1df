#pragma once
#include "shunt/backend/cuda/lanes.cuh"
#include "shunt/backend/cuda/launch.cuh"
#include "shunt/nn/detail/args.hpp"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

inline constexpr int cache_piece = 8;  ///< columns that a thread moves: a sector of floats

/// Keys into panels [key / 64][D][64], values into padded rows. A thread has some columns of one
/// token; its neighbors have the next tokens, which stand beside it in a panel.
template <class T>
SHUNT_KERNEL void append_tokens(view<T const, 4, space::device> k,
                                view<T const, 4, space::device> v,
                                nn::kv_cache<T, space::device> cache,
                                nn::detail::first_positions start, offset_t items) {
  offset_t const length = k.extent(1), head_dim = k.extent(3), wide = cache.wide();
  offset_t const pieces = wide / cache_piece;
  for (offset_t item = grid_thread(); item < items; item += grid_threads()) {
    offset_t const token = item % length, from = item / length % pieces * cache_piece;
    offset_t const part = item / length / pieces;
    offset_t const batch = part / cache.kv_heads, head = part % cache.kv_heads;
    offset_t const first = start.of(batch);
    if (first < 0 || first + length > cache.capacity) continue;
    offset_t const at = first + token, inside = at % nn::detail::attention_keys;
    T* const panel = cache.keys(part) + (at - inside) * head_dim + inside;
    T* const row = cache.values(part) + at * wide;
#pragma unroll
    for (int i = 0; i < cache_piece; ++i) {
      offset_t const d = from + i;
      if (d < head_dim) panel[d * nn::detail::attention_keys] = k(batch, token, head, d);
      row[d] = d < head_dim ? v(batch, token, head, d) : T{};
    }
  }
}

template <class T>
status append_to_cache(on_cuda const& on, view<T const, 4, space::device> k,
                       view<T const, 4, space::device> v,
                       nn::kv_cache<T, space::device> const& cache,
                       nn::detail::first_positions const& first) noexcept {
  offset_t const items = k.extent(0) * k.extent(2) * k.extent(1) * cache.wide() / cache_piece;
  return launch_threads(on, "cache_append", items, append_tokens<T>, k, v, cache, first, items);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
