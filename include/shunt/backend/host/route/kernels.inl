// No include guard: the router's kernels, once in each instruction-set region. A token's row goes
// through them alone, so no token's bits depend on another's.
#include "shunt/backend/host/route/score_kernels.inl"
// (one after the other)
#include "shunt/backend/host/route/choose_kernels.inl"

/// What the choice compares: the score plus the bias, or, where there is no bias and no sum of
/// scores, the logit. NaN (a bias's) and masked experts can never be chosen.
SHUNT_INLINE void make_keys(route_rule const& r, route_buffers const& b) noexcept {
  vf const none = fill(-__builtin_inff());
  float const* const from = r.choose_by_score && r.score != score_kind::logits ? b.s : b.z;
  for (std::int64_t at = 0; at < r.padded; at += lanes) {
    vf key = load(from + at);
    if (r.choice_bias != nullptr) {
      std::int64_t const left = r.experts - at;
      if (left >= lanes) {
        key = key + load(r.choice_bias + at);
      } else if (left > 0) {
        key = key + load_first(r.choice_bias + at, left);
      }
    }
    key = select(key == key, key, none);
    store(b.key + at, select(load(b.z + at) > none, key, none));
  }
}

/// Lanes that rows of K choices are taken to: to whole vectors, not strips. Zeros, which sums do not
/// see, would stand behind.
SHUNT_INLINE std::int64_t choice_lanes(route_rule const& r) noexcept {
  return (r.top_k + lanes - 1) / lanes * lanes;
}

/// Scores of the chosen, from their logits: the same bits as in the dense row.
SHUNT_INLINE void chosen_scores(route_rule const& r, route_buffers const& b, float* s,
                                route_facts const& f) noexcept {
  all_scores(r.score, b.chosen, s, choice_lanes(r), f.peak, f.total);
}

/// v -> scale * exp(v - max) / sum over K slots; 0 where v is -Inf.
__attribute__((noinline)) inline void soften(float const* v, float* gate, std::int64_t padded,
                                             float scale) noexcept {
  strip top = strip_of(-__builtin_inff());
  for_strips(v, padded, 0.0f, [&](int i, vf x) { top.part[i] = larger_lanes{}(top.part[i], x); });
  float const peak = max_of(top);
  if (!(peak > -__builtin_inff())) {
    for (std::int64_t k = 0; k < padded; ++k) gate[k] = 0.0f;
    return;
  }
  float const total = exponentials(v, gate, padded, peak);
  for (std::int64_t at = 0; at < padded; at += lanes) {
    store(gate + at, load(gate + at) / fill(total) * fill(scale));
  }
}

/// scale · s / (Σ s + epsilon) of the chosen, from scores over that of their largest logit, so that
/// neither the sum nor a quotient underflows. Returns epsilon / (Σ s + epsilon).
SHUNT_INLINE float renormalize(route_rule const& r, route_buffers const& b, float scale,
                               route_facts const& f) noexcept {
  std::int64_t const padded = choice_lanes(r);
  strip top = strip_of(-__builtin_inff());
  for_strips(b.chosen, padded, 0.0f,
             [&](int i, vf x) { top.part[i] = larger_lanes{}(top.part[i], x); });
  float const peak = max_of(top);
  if (!(peak > -__builtin_inff())) {
    for (std::int64_t k = 0; k < padded; ++k) b.gate[k] = 0.0f;
    return 0.0f;
  }
  bool const softmax = r.score == score_kind::softmax;
  float const q = softmax ? peak - f.peak : peak < 0.0f ? peak : 0.0f;
  float const sum = softmax
                        ? all_scores<score_kind::softmax>(b.chosen, b.gate, padded, peak, f.total)
                        : shifted_scores(r.score, b.chosen, b.gate, padded, q);
  if (q == 0.0f || r.epsilon == 0.0f) {
    float const all = sum + r.epsilon;
    for (std::int64_t at = 0; at < padded; at += lanes) {
      store(b.gate + at, load(b.gate + at) / fill(all) * fill(scale));
    }
    return r.epsilon / all;
  }
  vf const epsilon = fill(r.epsilon);
  vf const root = exp(fill(q) * fill(r.score == score_kind::sqrt_softplus ? 0.25f : 0.5f));
  vf const factor = renormalizing_factor(fill(sum), epsilon, root);
  for (std::int64_t at = 0; at < padded; at += lanes) {
    store(b.gate + at, load(b.gate + at) * factor * fill(scale));
  }
  return (epsilon / fma(fill(sum), root * root, epsilon))[0];
}

