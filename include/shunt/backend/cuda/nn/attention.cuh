#pragma once
#include <type_traits>

#include "shunt/backend/cuda/nn/attention_tile.cuh"
#include "shunt/backend/cuda/nn/cache_append.cuh"
#include "shunt/core/math.hpp"

// Causal attention with the host's bits. A block has 64 query rows of one sequence and key/value head,
// numbered query · heads of the group + head, as on the host, and goes through the keys 64 at a time:
// the online softmax takes a new peak where the host does. Where heads are wider than a block's
// columns, further blocks make the others (and the scores again). Nothing is packed: keys and values
// are read where they lie, and only backward needs scratch.
namespace shunt::cuda {
inline namespace SHUNT_HOST_ABI {

using nn::detail::attention_backward_call;
using nn::detail::attention_call;
template <class T> using device_cache = nn::kv_cache<T, space::device>;
template <class T> using heads_view = view<T, 4, space::device>;

/// How a call is cut: `tiles` of 64 query rows (or keys) for each of `parts` sequences and key/value
/// heads, times `panels` of `width` columns.
struct attention_cut {
  offset_t kv_heads, group, rows, length, first_position, parts, tiles, panels;
  int head_dim, width;

  attention_cut(offset_t batch, offset_t length_, offset_t heads, offset_t kv_heads_,
                offset_t head_dim_, offset_t first_position_) noexcept
      : kv_heads(kv_heads_),
        group(heads / kv_heads_),
        rows(length_ * (heads / kv_heads_)),
        length(length_),
        first_position(first_position_),
        parts(batch * kv_heads_),
        tiles(nn::detail::pieces_of(rows, tile_side)),
        head_dim(static_cast<int>(head_dim_)),
        width(head_dim_ <= 64 ? 64 : 128) {
    panels = nn::detail::pieces_of(head_dim_, width);
  }
  [[nodiscard]] SHUNT_HD offset_t blocks() const { return tiles * parts * panels; }
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

/// The online softmax of four rows, whose 64 scores each are in the 16 lanes that share them.
struct softmax_rows {
  float peak[4], sum[4];

  __device__ softmax_rows() {
#pragma unroll
    for (int i = 0; i < 4; ++i) peak[i] = -__builtin_inff(), sum[i] = 0.0f;
  }
  /// s becomes e^(s − peak), 0 from `seen` keys on; the values in `out` go on from the new peaks.
  template <int Columns>
  __device__ void soften(float (&s)[4][4], tile_range const (&seen)[4], float (&out)[4][Columns]) {
    int const x = static_cast<int>(threadIdx.x) % 16;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float top = -__builtin_inff();
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float const score = x + 16 * j < seen[i].last ? s[i][j] : -__builtin_inff();
        s[i][j] = score;
        top = top < score ? score : top;
      }
      for (int half = 8; half > 0; half /= 2) {
        float const other = __shfl_xor_sync(all_lanes, top, half);
        top = top < other ? other : top;
      }
      float const next = peak[i] < top ? top : peak[i];
      float const shrink = math::exp(__fadd_rn(peak[i], -next));
      peak[i] = next;
#pragma unroll
      for (int j = 0; j < 4; ++j) s[i][j] = math::exp(__fadd_rn(s[i][j], -next));
      // Partial sums l = x and x + 16 of keys l and l + 32, then halves.
      float part = __fadd_rn(__fadd_rn(s[i][0], s[i][2]), __fadd_rn(s[i][1], s[i][3]));
      for (int half = 8; half > 0; half /= 2) {
        part = __fadd_rn(part, __shfl_xor_sync(all_lanes, part, half));
      }
      sum[i] = __fmaf_rn(sum[i], shrink, part);
      if (shrink == 1.0f) continue;
#pragma unroll
      for (int c = 0; c < Columns; ++c) out[i][c] = __fmul_rn(out[i][c], shrink);
    }
  }
};

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

template <int Quads, class T, bool Cached>
SHUNT_KERNEL void __launch_bounds__(tile_threads)
    attend(attention_call<T, space::device> call, device_cache<T> cache, attention_cut cut) {
  __shared__ attention_memory<T> m;
  int const y = static_cast<int>(threadIdx.x) / 16, x = static_cast<int>(threadIdx.x) % 16;
  for (offset_t number = blockIdx.x; number < cut.blocks(); number += gridDim.x) {
    attention_task const task(cut, number);
    offset_t const part = task.part;
    offset_t const first = (cut.tiles - 1 - task.tile) * tile_side;  // the longest first
    offset_t const count = min(offset_t{tile_side}, cut.rows - first);
    offset_t const least = cut.keys_of(first), most = cut.keys_of(first + count - 1);
    __syncthreads();  // the last task is done with the vectors
    find_vectors<T>(m.q, count, [&](offset_t r) { return query_at(call.q, cut, part, first + r); });
    float out[4][4 * Quads] = {};
    softmax_rows state;
    for (offset_t key = 0; key < most; key += tile_side) {
      int const keys = static_cast<int>(min(offset_t{tile_side}, most - key));
      __syncthreads();
      if constexpr (Cached) {
        T const* const values = cache.values(part) + key * cache.wide();
        find_vectors<T>(m.v, keys, [&](offset_t j) { return values + j * cache.wide(); });
      } else {
        find_vectors<T>(m.k, keys, [&](offset_t j) { return key_at(call.k, cut, part, key + j); });
        find_vectors<T>(m.v, keys, [&](offset_t j) { return key_at(call.v, cut, part, key + j); });
      }
      __syncthreads();
      float s[4][4];
      tile_rows<T> const queries(m.q, call.scale);
      if constexpr (Cached) {
        tile_panel<T> const panel(cache.keys(part) + key * cut.head_dim, keys);
        tile_products(queries, panel, cut.head_dim, m.tile, s);
      } else {
        tile_products(queries, tile_rows<T>(m.k), cut.head_dim, m.tile, s);
      }
      tile_range seen[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        offset_t const row = y + 16 * i;
        offset_t const sees = row < count ? cut.keys_of(first + row) - key : 0;
        seen[i] = {0, static_cast<int>(max(offset_t{0}, min(sees, offset_t{tile_side})))};
      }
      state.soften(s, seen, out);
      put_weights(s, m.tile);
      bool const whole = least >= key + tile_side;
      tile_gather<Quads>(m.v, 1.0f, keys, seen, whole, task.column, cut.head_dim, m.tile, out);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      offset_t const row = y + 16 * i;
      if (row >= count) continue;
      float const share = __fdiv_rn(1.0f, state.sum[i]);
      store_row<Quads>(out[i], share, query_at(call.out, cut, part, first + row), task.column,
                       cut.head_dim);
      if (call.log_sum && x == 0 && task.column == 0) {
        row_value(call.log_sum, cut, part, first + row) =
            __fadd_rn(state.peak[i], math::log(state.sum[i]));
      }
    }
  }
}

/// δ of each query row: d_out · out. A warp has one.
template <class T>
SHUNT_KERNEL void attention_deltas(attention_backward_call<T, space::device> call,
                                   attention_cut cut, float* delta) {
  for (offset_t item = grid_warp(); item < cut.parts * cut.rows; item += grid_warps()) {
    offset_t const part = item / cut.rows, row = item % cut.rows;
    float const dot = row_dot(query_at(call.d_out, cut, part, row),
                              query_at(call.out, cut, part, row), cut.head_dim);
    if (lane_of_thread() == 0) delta[item] = dot;
  }
}

/// From a score, log_sum, d_out · v and δ to the weights of the gradients; 0 where a row does not see
/// a key.
__device__ inline void pair_weights(bool seen, float shift, float delta, float& s, float& d_p) {
  s = seen ? math::exp(__fadd_rn(s, -shift)) : 0.0f;
  d_p = seen ? __fmul_rn(s, __fadd_rn(d_p, -delta)) : 0.0f;
}

/// d_q of 64 query rows: over the keys from the first on.
template <int Quads, class T>
SHUNT_KERNEL void __launch_bounds__(tile_threads)
    attend_queries_back(attention_backward_call<T, space::device> call, attention_cut cut,
                        float const* delta) {
  __shared__ attention_memory<T> m;
  int const y = static_cast<int>(threadIdx.x) / 16, x = static_cast<int>(threadIdx.x) % 16;
  for (offset_t number = blockIdx.x; number < cut.blocks(); number += gridDim.x) {
    attention_task const task(cut, number);
    offset_t const part = task.part, first = (cut.tiles - 1 - task.tile) * tile_side;
    offset_t const count = min(offset_t{tile_side}, cut.rows - first);
    offset_t const least = cut.keys_of(first), most = cut.keys_of(first + count - 1);
    __syncthreads();
    find_vectors<T>(m.q, count, [&](offset_t r) { return query_at(call.q, cut, part, first + r); });
    find_vectors<T>(m.d_out, count,
                    [&](offset_t r) { return query_at(call.d_out, cut, part, first + r); });
    float shift[4], less[4], d_q[4][4 * Quads] = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      offset_t const row = first + y + 16 * i;
      bool const there = row < cut.rows;
      shift[i] = there ? row_value(call.log_sum, cut, part, row) : 0.0f;
      less[i] = there ? delta[part * cut.rows + row] : 0.0f;
    }
    for (offset_t key = 0; key < most; key += tile_side) {
      int const keys = static_cast<int>(min(offset_t{tile_side}, most - key));
      __syncthreads();
      find_vectors<T>(m.k, keys, [&](offset_t j) { return key_at(call.k, cut, part, key + j); });
      find_vectors<T>(m.v, keys, [&](offset_t j) { return key_at(call.v, cut, part, key + j); });
      __syncthreads();
      float s[4][4], d_p[4][4];
      tile_products(tile_rows<T>(m.q, call.scale), tile_rows<T>(m.k), cut.head_dim, m.tile, s);
      tile_products(tile_rows<T>(m.d_out), tile_rows<T>(m.v), cut.head_dim, m.tile, d_p);
      tile_range seen[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        offset_t const row = y + 16 * i;
        offset_t const sees = row < count ? cut.keys_of(first + row) - key : 0;
        seen[i] = {0, static_cast<int>(max(offset_t{0}, min(sees, offset_t{tile_side})))};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          pair_weights(x + 16 * j < seen[i].last, shift[i], less[i], s[i][j], d_p[i][j]);
        }
      }
      put_weights(d_p, m.tile);
      bool const whole = least >= key + tile_side;
      tile_gather<Quads>(m.k, 1.0f, keys, seen, whole, task.column, cut.head_dim, m.tile, d_q);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      offset_t const row = y + 16 * i;
      if (row >= count) continue;
      store_row<Quads>(d_q[i], call.scale, query_at(call.d_q, cut, part, first + row), task.column,
                       cut.head_dim);
    }
  }
}

