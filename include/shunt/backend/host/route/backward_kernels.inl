// No include guard: part of route/kernels.inl. From the gates' gradient to the logits'.

/// ds/dz of a score.
template <score_kind Kind> SHUNT_INLINE vf score_slope(vf z, vf s) noexcept {
  if constexpr (Kind == score_kind::sigmoid) {
    return sigmoid_slope(z);
  } else {
    return sqrt_softplus_slope(z, s);
  }
}

template <score_kind Kind>
SHUNT_INLINE void through_score(route_buffers const& b, std::int64_t padded) noexcept {
  for (std::int64_t at = 0; at < padded; at += lanes) {
    vf const slope = score_slope<Kind>(load(b.z + at), load(b.s + at));
    store(b.key + at, load(b.key + at) * slope);
  }
}

/// p * (d - <d, p>): through a softmax, added to `to` with one rounding.
SHUNT_INLINE void through_softmax(float const* p, float const* d, float* to,
                                  std::int64_t padded) noexcept {
  vf const mean = fill(row_dot(d, p, padded));
  for (std::int64_t at = 0; at < padded; at += lanes) {
    store(to + at, fma(load(p + at), load(d + at) - mean, load(to + at)));
  }
}

/// b.slope, times the slopes of the chosen scores: ds/dz, or, `of_log`, d log(s)/dz.
SHUNT_INLINE void through_chosen(route_rule const& r, route_buffers const& b,
                                 bool of_log) noexcept {
  bool const sigmoids = r.score == score_kind::sigmoid;
  if (!sigmoids && r.score != score_kind::sqrt_softplus) return;
  std::int64_t const padded = choice_lanes(r);
  for (std::int64_t at = 0; at < padded; at += lanes) {
    vf const z = load(b.chosen + at);
    vf slope;
    if (of_log) {
      slope = sigmoids ? sigmoid_log_slope(z) : sqrt_softplus_log_slope(z, softplus(z));
    } else {
      slope = sigmoids ? sigmoid_slope(z) : sqrt_softplus_slope(z, sqrt_softplus(z));
    }
    store(b.slope + at, load(b.slope + at) * slope);
  }
}

/// Gradients of the K gates into b.slope: to the chosen logits, or to the chosen scores of a softmax
/// that is not renormalized. Returns what a renormalized softmax's epsilon takes from the gradient of
/// every score; 0 elsewhere.
SHUNT_INLINE float gate_slopes(route_rule const& r, route_buffers const& b, float const* d_gate,
                               route_facts const& f) noexcept {
  std::int64_t const padded = choice_lanes(r);
  for (std::int64_t k = 0; k < padded; ++k) {
    b.slope[k] = k < r.top_k && b.id[k] >= 0 ? d_gate[k] * r.scale : 0.0f;
  }
  bool const renormalized = r.gates == gate_kind::renormalized;
  float rest = 0.0f;
  if (r.gates != gate_kind::raw) {
    float const share = make_gates(r, b, 1.0f, f);
    float const sum = row_dot(b.slope, b.gate, padded);
    vf const mean = fill(sum);
    if (renormalized && r.score == score_kind::logits) {
      chosen_scores(r, b, b.gate, f);
      float const all = row_sum(b.gate, padded) + r.epsilon;
      for (std::int64_t at = 0; at < padded; at += lanes) {
        vf const d = (load(b.slope + at) - mean) / fill(all);
        store(b.slope + at, all == 0.0f ? fill(0.0f) : d);
      }
      return 0.0f;
    }
    for (std::int64_t at = 0; at < padded; at += lanes) {
      store(b.slope + at, load(b.gate + at) * (load(b.slope + at) - mean));
    }
    // An fma, as it feeds an addition.
    if (r.score == score_kind::softmax && share > 0.0f)
      rest = fma(mean, fill(share), fill(0.0f))[0];
  }
  through_chosen(r, b, renormalized);
  return rest;
}

SHUNT_INLINE void scatter_slopes(route_rule const& r, route_buffers const& b) noexcept {
  for (std::int64_t k = 0; k < r.top_k; ++k) {
    if (b.id[k] >= 0) b.key[b.id[k]] += b.slope[k];
  }
}

