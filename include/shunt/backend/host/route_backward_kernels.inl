// No include guard: part of route_kernels.inl. From the gates' gradient to the logits'.

/// ds/dz of a score.
template <score_kind Kind> SHUNT_LANES vf score_slope(vf z, vf s) noexcept {
  if constexpr (Kind == score_kind::sigmoid) {
    return sigmoid_slope(z);
  } else {
    return sqrt_softplus_slope(z, s);
  }
}

template <score_kind Kind>
SHUNT_LANES void through_score(route_buffers const& b, std::int64_t padded) noexcept {
  for (std::int64_t at = 0; at < padded; at += lanes) {
    vf const slope = score_slope<Kind>(load(b.z + at), load(b.s + at));
    store(b.key + at, load(b.key + at) * slope);
  }
}

/// p * (d - <d, p>): through a softmax, added to `to` with one rounding.
SHUNT_LANES void through_softmax(float const* p, float const* d, float* to,
                                 std::int64_t padded) noexcept {
  vf const mean = fill(row_dot(d, p, padded));
  for (std::int64_t at = 0; at < padded; at += lanes) {
    store(to + at, fma(load(p + at), load(d + at) - mean, load(to + at)));
  }
}

/// Gradients to what the K gates were made of (chosen scores, or chosen logits), into b.slope.
SHUNT_LANES void gate_slopes(route_rule const& r, route_buffers const& b, float const* d_gate,
                             route_facts const& f) noexcept {
  for (std::int64_t k = 0; k < r.padded_k; ++k) {
    b.slope[k] = k < r.top_k && b.id[k] >= 0 ? d_gate[k] * r.scale : 0.0f;
  }
  if (r.gates == gate_kind::raw) return;
  make_gates(r, b, 1.0f, f);
  vf const mean = fill(row_dot(b.slope, b.gate, r.padded_k));
  if (r.gates == gate_kind::softmax_chosen || r.chosen_logits) {
    for (std::int64_t at = 0; at < r.padded_k; at += lanes) {
      store(b.slope + at, load(b.gate + at) * (load(b.slope + at) - mean));
    }
    return;
  }
  chosen_scores(r, b, b.gate, f);
  float const sum = row_sum(b.gate, r.padded_k) + r.epsilon;
  for (std::int64_t at = 0; at < r.padded_k; at += lanes) {
    vf const d = (load(b.slope + at) - mean) / fill(sum);
    store(b.slope + at, sum == 0.0f ? fill(0.0f) : d);
  }
}

SHUNT_LANES void scatter_slopes(route_rule const& r, route_buffers const& b) noexcept {
  for (std::int64_t k = 0; k < r.top_k; ++k) {
    if (b.id[k] >= 0) b.key[b.id[k]] += b.slope[k];
  }
}

/// The importance's gradient b.load, taken back to the scores that were divided by their sum.
SHUNT_LANES void load_to_scores(route_rule const& r, route_buffers const& b, float sum) noexcept {
  if (r.score == score_kind::softmax) {
    for (std::int64_t at = 0; at < r.padded; at += lanes) {
      store(b.key + at, load(b.key + at) + load(b.load + at));
    }
  } else if (sum > 0.0f) {
    vf const mean = fill(row_dot(b.load, b.s, r.padded) / sum);
    for (std::int64_t at = 0; at < r.padded; at += lanes) {
      store(b.key + at, load(b.key + at) + (load(b.load + at) - mean) / fill(sum));
    }
  }
}

/// b.key, the gradient to every score, becomes that to every logit. b.s holds the scores.
SHUNT_LANES void scores_to_logits(route_rule const& r, route_buffers const& b,
                                  bool dense_softmax) noexcept {
  if (r.score == score_kind::sigmoid) {
    through_score<score_kind::sigmoid>(b, r.padded);
  } else if (r.score == score_kind::sqrt_softplus) {
    through_score<score_kind::sqrt_softplus>(b, r.padded);
  } else if (dense_softmax) {
    vf const mean = fill(row_dot(b.key, b.s, r.padded));
    for (std::int64_t at = 0; at < r.padded; at += lanes) {
      store(b.key + at, load(b.s + at) * (load(b.key + at) - mean));
    }
  }
}

