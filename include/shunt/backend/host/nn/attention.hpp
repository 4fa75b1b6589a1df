#pragma once
#include "shunt/backend/host/nn/lanes.hpp"
#include "shunt/backend/host/pool.hpp"
#include "shunt/core/arena.hpp"
#include "shunt/core/view.hpp"

namespace shunt::host {
inline namespace SHUNT_HOST_ABI {

// Blocks. 64 keys stand in the arithmetic (where the online softmax takes a new peak), so every
// backend keeps them; 48 query rows are eight tiles of six, a matter of speed only.
inline constexpr offset_t attention_keys = 64;
inline constexpr offset_t attention_rows = 48;
inline constexpr offset_t attention_strip = 32;  // rows of values are padded to it

constexpr offset_t attention_padded(offset_t n, offset_t to) noexcept {
  return (n + to - 1) / to * to;
}

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
  offset_t kv_heads, head_dim, wide, first_position;
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
  offset_t kv_heads, group, head_dim, wide, first_position;
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

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/nn/attention_kernels.inl"
#include "shunt/backend/host/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_HOST_ABI {

struct attention_sizes {
  offset_t batch, length, heads, kv_heads, head_dim;
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

template <class T, class To>
void attention_pack(on_host const& on, attention_pack_args<T, To> const& a, offset_t batch,
                    offset_t length) noexcept {
  auto* const kernel = SHUNT_ISA_PICK(on, nn::pack_keys<T, To>);
  offset_t const blocks = (length + attention_keys - 1) / attention_keys;
  parallel(on, batch * a.kv_heads * blocks, [&](offset_t task, int) {
    offset_t const part = task / blocks, first = task % blocks * attention_keys;
    offset_t const last = first + attention_keys < length ? first + attention_keys : length;
    kernel(a, part / a.kv_heads, part % a.kv_heads, first, last);
  });
}

template <class T, class K>
void attention(on_host const& on, attention_args<T, K> const& a, offset_t batch, offset_t length,
               float* scratch) noexcept {
  auto* const kernel = SHUNT_ISA_PICK(on, nn::attend_rows<T, K>);
  offset_t const rows = length * a.group, blocks = (rows + attention_rows - 1) / attention_rows;
  offset_t const parts = batch * a.kv_heads, each = attention_rows * (2 * a.wide + attention_keys);
  parallel(on, parts * blocks, [&](offset_t task, int worker) {
    offset_t const part = task % parts;
    offset_t const first = (blocks - 1 - task / parts) * attention_rows;  // the longest first
    kernel(a, part / a.kv_heads, part % a.kv_heads, first,
           rows - first < attention_rows ? rows - first : attention_rows, scratch + worker * each);
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

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::host
