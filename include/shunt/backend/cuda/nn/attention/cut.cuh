#pragma once
#include "shunt/backend/cuda/nn/attention/tile.cuh"

// How a call of attention is cut among blocks, and where its rows and keys are.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

using nn::detail::attention_backward_call;
using nn::detail::attention_call;
template <class T> using device_cache = nn::kv_cache<T, space::device>;
template <class T> using heads_view = view<T, 4, space::device>;

/// How a call is cut: `tiles` of 64 query rows (or keys) for each of `parts` sequences and key/value
/// heads, times `panels` of `width` columns.
struct attention_cut {
  offset_t kv_heads, group, rows, length, parts, tiles, panels;
  nn::detail::first_positions start;
  offset_t first_position;  // of the task's sequence: begin() sets it where there is a cache
  int head_dim, width;

  attention_cut(offset_t batch, offset_t length_, offset_t heads, offset_t kv_heads_,
                offset_t head_dim_, nn::detail::first_positions const& start_ = {}) noexcept
      : kv_heads(kv_heads_),
        group(heads / kv_heads_),
        rows(length_ * (heads / kv_heads_)),
        length(length_),
        parts(batch * kv_heads_),
        tiles(nn::detail::pieces_of(rows, tile_side)),
        start(start_),
        first_position(0),
        head_dim(static_cast<int>(head_dim_)),
        width(0) {
    panels_of(head_dim <= 64 ? 64 : 128);
  }
  void panels_of(int columns) noexcept {
    width = columns;
    panels = nn::detail::pieces_of(head_dim, width);
  }
  [[nodiscard]] SHUNT_HD offset_t blocks() const { return tiles * parts * panels; }
  /// Takes up the sequence of `part`; false: a cache of `capacity` tokens has no room for its own.
  [[nodiscard]] __device__ bool begin(offset_t part, offset_t capacity) {
    first_position = start.of(part / kv_heads);
    return first_position >= 0 && first_position + length <= capacity;
  }
  /// Keys that a row sees.
  [[nodiscard]] SHUNT_HD offset_t keys_of(offset_t row) const {
    return row / group + first_position + 1;
  }
};

/// What a block works on.
struct attention_task {
  offset_t part, tile;
  int column;  // the first of its panel

  __device__ attention_task(attention_cut const& cut, offset_t number)
      : part(number % cut.parts),
        tile(number / cut.parts / cut.panels),
        column(static_cast<int>(number / cut.parts % cut.panels) * cut.width) {}
};

/// Where query row `row` begins in a tensor like q; where key `key` does in one like k.
template <class T>
__device__ T* query_at(heads_view<T> const& q, attention_cut const& cut, offset_t part,
                       offset_t row) {
  offset_t const head = part % cut.kv_heads * cut.group + row % cut.group;
  return q.data() + part / cut.kv_heads * q.stride(0) + row / cut.group * q.stride(1) +
         head * q.stride(2);
}
template <class T>
__device__ T* key_at(heads_view<T> const& k, attention_cut const& cut, offset_t part,
                     offset_t key) {
  return k.data() + part / cut.kv_heads * k.stride(0) + key * k.stride(1) +
         part % cut.kv_heads * k.stride(2);
}
/// Zeros to the task's columns of `count` query rows.
template <class T>
__device__ void store_zeros(heads_view<T> const& out, attention_cut const& cut, offset_t part,
                            offset_t first, offset_t count, int column) {
  int const columns = min(cut.width, cut.head_dim - column);
  for (offset_t i = threadIdx.x; i < count * columns; i += blockDim.x) {
    query_at(out, cut, part, first + i / columns)[column + i % columns] = T{};
  }
}
/// The float of a query row in a tensor like log_sum.
template <class T>
__device__ T& row_value(view<T, 3, space::device> const& x, attention_cut const& cut, offset_t part,
                        offset_t row) {
  offset_t const head = part % cut.kv_heads * cut.group + row % cut.group;
  return x(part / cut.kv_heads, head, row / cut.group);
}

/// Fills in where 64 vectors begin: of them `count` are there.
template <class T, class At>
__device__ void find_vectors(tile_vectors<T>& v, offset_t count, At const& at) {
  int const thread = static_cast<int>(threadIdx.x);
  if (thread < tile_side) v.at[thread] = thread < count ? at(thread) : nullptr;
}

template <class T> struct attention_memory {
  tile_memory tile;
  tile_vectors<T> q, k, v, d_out;
};

/// A row's results to the columns of a head that they are, times a factor.
template <int Quads, class T>
__device__ void store_row(float const (&sum)[4 * Quads], float factor, T* to, int column,
                          int columns) {
  int const x = static_cast<int>(threadIdx.x) % 16;
#pragma unroll
  for (int c = 0; c < 4 * Quads; ++c) {
    int const d = column + c / 4 * 64 + 4 * x + c % 4;
    if (d < columns) to[d] = from_float<T>(__fmul_rn(sum[c], factor));
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
