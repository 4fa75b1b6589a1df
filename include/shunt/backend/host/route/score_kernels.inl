// No include guard: part of route/kernels.inl. Reading logits, and what they become.

/// A row of logits as float, jittered, padded with -Inf. NaN reads as -Inf, +Inf as the largest
/// finite float; both are counted.
template <class T>
SHUNT_INLINE void read_logits(T const* row, route_rule const& r, route_buffers const& b,
                              route_facts& f) noexcept {
  float const infinity = __builtin_inff();
  vf const inf = fill(infinity), none = fill(-infinity), most = fill(0x1.fffffep127f);
  vf const width = fill(2.0f * r.jitter), least = fill(1.0f - r.jitter);
  strip peak = strip_of(-infinity);
  vu bad = {};
  std::int64_t const n = r.experts;
  for (std::int64_t at = 0; at < r.padded; at += lanes) {
    std::int64_t const left = n - at;
    vf x = left >= lanes ? load(row + at) : left > 0 ? load_first(row + at, left, -infinity) : none;
    if (r.jitter > 0.0f) x = x * fma(load(b.noise + at), width, least);
    bad = bad + ((vu)(x < inf) + 1u);
    x = select(x < inf, x, select(x == inf, most, none));
    std::int64_t const i = at / lanes % strip_vectors;
    peak.part[i] = larger_lanes{}(peak.part[i], x);
    store(b.z + at, x);
  }
  f.peak = max_of(peak);
  unsigned count = 0;
  for (int i = 0; i < lanes; ++i) count += bad[i];
  f.non_finite = static_cast<std::int32_t>(count);
}

// Functions over a row that several callers use, some of them twice, are not inlined: they would be most of
// what the router costs to compile.

/// exp(z - peak) of every expert into s, and their sum.
__attribute__((noinline)) inline float exponentials(float const* z, float* s, std::int64_t padded,
                                                    float peak) noexcept {
  strip total = strip_of(0.0f);
  for (std::int64_t at = 0; at < padded; at += lanes) {
    vf const e = exp(load(z + at) - fill(peak));
    std::int64_t const i = at / lanes % strip_vectors;
    total.part[i] = total.part[i] + e;
    store(s + at, e);
  }
  return sum_of(total);
}

#define SHUNT_MATH SHUNT_INLINE
#include "shunt/route/score_functions.inl"
#undef SHUNT_MATH

/// The score of logits z; a masked expert (-Inf) scores 0.
template <score_kind Kind> SHUNT_INLINE vf score_of(vf z, vf peak, vf total) noexcept {
  if constexpr (Kind == score_kind::softmax) {
    return exp(z - peak) / total;
  } else if constexpr (Kind == score_kind::sigmoid) {
    return sigmoid(z);
  } else if constexpr (Kind == score_kind::sqrt_softplus) {
    return sqrt_softplus(z);
  } else {
    return select(z > fill(-__builtin_inff()), z, fill(0.0f));
  }
}

/// Scores of `padded` logits into s; their sum.
template <score_kind Kind>
__attribute__((noinline)) float all_scores(float const* z, float* s, std::int64_t padded,
                                           float peak, float total) noexcept {
  strip sum = strip_of(0.0f);
  vf const top = fill(peak), all = fill(total);
  for (std::int64_t at = 0; at < padded; at += lanes) {
    vf const x = score_of<Kind>(load(z + at), top, all);
    std::int64_t const i = at / lanes % strip_vectors;
    sum.part[i] = sum.part[i] + x;
    store(s + at, x);
  }
  return sum_of(sum);
}

SHUNT_INLINE float all_scores(score_kind kind, float const* z, float* s, std::int64_t padded,
                              float peak, float total) noexcept {
  switch (kind) {
    case score_kind::softmax: return all_scores<score_kind::softmax>(z, s, padded, peak, total);
    case score_kind::sigmoid: return all_scores<score_kind::sigmoid>(z, s, padded, peak, total);
    case score_kind::sqrt_softplus:
      return all_scores<score_kind::sqrt_softplus>(z, s, padded, peak, total);
    case score_kind::logits: break;
  }
  return all_scores<score_kind::logits>(z, s, padded, peak, total);
}

/// Scores over those of the logit q (see score_functions.inl) into s; their sum. Sigmoid and
/// √softplus only.
template <score_kind Kind>
__attribute__((noinline)) float shifted_scores(float const* z, float* s, std::int64_t padded,
                                               float q) noexcept {
  strip sum = strip_of(0.0f);
  vf const shift = fill(q);
  for (std::int64_t at = 0; at < padded; at += lanes) {
    vf x = load(z + at);
    if constexpr (Kind == score_kind::sigmoid) {
      x = shifted_sigmoid(x, shift);
    } else {
      x = shifted_sqrt_softplus(x, shift);
    }
    std::int64_t const i = at / lanes % strip_vectors;
    sum.part[i] = sum.part[i] + x;
    store(s + at, x);
  }
  return sum_of(sum);
}

SHUNT_INLINE float shifted_scores(score_kind kind, float const* z, float* s, std::int64_t padded,
                                  float q) noexcept {
  constexpr auto sigmoids = score_kind::sigmoid, roots = score_kind::sqrt_softplus;
  if (q == 0.0f) {
    return kind == sigmoids ? all_scores<sigmoids>(z, s, padded, 0.0f, 1.0f)
                            : all_scores<roots>(z, s, padded, 0.0f, 1.0f);
  }
  return kind == sigmoids ? shifted_scores<sigmoids>(z, s, padded, q)
                          : shifted_scores<roots>(z, s, padded, q);
}

/// Each expert's probability: s over the sum of the row. Into `sums`, added to what is there.
SHUNT_INLINE void add_shares(float const* s, float sum, float* sums, std::int64_t padded) noexcept {
  for (std::int64_t at = 0; at < padded; at += lanes) {
    store(sums + at, load(sums + at) + load(s + at) / fill(sum));
  }
}
