// No include guard: part of attention_kernels.inl. The gradients of causal attention: softmax weights are
// made again from the log-sums that forward kept.

/// c[j][:] += Σ_r w[r][j]·x[r][:] over the rows that see key j, for the 64 keys of a panel.
SHUNT_INLINE void spread(query_rows const& which, std::int64_t key, float const* w, float const* x,
                         std::int64_t wide, float* c) noexcept {
  std::int64_t const seen = which.seen(which.rows - 1, key);
  for (std::int64_t n = 0; n < wide; n += tile_width) {
    std::int64_t r = 0;  // earlier rows have zeros there
    for (std::int64_t j = 0; j < seen; j += 6) {
      int const part = static_cast<int>(seen - j < 6 ? seen - j : 6);
      while (which.seen(r, key) <= j) ++r;
      product_part(part, w + r * attention_keys + j, 1, attention_keys, x + r * wide + n, wide,
                   c + j * wide + n, wide, which.rows - r, true);
    }
  }
}

/// What attend_backward holds of one sequence and key/value head, in its scratch.
struct backward_rows {
  std::int64_t padded;          // S, up to whole panels of keys
  float *keys, *values;         // panels [padded / 64][D][64]
  float *key_rows, *d_k, *d_v;  // [padded][wide]
  float *q, *d_o, *d_q;         // [48][wide]
  float *p, *d_p;               // [48][64] softmax weights of a panel; their gradients
  float shift[attention_rows], delta[attention_rows];  // log Σ exp of a row; Σ d_out · out
};
template <class T>
SHUNT_INLINE backward_rows backward_rows_in(float* scratch,
                                            attention_backward_args<T> const& a) noexcept {
  std::int64_t const depth = a.head_dim, wide = a.wide;
  backward_rows m;
  m.padded = (a.length + attention_keys - 1) / attention_keys * attention_keys;
  auto const take = [&](std::int64_t floats) { return scratch += floats, scratch - floats; };
  m.keys = take(m.padded * depth), m.values = take(m.padded * depth);
  m.key_rows = take(m.padded * wide);
  m.d_k = take(m.padded * wide), m.d_v = take(m.padded * wide);
  m.q = take(attention_rows * wide), m.d_o = take(attention_rows * wide);
  m.d_q = take(attention_rows * wide);
  m.p = take(attention_rows * attention_keys), m.d_p = take(attention_rows * attention_keys);
  return m;
}

/// The keys as rows and as panels, the values as panels, and gradients of zero.
template <class T>
SHUNT_INLINE void read_keys(attention_backward_args<T> const& a, std::int64_t batch,
                            std::int64_t kv_head, backward_rows const& m) noexcept {
  std::int64_t const wide = a.wide, depth = a.head_dim;
  for (std::int64_t j = 0; j < a.length; ++j) {
    T const* const k = a.k + batch * a.k_batch + j * a.k_token + kv_head * a.k_head;
    T const* const v = a.v + batch * a.v_batch + j * a.v_token + kv_head * a.v_head;
    widen_row(k, depth, wide, 1.0f, m.key_rows + j * wide);
    std::int64_t const at = j / attention_keys * attention_keys * depth + j % attention_keys;
    for (std::int64_t d = 0; d < depth; ++d) {
      m.keys[at + d * attention_keys] = widen(k[d]);
      m.values[at + d * attention_keys] = widen(v[d]);
    }
    for (std::int64_t i = 0; i < wide; i += lanes) {
      store(m.d_k + j * wide + i, vf{});
      store(m.d_v + j * wide + i, vf{});
    }
  }
  for (std::int64_t j = a.length; j < m.padded; ++j) {  // never seen, but multiplied
    std::int64_t const at = j / attention_keys * attention_keys * depth + j % attention_keys;
    for (std::int64_t d = 0; d < depth; ++d) {
      m.keys[at + d * attention_keys] = 0.0f;
      m.values[at + d * attention_keys] = 0.0f;
    }
  }
}

