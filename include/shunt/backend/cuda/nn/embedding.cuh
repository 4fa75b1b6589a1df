#pragma once
#include <algorithm>

#include "shunt/backend/cuda/lanes.cuh"
#include "shunt/backend/cuda/launch.cuh"
#include "shunt/nn/detail/args.hpp"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

using nn::detail::embedding_args;
using nn::detail::embedding_backward_args;

/// A warp has one token.
template <int V, class T>
SHUNT_KERNEL void gather_embeddings(embedding_args<T> a, offset_t tokens) {
  for (offset_t t = grid_warp(); t < tokens; t += grid_warps()) {
    offset_t const id = a.id[t * a.id_step];
    bool const there = id >= 0 && id < a.entries;
    T const* const from = a.table + (there ? id : 0) * a.table_row;
    T* const to = a.rows + t * a.row;
#pragma unroll 4
    for (offset_t c = lane_of_thread() * V; c < a.width; c += warp_lanes * V) {
      pack<T, V> word{};
      if (there) word = *reinterpret_cast<pack<T, V> const*>(from + c);
      *reinterpret_cast<pack<T, V>*>(to + c) = word;
    }
  }
}

/// Entries of the table that one block of scatter_embeddings looks for: so many that the ids are
/// read about a thousand times at most, whatever the vocabulary.
inline offset_t entries_of_block(offset_t entries) noexcept {
  return std::clamp<offset_t>(entries / tuning::embedding_blocks, 1, tuning::threads);
}

/// Each entry's chain of additions in token order: a block owns some entries and a thread one column
/// of them, so nothing races. The block reads the ids, a thread each, keeps those that name its
/// entries in their order, and adds these tokens' rows.
template <class T>
SHUNT_KERNEL void scatter_embeddings(embedding_backward_args<T> a, offset_t each) {
  constexpr int threads = tuning::threads, warps = threads / warp_lanes;
  __shared__ int found[warps];
  __shared__ index_t entry[threads];
  __shared__ offset_t token[threads];
  offset_t const panels = nn::detail::pieces_of(a.width, threads);
  offset_t const items = nn::detail::pieces_of(a.entries, each) * panels;
  int const thread = static_cast<int>(threadIdx.x), warp = thread / warp_lanes;
  for (offset_t item = blockIdx.x; item < items; item += gridDim.x) {
    offset_t const first = item / panels * each, last = min(first + each, a.entries);
    offset_t const column = item % panels * threads + thread;
    bool const mine = column < a.width;
    for (offset_t v = first; mine && !a.accumulate && v < last; ++v) {
      a.table[v * a.table_row + column] = 0.0f;
    }
    for (offset_t start = 0; start < a.tokens; start += threads) {
      offset_t const t = start + thread;
      index_t const id = t < a.tokens ? a.id[t * a.id_step] : -1;
      bool const ours = id >= first && id < last;
      unsigned const which = __ballot_sync(all_lanes, ours);
      if (lane_of_thread() == 0) found[warp] = __popc(which);
      if (__syncthreads_or(ours) == 0) continue;
      int place = __popc(which & lanes_below()), count = 0;
      for (int w = 0; w < warps; ++w) {
        place += w < warp ? found[w] : 0;
        count += found[w];
      }
      if (ours) entry[place] = id, token[place] = t;
      __syncthreads();
      index_t current = -1;
      float sum = 0.0f;
      for (int m = 0; mine && m < count; ++m) {
        if (entry[m] != current) {
          if (current >= 0) a.table[current * a.table_row + column] = sum;
          current = entry[m];
          sum = a.table[current * a.table_row + column];
        }
        sum = __fadd_rn(sum, to_float(a.rows[token[m] * a.row + column]));
      }
      if (mine) a.table[current * a.table_row + column] = sum;
      __syncthreads();
    }
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <> struct embedding_backend<on_cuda> {
  template <class T>
  static status forward(on_cuda const& on, embedding_args<T> const& a, offset_t tokens) noexcept {
    view<T const, 2, space::device> const table(a.table, {{a.entries, a.width}},
                                                {{a.table_row, 1}});
    view<T, 2, space::device> const rows(a.rows, {{tokens, a.width}}, {{a.row, 1}});
    return cuda::with_width(cuda::row_width()(table)(rows).elements(), [&](auto v) {
      return cuda::launch_warps(on, "embedding", tokens, cuda::gather_embeddings<v.value, T>, a,
                                tokens);
    });
  }
  template <class T>
  static status backward(on_cuda const& on, embedding_backward_args<T> const& a) noexcept {
    offset_t const each = cuda::entries_of_block(a.entries);
    offset_t const panels = pieces_of(a.width, cuda::tuning::threads);
    return cuda::launch(on, "embedding_backward", pieces_of(a.entries, each) * panels,
                        cuda::tuning::threads, cuda::scatter_embeddings<T>, a, each);
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