/// d_k and d_v of 64 keys: over the query rows that see them, in order. The tiles of `cut` are keys.
template <int Quads, class T>
SHUNT_KERNEL void __launch_bounds__(tile_threads)
    attend_keys_back(attention_backward_call<T, space::device> call, attention_cut cut,
                     float const* delta) {
  __shared__ attention_memory<T> m;
  int const y = static_cast<int>(threadIdx.x) / 16, x = static_cast<int>(threadIdx.x) % 16;
  for (offset_t number = blockIdx.x; number < cut.blocks(); number += gridDim.x) {
    attention_task const task(cut, number);
    offset_t const part = task.part, key = task.tile * tile_side;  // the longest first
    offset_t const keys = min(offset_t{tile_side}, cut.length - key);
    __syncthreads();
    find_vectors<T>(m.k, keys, [&](offset_t j) { return key_at(call.k, cut, part, key + j); });
    find_vectors<T>(m.v, keys, [&](offset_t j) { return key_at(call.v, cut, part, key + j); });
    float d_k[4][4 * Quads] = {}, d_v[4][4 * Quads] = {};
    offset_t const start = key * cut.group / tile_side * tile_side;  // whose rows see the first key
    for (offset_t first = start; first < cut.rows; first += tile_side) {
      int const count = static_cast<int>(min(offset_t{tile_side}, cut.rows - first));
      __syncthreads();
      find_vectors<T>(m.q, count,
                      [&](offset_t r) { return query_at(call.q, cut, part, first + r); });
      find_vectors<T>(m.d_out, count,
                      [&](offset_t r) { return query_at(call.d_out, cut, part, first + r); });
      __syncthreads();
      float s[4][4], d_p[4][4];
      tile_products(tile_rows<T>(m.k), tile_rows<T>(m.q, call.scale), cut.head_dim, m.tile, s);
      tile_products(tile_rows<T>(m.v), tile_rows<T>(m.d_out), cut.head_dim, m.tile, d_p);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        offset_t const row = first + x + 16 * j;
        bool const there = row < cut.rows;
        float const shift = there ? row_value(call.log_sum, cut, part, row) : 0.0f;
        float const less = there ? delta[part * cut.rows + row] : 0.0f;
        offset_t const sees = there ? cut.keys_of(row) - key : 0;
#pragma unroll
        for (int i = 0; i < 4; ++i)
          pair_weights(y + 16 * i < sees, shift, less, s[i][j], d_p[i][j]);
      }
      tile_range see[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        offset_t const from = (key + y + 16 * i) * cut.group - first;
        see[i] = {static_cast<int>(max(offset_t{0}, min(from, offset_t{tile_side}))), count};
      }
      bool const whole = cut.keys_of(first) >= key + tile_side;
      put_weights(s, m.tile);
      tile_gather<Quads>(m.d_out, 1.0f, count, see, whole, task.column, cut.head_dim, m.tile, d_v);
      __syncthreads();
      put_weights(d_p, m.tile);
      tile_gather<Quads>(m.q, call.scale, count, see, whole, task.column, cut.head_dim, m.tile,
                         d_k);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      offset_t const j = y + 16 * i;
      if (j >= keys) continue;
      store_row<Quads>(d_k[i], 1.0f, key_at(call.d_k, cut, part, key + j), task.column,
                       cut.head_dim);
      store_row<Quads>(d_v[i], 1.0f, key_at(call.d_v, cut, part, key + j), task.column,
                       cut.head_dim);
    }
  }
}

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::cuda

