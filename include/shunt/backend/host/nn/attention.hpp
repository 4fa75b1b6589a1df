#pragma once
#include "shunt/backend/host/nn/lanes.hpp"
#include "shunt/backend/host/pool.hpp"
#include "shunt/nn/detail/args.hpp"

namespace shunt::host {
inline namespace SHUNT_ABI {

using shunt::nn::detail::attention_keys;
using shunt::nn::detail::attention_padded;
using shunt::nn::detail::attention_strip;

inline constexpr offset_t attention_rows = 48;  // eight tiles of six: a matter of speed only

/// Keys and values as they come, [B,S,heads,D] with steps, and where they are packed.
template <class T, class To> struct attention_pack_args {
  T const* k;
  offset_t k_batch, k_token, k_head;
  T const* v;
  offset_t v_batch, v_token, v_head;
  To* keys;
  offset_t keys_stride;  // from (sequence, head) to the next
  To* values;
  offset_t values_stride;
  offset_t kv_heads, head_dim, wide, first_position;  // of the task's sequence
};

template <class T, class K> struct attention_args {
  T const* q;
  offset_t q_batch, q_token, q_head;
  K const* keys;
  offset_t keys_stride;
  K const* values;
  offset_t values_stride;
  T* out;
  offset_t out_batch, out_token, out_head;
  float* log_sum;  // null: not wanted
  offset_t log_sum_batch, log_sum_head, log_sum_token;
  offset_t kv_heads, group, head_dim, wide, first_position;  // of the task's sequence
  float scale;
};

template <class T> struct attention_backward_args {
  T const* q;
  offset_t q_batch, q_token, q_head;
  T const* k;
  offset_t k_batch, k_token, k_head;
  T const* v;
  offset_t v_batch, v_token, v_head;
  T const* out;
  offset_t out_batch, out_token, out_head;
  T const* d_out;
  offset_t d_out_batch, d_out_token, d_out_head;
  T* d_q;
  offset_t d_q_batch, d_q_token, d_q_head;
  T* d_k;
  offset_t d_k_batch, d_k_token, d_k_head;
  T* d_v;
  offset_t d_v_batch, d_v_token, d_v_head;
  float const* log_sum;
  offset_t log_sum_batch, log_sum_head, log_sum_token;
  offset_t length, group, head_dim, wide;
  float scale;
};

}  // namespace SHUNT_ABI
}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/nn/attention_kernels.inl"
#include "shunt/backend/host/simd/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_ABI {

struct attention_sizes {
  offset_t batch, length, heads, kv_heads, head_dim;
  explicit constexpr attention_sizes(shunt::nn::attention_shape const& s) noexcept
      : batch(s.batch),
        length(s.length),
        heads(s.heads),
        kv_heads(s.kv_heads),
        head_dim(s.head_dim) {}
  template <class T>
  attention_sizes(view<T, 4> q, view<T, 4> k) noexcept
      : batch(q.extent(0)),
        length(q.extent(1)),
        heads(q.extent(2)),
        kv_heads(k.extent(2)),
        head_dim(q.extent(3)) {}
  [[nodiscard]] constexpr offset_t wide() const noexcept {
    return attention_padded(head_dim, attention_strip);
  }
  [[nodiscard]] constexpr offset_t padded() const noexcept {
    return attention_padded(length, attention_keys);
  }
};

/// What one worker needs for a block of query rows.
inline float* carve_attention_rows(arena<>& a, on_host const& on, offset_t wide) noexcept {
  return a.take<float>(workers_of(on) * attention_rows * (2 * wide + attention_keys));
}

struct attention_scratch {
  float *keys, *values, *rows;
};
inline attention_scratch carve_attention(arena<>& a, on_host const& on,
                                         attention_sizes const& s) noexcept {
  return {.keys = a.take<float>(s.batch * s.kv_heads * s.padded() * s.head_dim),
          .values = a.take<float>(s.batch * s.kv_heads * s.padded() * s.wide()),
          .rows = carve_attention_rows(a, on, s.wide())};
}

inline offset_t attention_backward_floats(attention_sizes const& s) noexcept {
  return s.padded() * (2 * s.head_dim + 3 * s.wide()) +
         attention_rows * (3 * s.wide() + 2 * attention_keys);
}
inline float* carve_attention_backward(arena<>& a, on_host const& on,
                                       attention_sizes const& s) noexcept {
  return a.take<float>(workers_of(on) * attention_backward_floats(s));
}

using shunt::nn::detail::first_positions;