/// Gates of the chosen logits b.chosen, into b.gate, without the scale where `scale` is 1. Returns
/// the share of epsilon in what renormalized scores were divided by, 0 for other gates.
__attribute__((noinline)) inline float make_gates(route_rule const& r, route_buffers const& b,
                                                  float scale, route_facts const& f) noexcept {
  std::int64_t const padded = choice_lanes(r);
  if (r.chosen_logits) {
    soften(b.chosen, b.gate, padded, scale);
    return 0.0f;
  }
  bool const renormalized = r.gates == gate_kind::renormalized;
  if (renormalized && r.score != score_kind::logits) return renormalize(r, b, scale, f);
  chosen_scores(r, b, b.gate, f);
  if (r.gates == gate_kind::softmax_chosen) {
    vf const none = fill(-__builtin_inff());
    for (std::int64_t at = 0; at < padded; at += lanes) {
      store(b.gate + at, select(load(b.chosen + at) > none, load(b.gate + at), none));
    }
    soften(b.gate, b.gate, padded, scale);
    return 0.0f;
  }
  float sum = 1.0f;
  if (renormalized) sum = row_sum(b.gate, padded) + r.epsilon;
  for (std::int64_t at = 0; at < padded; at += lanes) {
    vf g = load(b.gate + at);
    if (renormalized) g = sum == 0.0f ? fill(0.0f) : g / fill(sum);
    store(b.gate + at, g * fill(scale));
  }
  return 0.0f;
}

/// Logits of the chosen; -Inf where there is none.
SHUNT_INLINE void gather_chosen(route_rule const& r, route_buffers const& b) noexcept {
  std::int64_t const padded = choice_lanes(r);
  for (std::int64_t k = 0; k < padded; ++k) {
    b.chosen[k] = k < r.top_k && b.id[k] >= 0 ? b.z[b.id[k]] : -__builtin_inff();
  }
}

/// The bin of each expert's required bias, cutoff - score; -1 for a masked expert.
SHUNT_INLINE void make_bins(route_rule const& r, route_buffers const& b, float cutoff) noexcept {
  vf const most = fill(static_cast<float>(r.bins - 1)), zero = fill(0.0f);
  for (std::int64_t at = 0; at < r.padded; at += lanes) {
    vf const required = fill(cutoff) - load(b.s + at);
    vf place = (required - fill(r.lowest)) * fill(r.bins_per_unit);
    place = select(place > zero, place, zero);
    place = select(place < most, place, most);
    place = select(load(b.z + at) > fill(-__builtin_inff()), place, fill(-1.0f));
    auto const bin = __builtin_convertvector(place, route_mask);
    __builtin_memcpy(b.bin + at, &bin, sizeof bin);
  }
}

/// One token: from its logits to ids and gates in b, with what the caller's sums need on the way.
/// With `forced` the ids stand in b.id already.
template <class T>
void route_row(route_rule const& r, T const* logits, route_buffers const& b, float* importance,
               bool forced, float draw, route_facts& f) noexcept {
  std::int64_t const padded = r.padded;
  float const none = -__builtin_inff();
  f = route_facts{};
  read_logits(logits, r, b, f);
  f.cutoff = none;
  if (!(f.peak > none)) {
    for (std::int64_t k = 0; k < r.top_k; ++k) {
      if (!forced) b.id[k] = -1;
      b.gate[k] = 0.0f;
    }
    return;
  }
  if (r.exponentials) {
    f.total = exponentials(b.z, b.s, padded, f.peak);
    if (r.z) f.z = f.peak + log(fill(f.total))[0];
    if (r.importance && r.score == score_kind::logits) {
      add_shares(b.s, f.total, importance, padded);
    }
  }
  if (r.score == score_kind::softmax && r.scores) {
    for (std::int64_t at = 0; at < padded; at += lanes) {
      store(b.s + at, load(b.s + at) / fill(f.total));
    }
    if (r.importance) add_shares(b.s, 1.0f, importance, padded);
  } else if (r.scores) {
    bool const shares = r.importance && r.score != score_kind::logits;
    float const q = f.peak < 0.0f ? f.peak : 0.0f;
    if (shares) add_shares(b.s, shifted_scores(r.score, b.z, b.s, padded, q), importance, padded);
    if (!shares || q != 0.0f) all_scores(r.score, b.z, b.s, padded, f.peak, f.total);
  }
  if (!forced) {
    make_keys(r, b);
    if (r.groups > 1) keep_best_groups(r, b);
    f.cutoff = take_best(b.key, padded, b.peaks, b.id, r.top_k);
    if (r.bins > 0 && f.cutoff > none) make_bins(r, b, f.cutoff);
  }
  gather_chosen(r, b);
  if (r.random_second && b.id[1] >= 0) {
    make_gates(r, b, 1.0f, f);
    f.second_dropped = !(2.0f * b.gate[1] > draw);
  }
  make_gates(r, b, r.scale, f);
  if (f.second_dropped) {
    b.id[1] = -1;
    b.gate[1] = 0.0f;
  }
}

#include "shunt/backend/host/route/backward_kernels.inl"
//
#if defined(SHUNT_ONCE)
#include "shunt/backend/host/route/once.inl"
#endif
