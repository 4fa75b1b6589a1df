// No include guard: causal attention in blocks. Every sum is one chain of fma in ascending index,
// blocks of keys stand at multiples of 64 of the key's position: neither the instruction set nor
// the block of queries nor the tokens that follow can be seen in the result.
namespace nn {

inline constexpr std::int64_t tile_width = 2 * std::int64_t{lanes};  // two vectors

/// C(m, n) (+)= Σ_k A(m, k)·B(k, n), k ascending: A at a + m·a_row + k·a_step, rows of B and C.
template <int Rows, int Vectors, class B>
SHUNT_INLINE void product_tile(float const* a, std::int64_t a_row, std::int64_t a_step, B const* b,
                               std::int64_t b_row, float* c, std::int64_t c_row, std::int64_t depth,
                               bool resume) noexcept {
  vf sum[Rows][Vectors];
  unroll<Rows>([&](auto m) __attribute__((always_inline)) {
    unroll<Vectors>([&](auto v) __attribute__((always_inline)) {
      sum[m.value][v.value] = resume ? load(c + m.value * c_row + v.value * lanes) : vf{};
    });
  });
  for (std::int64_t k = 0; k < depth; ++k, a += a_step, b += b_row) {
    vf right[Vectors];
    unroll<Vectors>([&](auto v) __attribute__((always_inline)) {
      right[v.value] = load(b + v.value * lanes);
    });
    unroll<Rows>([&](auto m) __attribute__((always_inline)) {
      vf const left = fill(a[m.value * a_row]);
      unroll<Vectors>([&](auto v) __attribute__((always_inline)) {
        sum[m.value][v.value] = fma(left, right[v.value], sum[m.value][v.value]);
      });
    });
  }
  unroll<Rows>([&](auto m) __attribute__((always_inline)) {
    unroll<Vectors>([&](auto v) __attribute__((always_inline)) {
      store(c + m.value * c_row + v.value * lanes, sum[m.value][v.value]);
    });
  });
}

/// The same for up to six rows, two vectors wide.
template <class B>
void product_part(int rows, float const* a, std::int64_t a_row, std::int64_t a_step, B const* b,
                  std::int64_t b_row, float* c, std::int64_t c_row, std::int64_t depth,
                  bool resume) noexcept {
  switch (rows) {
    case 1: return product_tile<1, 2>(a, a_row, a_step, b, b_row, c, c_row, depth, resume);
    case 2: return product_tile<2, 2>(a, a_row, a_step, b, b_row, c, c_row, depth, resume);
    case 3: return product_tile<3, 2>(a, a_row, a_step, b, b_row, c, c_row, depth, resume);
    case 4: return product_tile<4, 2>(a, a_row, a_step, b, b_row, c, c_row, depth, resume);
    case 5: return product_tile<5, 2>(a, a_row, a_step, b, b_row, c, c_row, depth, resume);
    default: return product_tile<6, 2>(a, a_row, a_step, b, b_row, c, c_row, depth, resume);
  }
}
/// One row, `columns` wide (pairs of vectors): a chain waits for itself, so more chains at once.
template <class B>
void product_of_row(float const* a, B const* b, std::int64_t b_row, float* c, std::int64_t columns,
                    std::int64_t depth, bool resume) noexcept {
  std::int64_t n = 0;
  for (; n + 2 * tile_width <= columns; n += 2 * tile_width) {
    product_tile<1, 4>(a, 0, 1, b + n, b_row, c + n, 0, depth, resume);
  }
  for (; n < columns; n += tile_width) {
    product_tile<1, 2>(a, 0, 1, b + n, b_row, c + n, 0, depth, resume);
  }
}

/// 0, 1, 2, … one a lane.
SHUNT_INLINE vf lane_numbers() noexcept {
  float x[lanes];
  for (int i = 0; i < lanes; ++i) x[i] = static_cast<float>(i);
  return load(x);
}

/// One row of `from`, widened and scaled, zeros up to `wide`.
template <class T>
SHUNT_INLINE void widen_row(T const* from, std::int64_t n, std::int64_t wide, float scale,
                            float* to) noexcept {
  for (std::int64_t i = 0; i < wide; i += lanes) {
    store(to + i, i < n ? load_up_to(from + i, n - i) * fill(scale) : fill(0.0f));
  }
}

/// Keys [first, last) of one sequence and head into panels of 64 keys, [key / 64][D][64], values
/// into rows of `wide`. What a panel holds behind the last key is left as it was.
template <class T, class To>
void pack_keys(attention_pack_args<T, To> const& a, std::int64_t batch, std::int64_t head,
               std::int64_t first, std::int64_t last) noexcept {
  std::int64_t const part = batch * a.kv_heads + head;
  To* const keys = a.keys + part * a.keys_stride;
  To* const values = a.values + part * a.values_stride;
  for (std::int64_t j = first; j < last; ++j) {
    T const* const k = a.k + batch * a.k_batch + j * a.k_token + head * a.k_head;
    T const* const v = a.v + batch * a.v_batch + j * a.v_token + head * a.v_head;
    std::int64_t const at = j + a.first_position;
    To* const panel =
        keys + at / attention_keys * attention_keys * a.head_dim + at % attention_keys;
    for (std::int64_t d = 0; d < a.head_dim; ++d) {
      if constexpr (sizeof(T) == sizeof(To)) {
        panel[d * attention_keys] = k[d];
      } else {
        panel[d * attention_keys] = widen(k[d]);
      }
    }
    To* const row = values + at * a.wide;
    for (std::int64_t d = 0; d < a.wide; d += lanes) {
      store(row + d, d < a.head_dim ? load_up_to(v + d, a.head_dim - d) : fill(0.0f));
    }
  }
}

/// Queries of one block, numbered query · group + head within the group, and how many keys each sees.
struct query_rows {
  std::int64_t rows = 0;
  std::int64_t keys[attention_rows] = {};