/// Of a cache of `capacity` tokens a sequence; the tokens of sequence b begin at start.of(b). A
/// sequence that has no room is left out.
struct attention_places {
  first_positions start;
  offset_t capacity;
  [[nodiscard]] bool fits(offset_t sequence, offset_t length) const noexcept {
    offset_t const first = start.of(sequence);
    return first >= 0 && first + length <= capacity;
  }
};

template <class T, class To>
void attention_pack(on_host const& on, attention_pack_args<T, To> const& a,
                    attention_places const& places, offset_t batch, offset_t length) noexcept {
  auto* const kernel = SHUNT_ISA_PICK(on, nn::pack_keys<T, To>);
  offset_t const blocks = (length + attention_keys - 1) / attention_keys;
  parallel(on, batch * a.kv_heads * blocks, [&](offset_t task, int) {
    offset_t const part = task / blocks, first = task % blocks * attention_keys;
    offset_t const last = first + attention_keys < length ? first + attention_keys : length;
    if (!places.fits(part / a.kv_heads, length)) return;
    attention_pack_args<T, To> mine = a;
    mine.first_position = places.start.of(part / a.kv_heads);
    kernel(mine, part / a.kv_heads, part % a.kv_heads, first, last);
  });
}

/// Zeros to the rows [first, first + rows) of one sequence and key/value head.
template <class T, class K>
void attention_zeros(attention_args<T, K> const& a, offset_t batch, offset_t kv_head,
                     offset_t first, offset_t rows) noexcept {
  for (offset_t r = first; r < first + rows; ++r) {
    offset_t const token = r / a.group, head = kv_head * a.group + r % a.group;
    T* const out = a.out + batch * a.out_batch + token * a.out_token + head * a.out_head;
    for (offset_t d = 0; d < a.head_dim; ++d) out[d] = T{};
  }
}

template <class T, class K>
void attention(on_host const& on, attention_args<T, K> const& a, attention_places const& places,
               offset_t batch, offset_t length, float* scratch) noexcept {
  auto* const kernel = SHUNT_ISA_PICK(on, nn::attend_rows<T, K>);
  offset_t const rows = length * a.group, blocks = (rows + attention_rows - 1) / attention_rows;
  offset_t const parts = batch * a.kv_heads, each = attention_rows * (2 * a.wide + attention_keys);
  parallel(on, parts * blocks, [&](offset_t task, int worker) {
    offset_t const part = task % parts;
    offset_t const first = (blocks - 1 - task / parts) * attention_rows;  // the longest first
    offset_t const count = rows - first < attention_rows ? rows - first : attention_rows;
    offset_t const sequence = part / a.kv_heads, kv_head = part % a.kv_heads;
    if (!places.fits(sequence, length)) return attention_zeros(a, sequence, kv_head, first, count);
    attention_args<T, K> mine = a;
    mine.first_position = places.start.of(sequence);
    kernel(mine, sequence, kv_head, first, count, scratch + worker * each);
  });
}