/// The scaled queries of a block of rows, with the gradients of their outputs.
template <class T>
SHUNT_INLINE void read_queries(attention_backward_args<T> const& a, std::int64_t batch,
                               std::int64_t kv_head, std::int64_t first, std::int64_t rows,
                               backward_rows& m) noexcept {
  std::int64_t const wide = a.wide, depth = a.head_dim;
  for (std::int64_t r = 0; r < rows; ++r) {
    std::int64_t const token = (first + r) / a.group;
    std::int64_t const head = kv_head * a.group + (first + r) % a.group;
    T const* const query = a.q + batch * a.q_batch + token * a.q_token + head * a.q_head;
    T const* const gradient =
        a.d_out + batch * a.d_out_batch + token * a.d_out_token + head * a.d_out_head;
    T const* const out = a.out + batch * a.out_batch + token * a.out_token + head * a.out_head;
    widen_row(query, depth, wide, a.scale, m.q + r * wide);
    widen_row(gradient, depth, wide, 1.0f, m.d_o + r * wide);
    m.delta[r] = row_dot(gradient, out, depth);
    m.shift[r] =
        a.log_sum[batch * a.log_sum_batch + head * a.log_sum_head + token * a.log_sum_token];
  }
}

/// Scores and d_out · values become softmax weights p and their gradients p (d_out · values − delta).
SHUNT_INLINE void soften_backward(query_rows const& which, std::int64_t key,
                                  backward_rows const& m) noexcept {
  vf const numbers = lane_numbers();
  for (std::int64_t r = 0; r < which.rows; ++r) {
    vf const count = fill(static_cast<float>(which.seen(r, key)));
    for (int i = 0; i < attention_keys; i += lanes) {
      auto const seen = numbers + fill(static_cast<float>(i)) < count;
      float* const at = m.p + r * attention_keys + i;
      float* const d_at = m.d_p + r * attention_keys + i;
      vf const share = select(seen, exp(load(at) - fill(m.shift[r])), vf{});
      store(d_at, select(seen, share * (load(d_at) - fill(m.delta[r])), vf{}));
      store(at, share);
    }
  }
}

template <class T>
SHUNT_INLINE void write_query_gradients(attention_backward_args<T> const& a, std::int64_t batch,
                                        std::int64_t kv_head, std::int64_t first, std::int64_t rows,
                                        backward_rows const& m) noexcept {
  for (std::int64_t r = 0; r < rows; ++r) {
    std::int64_t const token = (first + r) / a.group;
    std::int64_t const head = kv_head * a.group + (first + r) % a.group;
    T* const to = a.d_q + batch * a.d_q_batch + token * a.d_q_token + head * a.d_q_head;
    for (std::int64_t i = 0; i < a.head_dim; i += lanes) {
      store_up_to(to + i, load(m.d_q + r * a.wide + i) * fill(a.scale), a.head_dim - i);
    }
  }
}
template <class T>
SHUNT_INLINE void write_key_gradients(attention_backward_args<T> const& a, std::int64_t batch,
                                      std::int64_t kv_head, backward_rows const& m) noexcept {
  for (std::int64_t j = 0; j < a.length; ++j) {
    T* const to_k = a.d_k + batch * a.d_k_batch + j * a.d_k_token + kv_head * a.d_k_head;
    T* const to_v = a.d_v + batch * a.d_v_batch + j * a.d_v_token + kv_head * a.d_v_head;
    for (std::int64_t i = 0; i < a.head_dim; i += lanes) {
      store_up_to(to_k + i, load(m.d_k + j * a.wide + i), a.head_dim - i);
      store_up_to(to_v + i, load(m.d_v + j * a.wide + i), a.head_dim - i);
    }
  }
}

/// All gradients of one sequence and key/value head: blocks of query rows in order, each over the
/// keys from the first on.
template <class T>
void attend_backward(attention_backward_args<T> const& a, std::int64_t batch, std::int64_t kv_head,
                     float* scratch) noexcept {
  std::int64_t const wide = a.wide, depth = a.head_dim, all = a.length * a.group;
  backward_rows m = backward_rows_in(scratch, a);
  read_keys(a, batch, kv_head, m);
  for (std::int64_t first = 0; first < all; first += attention_rows) {
    std::int64_t const left = all - first, rows = left < attention_rows ? left : attention_rows;
    query_rows const which(first, rows, a.group, 0);
    read_queries(a, batch, kv_head, first, rows, m);
    for (std::int64_t key = 0; which.seen(rows - 1, key) > 0; key += attention_keys) {
      scores(which, key, m.q, wide, m.keys + key * depth, depth, m.p);
      scores(which, key, m.d_o, wide, m.values + key * depth, depth, m.d_p);
      soften_backward(which, key, m);
      spread(which, key, m.p, m.d_o, wide, m.d_v + key * wide);
      spread(which, key, m.d_p, m.q, wide, m.d_k + key * wide);
      gather(which, key, m.d_p, m.key_rows + key * wide, wide, m.d_q, key > 0);
    }
    write_query_gradients(a, batch, kv_head, first, rows, m);
  }
  write_key_gradients(a, batch, kv_head, m);
}