namespace shunt::nn {
inline namespace SHUNT_HOST_ABI {
namespace detail {

template <> struct attention_on<on_cuda> {
  template <class T, int Rank> using memory = view<T, Rank, space::device>;

  static std::size_t forward_bytes(on_cuda const&, attention_shape const&) noexcept { return 0; }
  static std::size_t backward_bytes(on_cuda const&, attention_shape const& s) noexcept {
    auto a = arena<space::device>::measuring();
    (void)carve_deltas(a, s.batch, s.heads, s.length);
    return a.needed();
  }
  static std::size_t cached_bytes(on_cuda const&, index_t) noexcept { return 0; }

  template <class T>
  static status forward(on_cuda const& on, attention_call<T, space::device> const& c,
                        arena<space::device>) noexcept {
    cuda::attention_cut const cut(c.q.extent(0), c.q.extent(1), c.q.extent(2), c.k.extent(2),
                                  c.q.extent(3), 0);
    return launch(
        on, "attention", cut, [](auto quads) { return cuda::attend<quads.value, T, false>; }, c,
        cuda::device_cache<T>{}, cut);
  }
  template <class T>
  static status append(on_cuda const& on, memory<T const, 4> k, memory<T const, 4> v,
                       kv_cache<T, space::device> const& cache, offset_t first) noexcept {
    return cuda::append_to_cache<T>(on, k, v, cache, first);
  }
  template <class T>
  static status cached(on_cuda const& on, attention_call<T, space::device> const& c,
                       kv_cache<T, space::device> const& cache, offset_t first,
                       arena<space::device>) noexcept {
    cuda::attention_cut const cut(c.q.extent(0), c.q.extent(1), c.q.extent(2), cache.kv_heads,
                                  c.q.extent(3), first);
    return launch(
        on, "cache_attend", cut, [](auto quads) { return cuda::attend<quads.value, T, true>; }, c,
        cache, cut);
  }
  template <class T>
  static status backward(on_cuda const& on, attention_backward_call<T, space::device> const& c,
                         arena<space::device> work) noexcept {
    constexpr char const* who = "attention_backward";
    float* const delta = carve_deltas(work, c.q.extent(0), c.q.extent(2), c.q.extent(1));
    if (status bad = work.check(who); !bad.ok()) return bad;
    cuda::attention_cut const rows(c.q.extent(0), c.q.extent(1), c.q.extent(2), c.k.extent(2),
                                   c.q.extent(3), 0);
    cuda::attention_cut keys = rows;
    keys.tiles = pieces_of(keys.length, cuda::tile_side);
    status done = cuda::launch_warps(on, who, rows.parts * rows.rows, cuda::attention_deltas<T>, c,
                                     rows, delta);
    if (done.ok()) {
      done = launch(
          on, who, rows, [](auto quads) { return cuda::attend_queries_back<quads.value, T>; }, c,
          rows, delta);
    }
    if (!done.ok()) return done;
    return launch(
        on, who, keys, [](auto quads) { return cuda::attend_keys_back<quads.value, T>; }, c, keys,
        delta);
  }

 private:
  static float* carve_deltas(arena<space::device>& a, offset_t batch, offset_t heads,
                             offset_t length) noexcept {
    return a.take<float>(batch * heads * length);
  }
  /// `kernel` of one quad of columns or of two.
  template <class Kernel, class... Arguments>
  static status launch(on_cuda const& on, char const* who, cuda::attention_cut const& cut,
                       Kernel const& kernel, Arguments const&... arguments) noexcept {
    auto const of = [&](auto quads) {
      return cuda::launch(on, who, cut.blocks(), cuda::tile_threads, kernel(quads), arguments...);
    };
    return cut.width == 64 ? of(std::integral_constant<int, 1>{})
                           : of(std::integral_constant<int, 2>{});
  }
};

}  // namespace detail
}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::nn