/// The importance's gradient b.load, of scores over their sum, to the logits, into b.key. Shares and
/// slopes of logarithms: the sum may be too small to divide by.
template <score_kind Kind>
SHUNT_INLINE void load_to_logits(route_buffers const& b, std::int64_t padded, float peak) noexcept {
  float const q = peak < 0.0f ? peak : 0.0f;
  float const sum = shifted_scores(Kind, b.z, b.s, padded, q);
  vf const mean = fill(row_dot(b.load, b.s, padded) / sum), back = exp(fill(q) * fill(0.5f));
  for (std::int64_t at = 0; at < padded; at += lanes) {
    vf const s = load(b.s + at), share = s / fill(sum);
    vf slope;
    if constexpr (Kind == score_kind::sigmoid) {
      slope = sigmoid_log_slope(load(b.z + at));
    } else {
      vf const whole = s * back;
      slope = sqrt_softplus_log_slope(load(b.z + at), whole * whole);
    }
    store(b.key + at, share * (load(b.load + at) - mean) * slope);
  }
}

/// b.key, the gradient to every score of a softmax p less `rest`, becomes that to every logit.
SHUNT_INLINE void softmax_to_logits(route_buffers const& b, float const* p, std::int64_t padded,
                                    float rest) noexcept {
  vf const mean = fill(row_dot(b.key, p, padded) + rest);
  for (std::int64_t at = 0; at < padded; at += lanes) {
    store(b.key + at, load(p + at) * (load(b.key + at) - mean));
  }
}

/// b.key, the gradient to every score, becomes that to every logit. b.s holds the scores.
SHUNT_INLINE void scores_to_logits(route_rule const& r, route_buffers const& b) noexcept {
  switch (r.score) {
    case score_kind::softmax: return softmax_to_logits(b, b.s, r.padded, 0.0f);
    case score_kind::sigmoid: return through_score<score_kind::sigmoid>(b, r.padded);
    case score_kind::sqrt_softplus: return through_score<score_kind::sqrt_softplus>(b, r.padded);
    case score_kind::logits: break;
  }
}

/// The gradient of importance, b.load, and of the gates, b.slope, to the logits, into b.key, which
/// holds zeros. b.group holds the softmax where it is needed.
SHUNT_INLINE void gates_and_load_to_logits(route_rule const& r, route_buffers const& b, float rest,
                                           float peak) noexcept {
  bool const softmax = r.score == score_kind::softmax, logits = r.score == score_kind::logits;
  bool const to_scores = softmax && r.gates != gate_kind::renormalized;
  if (to_scores || logits) scatter_slopes(r, b);
  if (softmax && (r.importance || !r.chosen_logits)) {
    for (std::int64_t at = 0; r.importance && at < r.padded; at += lanes) {
      store(b.key + at, load(b.key + at) + load(b.load + at));
    }
    softmax_to_logits(b, b.group, r.padded, rest);
  } else if (r.importance && logits) {
    through_softmax(b.group, b.load, b.key, r.padded);
  } else if (r.importance && r.score == score_kind::sigmoid) {
    load_to_logits<score_kind::sigmoid>(b, r.padded, peak);
  } else if (r.importance && !softmax) {
    load_to_logits<score_kind::sqrt_softplus>(b, r.padded, peak);
  }
  if (!to_scores && !logits) scatter_slopes(r, b);
}

/// b.key, rounded to the caller's type; nothing for a masked logit; the jitter's factor again.
template <class G>
SHUNT_INLINE void write_logit_gradients(route_rule const& r, route_buffers const& b,
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
    if (r.exponentials) {
      f.total = exponentials(b.z, b.group, padded, f.peak);
      for (std::int64_t at = 0; at < padded; at += lanes) {
        store(b.group + at, load(b.group + at) / fill(f.total));
      }
    }
    gather_chosen(r, b);
    float const rest = gate_slopes(r, b, d_gate, f);
    gates_and_load_to_logits(r, b, rest, f.peak);
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
    scores_to_logits(r, b);
  }
  write_logit_gradients(r, b, d_logits);
}

/// Expert choice: the best `count` of a column of scores (padded with -Inf), see take_best.
inline void choose_tokens(float* column, std::int64_t padded, float* peaks, index_t* id,
                          std::int64_t count) noexcept {
  take_best(column, padded, peaks, id, count);
}