/// b.key, rounded to the caller's type; nothing for a masked logit; the jitter's factor again.
template <class G>
SHUNT_LANES void write_logit_gradients(route_rule const& r, route_buffers const& b,
                                       G* d_logits) noexcept {
  vf const zero = fill(0.0f), none = fill(-__builtin_inff());
  vf const width = fill(2.0f * r.jitter), least = fill(1.0f - r.jitter);
  for (std::int64_t at = 0; at < r.experts; at += lanes) {
    vf d = select(load(b.z + at) > none, load(b.key + at), zero);
    if (r.jitter > 0.0f) d = d * fma(load(b.noise + at), width, least);
    std::int64_t const left = r.experts - at;
    if (left >= lanes) {
      store(d_logits + at, d);
    } else {
      store_first(d_logits + at, d, left);
    }
  }
}

/// One token: d_gate [K] of the slots b.id, with the importance's gradient in b.load (where
/// r.importance) and `d_z` (where r.z), to d_logits [E].
template <class T, class G>
void route_row_backward(route_rule const& r, T const* logits, route_buffers const& b,
                        float const* d_gate, float d_z, G* d_logits) noexcept {
  std::int64_t const padded = r.padded;
  route_facts f;
  read_logits(logits, r, b, f);
  bool const any = f.peak > -__builtin_inff();
  for (std::int64_t at = 0; at < padded; at += lanes) store(b.key + at, fill(0.0f));
  if (any) {
    bool const dense_softmax = r.score == score_kind::softmax && (r.importance || !r.chosen_logits);
    float sum = 0.0f;
    if (r.exponentials) {
      f.total = exponentials(b.z, b.group, padded, f.peak);
      for (std::int64_t at = 0; at < padded; at += lanes) {
        store(b.group + at, load(b.group + at) / fill(f.total));
      }
    }
    if (r.score == score_kind::softmax) {
      if (dense_softmax) {
        for (std::int64_t at = 0; at < padded; at += lanes) store(b.s + at, load(b.group + at));
      }
    } else {
      sum = all_scores(r.score, b.z, b.s, padded, f.peak, f.total);
    }
    gather_chosen(r, b);
    gate_slopes(r, b, d_gate, f);
    if (!r.chosen_logits) scatter_slopes(r, b);
    if (r.importance && r.score != score_kind::logits) load_to_scores(r, b, sum);

    scores_to_logits(r, b, dense_softmax);
    if (r.chosen_logits) scatter_slopes(r, b);
    if (r.importance && r.score == score_kind::logits) {
      through_softmax(b.group, b.load, b.key, padded);
    }
    if (r.z) {
      for (std::int64_t at = 0; at < padded; at += lanes) {
        store(b.key + at, fma(fill(d_z), load(b.group + at), load(b.key + at)));
      }
    }
  }
  write_logit_gradients(r, b, d_logits);
}

/// Expert choice: every score of one token into b.s, -Inf for a masked expert.
template <class T>
void route_row_scores(route_rule const& r, T const* logits, route_buffers const& b,
                      route_facts& f) noexcept {
  f = route_facts{};
  read_logits(logits, r, b, f);
  vf const none = fill(-__builtin_inff());
  if (f.peak > -__builtin_inff()) {
    if (r.score == score_kind::softmax) f.total = exponentials(b.z, b.s, r.padded, f.peak);
    all_scores(r.score, b.z, b.s, r.padded, f.peak, f.total);
  }
  for (std::int64_t at = 0; at < r.padded; at += lanes) {
    store(b.s + at, select(load(b.z + at) > none, load(b.s + at), none));
  }
}

/// Expert choice: d [E], the gradient to every score of one token, to its logits.
template <class T, class G>
void route_row_scores_backward(route_rule const& r, T const* logits, route_buffers const& b,
                               float const* d, G* d_logits) noexcept {
  route_facts f;
  read_logits(logits, r, b, f);
  for (std::int64_t e = 0; e < r.padded; ++e) b.key[e] = e < r.experts ? d[e] * r.scale : 0.0f;
  if (f.peak > -__builtin_inff()) {
    if (r.score == score_kind::softmax) f.total = exponentials(b.z, b.s, r.padded, f.peak);
    all_scores(r.score, b.z, b.s, r.padded, f.peak, f.total);
    scores_to_logits(r, b, r.score == score_kind::softmax);
  }
  write_logit_gradients(r, b, d_logits);
}

/// Expert choice: the best `count` of a column of scores (padded with -Inf), see take_best.
inline void choose_tokens(float* column, std::int64_t padded, float* peaks, index_t* id,
                          std::int64_t count) noexcept {
  take_best(column, padded, peaks, id, count);
}