  SHUNT_INLINE query_rows(std::int64_t first, std::int64_t count, std::int64_t group,
                          std::int64_t first_position) noexcept
      : rows(count) {
    for (std::int64_t r = 0; r < count; ++r) keys[r] = (first + r) / group + first_position + 1;
  }
  /// Of the 64 keys from `key` on.
  SHUNT_INLINE std::int64_t seen(std::int64_t r, std::int64_t key) const noexcept {
    std::int64_t const n = keys[r] - key;
    return n < 0 ? 0 : n > attention_keys ? attention_keys : n;
  }
  SHUNT_INLINE int tile(std::int64_t r) const noexcept {
    return static_cast<int>(rows - r < 6 ? rows - r : 6);
  }
};

/// s[r][j] = q[r]·k[j] for the keys that some row of each tile of six sees.
template <class K>
SHUNT_INLINE void scores(query_rows const& which, std::int64_t key, float const* q,
                         std::int64_t wide, K const* panel, std::int64_t depth, float* s) noexcept {
  constexpr std::int64_t step = tile_width;
  if (which.rows == 1) {
    product_of_row(q, panel, attention_keys, s, (which.seen(0, key) + step - 1) / step * step,
                   depth, false);
    return;
  }
  for (std::int64_t n = 0; n < attention_keys; n += step) {  // a strip of keys stays in L1
    for (std::int64_t r = 0; r < which.rows; r += 6) {
      int const part = which.tile(r);
      if (which.seen(r + part - 1, key) <= n) continue;
      product_part(part, q + r * wide, wide, 1, panel + n, attention_keys,
                   s + r * attention_keys + n, attention_keys, depth, false);
    }
  }
}

/// c[r][:] (+)= Σ_j w[r][j]·x[j][:] over the keys that some row of each tile sees.
template <class X>
SHUNT_INLINE void gather(query_rows const& which, std::int64_t key, float const* w, X const* x,
                         std::int64_t wide, float* c, bool resume) noexcept {
  if (which.rows == 1) {
    product_of_row(w, x, wide, c, wide, which.seen(0, key), resume);
    return;
  }
  for (std::int64_t n = 0; n < wide; n += tile_width) {
    for (std::int64_t r = 0; r < which.rows; r += 6) {
      int const part = which.tile(r);
      product_part(part, w + r * attention_keys, attention_keys, 1, x + n, wide, c + r * wide + n,
                   wide, which.seen(r + part - 1, key), resume);
    }
  }
}

/// The running state of a block's online softmax.
struct softmax_state {
  float peak[attention_rows], sum[attention_rows];
};

/// s becomes e^(s − peak), 0 where not seen; peak and sum go on, o is scaled to the new peaks. In
/// passes over the rows, so that the latencies of one row hide behind the next.
SHUNT_INLINE void soften(query_rows const& which, std::int64_t key, vf numbers, float* s,
                         softmax_state& state, float* o, std::int64_t wide) noexcept {
  constexpr int vectors = attention_keys / lanes;
  float next[attention_rows], shrink[attention_rows], total[attention_rows];
  for (std::int64_t r = 0; r < attention_rows; ++r) next[r] = total[r] = 0.0f;
  for (std::int64_t r = 0; r < which.rows; ++r) {
    float* const row = s + r * attention_keys;
    std::int64_t const seen = which.seen(r, key);
    if (seen < attention_keys) {
      vf const least = fill(-__builtin_inff()), count = fill(static_cast<float>(seen));
      for (int i = 0; i < attention_keys; i += lanes) {
        vf const number = numbers + fill(static_cast<float>(i));
        store(row + i, select(number < count, load(row + i), least));
      }
    }
    strip top = strip_of(-__builtin_inff());
    unroll<vectors>([&](auto i) __attribute__((always_inline)) {
      vf& best = top.part[i.value % strip_vectors];
      vf const x = load(row + i.value * lanes);
      best = select(best < x, x, best);
    });
    float const block = max_of(top);
    next[r] = state.peak[r] < block ? block : state.peak[r];
  }
  for (int r = 0; r < attention_rows; r += lanes) {
    store(shrink + r, exp(load(state.peak + r) - load(next + r)));
    store(state.peak + r, load(next + r));
  }
  for (std::int64_t r = 0; r < which.rows; ++r) {
    float* const row = s + r * attention_keys;
    strip sum = strip_of(0.0f);
    unroll<vectors>([&](auto i) __attribute__((always_inline)) {
      vf const p = exp(load(row + i.value * lanes) - fill(next[r]));
      store(row + i.value * lanes, p);
      sum.part[i.value % strip_vectors] = sum.part[i.value % strip_vectors] + p;
    });
    total[r] = sum_of(sum);
  }
  for (int r = 0; r < attention_rows; r += lanes) {
    store(state.sum + r, fma(load(state.sum + r), load(shrink + r), load(total + r)));
  }
  for (std::int64_t r = 0; r < which.rows; ++r) {
    if (shrink[r] == 1.0f) continue;
    for (std::int64_t i = 0; i < wide; i += lanes) {
      store(o + r * wide + i, load(o + r * wide + i) * fill(shrink[r]));
    }
  }
}

/// The rows [first, first + rows) of one sequence and key/value head, from the first key on.
template <class T, class K>
void attend_rows(attention_args<T, K> const& a, std::int64_t batch, std::int64_t kv_head,
                 std::int64_t first, std::int64_t rows, float* scratch) noexcept {
  std::int64_t const wide = a.wide, depth = a.head_dim;
  float* const q = scratch;
  float* const o = q + attention_rows * wide;
  float* const s = o + attention_rows * wide;
  softmax_state state;
  vf const numbers = lane_numbers();
  query_rows const which(first, rows, a.group, a.first_position);
  for (std::int64_t r = 0; r < attention_rows; ++r) state.peak[r] = state.sum[r] = 0.0f;
  for (std::int64_t r = 0; r < rows; ++r) {
    std::int64_t const token = (first + r) / a.group;
    std::int64_t const head = kv_head * a.group + (first + r) % a.group;
    widen_row(a.q + batch * a.q_batch + token * a.q_token + head * a.q_head, depth, wide, a.scale,
              q + r * wide);
    for (std::int64_t i = 0; i < wide; i += lanes) store(o + r * wide + i, fill(0.0f));
    state.peak[r] = -__builtin_inff();
  }
  K const* const keys = a.keys + (batch * a.kv_heads + kv_head) * a.keys_stride;
  K const* const values = a.values + (batch * a.kv_heads + kv_head) * a.values_stride;
  for (std::int64_t key = 0; which.seen(rows - 1, key) > 0; key += attention_keys) {
    scores(which, key, q, wide, keys + key * depth, depth, s);
    soften(which, key, numbers, s, state, o, wide);
    gather(which, key, s, values + key * wide, wide, o, true);
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    std::int64_t const token = (first + r) / a.group;
    std::int64_t const head = kv_head * a.group + (first + r) % a.group;
    T* const out = a.out + batch * a.out_batch + token * a.out_token + head * a.out_head;
    vf const share = fill(1.0f / state.sum[r]);
    for (std::int64_t i = 0; i < depth; i += lanes) {
      store_up_to(out + i, load(o + r * wide + i) * share, depth - i);
    }
    if (a.log_sum != nullptr) {
      a.log_sum[batch * a.log_sum_batch + head * a.log_sum_head + token * a.log_sum_token] =
          state.peak[r] + log(fill(state.sum[r]))[0];
    }
  }
}

#include "shunt/backend/host/nn/attention_backward_kernels.inl"

}  // namespace nn