template <class T>
void attention_backward(on_host const& on, attention_backward_args<T> const& a,
                        attention_sizes const& s, float* scratch) noexcept {
  auto* const kernel = SHUNT_ISA_PICK(on, nn::attend_backward<T>);
  offset_t const each = attention_backward_floats(s);
  parallel(on, s.batch * s.kv_heads, [&](offset_t task, int worker) {
    kernel(a, task / s.kv_heads, task % s.kv_heads, scratch + worker * each);
  });
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <> struct attention_backend<on_host> {
  static std::size_t forward_bytes(on_host const& on, attention_shape const& s) noexcept {
    auto a = arena<>::measuring();
    (void)host::carve_attention(a, on, host::attention_sizes(s));
    return a.needed();
  }
  static std::size_t backward_bytes(on_host const& on, attention_shape const& s) noexcept {
    auto a = arena<>::measuring();
    (void)host::carve_attention_backward(a, on, host::attention_sizes(s));
    return a.needed();
  }
  static std::size_t cached_bytes(on_host const& on, index_t head_dim) noexcept {
    auto a = arena<>::measuring();
    (void)host::carve_attention_rows(a, on, attention_padded(head_dim, attention_strip));
    return a.needed();
  }

  template <class T>
  static status forward(on_host const& on, attention_call<T, space::host> const& c,
                        arena<> work) noexcept {
    host::attention_sizes const s(c.q, c.k);
    auto const scratch = host::carve_attention(work, on, s);
    if (status bad = work.check("attention"); !bad.ok()) return bad;
    offset_t const keys_stride = s.padded() * s.head_dim, values_stride = s.padded() * s.wide();
    host::attention_pack(on,
                         pack_args<T, float>(c.k, c.v, scratch.keys, keys_stride, scratch.values,
                                             values_stride, s.wide()),
                         {{}, s.length}, s.batch, s.length);
    host::attention(on,
                    args<T, float>(c, scratch.keys, keys_stride, scratch.values, values_stride,
                                   s.kv_heads, s.wide()),
                    {{}, s.length}, s.batch, s.length, scratch.rows);
    return {};
  }

  template <class T>
  static status append(on_host const& on, view<T const, 4> k, view<T const, 4> v,
                       kv_cache<T> const& cache, first_positions const& first) noexcept {
    host::attention_pack(
        on,
        pack_args<T, T>(k, v, cache.keys(), cache.padded() * cache.head_dim, cache.values(),
                        cache.padded() * cache.wide(), cache.wide()),
        {first, cache.capacity}, k.extent(0), k.extent(1));
    return {};
  }

  /// c's k and v are not there: the cache holds them.
  template <class T>
  static status cached(on_host const& on, attention_call<T, space::host> const& c,
                       kv_cache<T> const& cache, first_positions const& first,
                       arena<> work) noexcept {
    float* const rows = host::carve_attention_rows(work, on, cache.wide());
    if (status bad = work.check("cache_attend"); !bad.ok()) return bad;
    host::attention(on,
                    args<T, T>(c, cache.keys(), cache.padded() * cache.head_dim, cache.values(),
                               cache.padded() * cache.wide(), cache.kv_heads, cache.wide()),
                    {first, cache.capacity}, c.q.extent(0), c.q.extent(1), rows);
    return {};
  }

  template <class T>
  static status backward(on_host const& on, attention_backward_call<T, space::host> const& c,
                         arena<> work) noexcept {
    host::attention_sizes const s(c.q, c.k);
    float* const scratch = host::carve_attention_backward(work, on, s);
    if (status bad = work.check("attention_backward"); !bad.ok()) return bad;
    host::attention_backward_args<T> const a{
        c.q.data(),       c.q.stride(0),        c.q.stride(1),       c.q.stride(2),
        c.k.data(),       c.k.stride(0),        c.k.stride(1),       c.k.stride(2),
        c.v.data(),       c.v.stride(0),        c.v.stride(1),       c.v.stride(2),
        c.out.data(),     c.out.stride(0),      c.out.stride(1),     c.out.stride(2),
        c.d_out.data(),   c.d_out.stride(0),    c.d_out.stride(1),   c.d_out.stride(2),
        c.d_q.data(),     c.d_q.stride(0),      c.d_q.stride(1),     c.d_q.stride(2),
        c.d_k.data(),     c.d_k.stride(0),      c.d_k.stride(1),     c.d_k.stride(2),
        c.d_v.data(),     c.d_v.stride(0),      c.d_v.stride(1),     c.d_v.stride(2),
        c.log_sum.data(), c.log_sum.stride(0),  c.log_sum.stride(1), c.log_sum.stride(2),
        s.length,         s.heads / s.kv_heads, s.head_dim,          s.wide(),
        c.scale};
    host::attention_backward(on, a, s, scratch);
    return {};
  }

 private:
  template <class T, class To>
  static host::attention_pack_args<T, To> pack_args(view<T const, 4> k, view<T const, 4> v,
                                                    To* keys, offset_t keys_stride, To* values,
                                                    offset_t values_stride,
                                                    offset_t wide) noexcept {
    return {k.data(),    k.stride(0), k.stride(1), k.stride(2),
            v.data(),    v.stride(0), v.stride(1), v.stride(2),
            keys,        keys_stride, values,      values_stride,
            k.extent(2), k.extent(3), wide,        0};
  }
  template <class T, class K>
  static host::attention_args<T, K> args(attention_call<T, space::host> const& c, K const* keys,
                                         offset_t keys_stride, K const* values,
                                         offset_t values_stride, offset_t kv_heads,
                                         offset_t wide) noexcept {
    return {c.q.data(),
            c.q.stride(0),
            c.q.stride(1),
            c.q.stride(2),
            keys,
            keys_stride,
            values,
            values_stride,
            c.out.data(),
            c.out.stride(0),
            c.out.stride(1),
            c.out.stride(2),
            c.log_sum.data(),
            c.log_sum.stride(0),
            c.log_sum.stride(1),
            c.log_sum.stride(2),
            kv_heads,
            c.q.extent(2) / kv_heads,
            c.q.extent(3),
            wide,
            0,
            c.scale};
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
