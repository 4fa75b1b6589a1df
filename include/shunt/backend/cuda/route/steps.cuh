#pragma once
// Part of route.cuh: what becomes of one token's row, step by step as on the host, on the same 32
// partial sums.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

using shunt::detail::route_rule;

/// What one warp works on: rows of E and of K elements.
template <class Floats, class Choices, class Ids> struct route_rows {
  Floats z, s, key;
  Choices chosen, gate, slope;
  Ids id;
};

/// Warps of a block with such rows.
template <int Strips>
inline constexpr int warps_with =
    Strips == shared_strips ? shared_warps : tuning::threads / warp_lanes;

/// The dynamic shared memory of a kernel with rows there: three of each warp's, then what it likes.
__device__ inline float* rows_of_block() {
  extern __shared__ float shared_rows[];
  return shared_rows;
}

/// f(rows) with the rows of this warp: of so many strips in registers, of `shared_strips` at most in
/// shared memory, or, for 0, in its scratch.
template <int Strips, class F> __device__ void with_rows(route_job const& job, F const& f) {
  if constexpr (Strips == shared_strips) {
    offset_t const padded = job.rule.padded;
    int const strips = static_cast<int>(padded / warp_lanes);
    float* const e = rows_of_block() + threadIdx.x / warp_lanes * 3 * padded;
    route_rows<memory_row<float>, register_row<float, 1>, register_row<index_t, 1>> r{
        {e, strips}, {e + padded, strips}, {e + 2 * padded, strips}, {}, {}, {}, {}};
    f(r);
  } else if constexpr (Strips > 0) {
    route_rows<register_row<float, Strips>, register_row<float, 1>, register_row<index_t, 1>> r;
    f(r);
  } else {
    offset_t const padded = job.rule.padded, padded_k = job.rule.padded_k;
    int const strips = static_cast<int>(padded / warp_lanes);
    int const strips_k = static_cast<int>(padded_k / warp_lanes);
    float* const e = job.scratch.rows + grid_warp() * (3 * padded + 3 * padded_k);
    float* const k = e + 3 * padded;
    route_rows<memory_row<float>, memory_row<float>, memory_row<index_t>> r{
        {e, strips},
        {e + padded, strips},
        {e + 2 * padded, strips},
        {k, strips_k},
        {k + padded_k, strips_k},
        {k + 2 * padded_k, strips_k},
        {job.scratch.ids + grid_warp() * padded_k, strips_k}};
    f(r);
  }
}

__device__ inline float logit_at(route_job const& job, offset_t t, index_t e) {
  offset_t const at = t * job.stride + e;
  switch (job.type) {
    case logit_type::f32: return static_cast<float const*>(job.logits)[at];
    case logit_type::bf16: return to_float(static_cast<bf16 const*>(job.logits)[at]);
    case logit_type::fp16: break;
  }
  return to_float(static_cast<fp16 const*>(job.logits)[at]);
}

/// What a logit is multiplied by, where there is jitter.
__device__ inline float jitter_of(route_job const& job, offset_t t, index_t e) {
  auto const& draws = job.with.draws;
  std::uint64_t const position = draws.first_token_of(job.options) + static_cast<std::uint64_t>(t);
  auto const words =
      random_at(draws.seed_of(job.options), position, 1 + static_cast<std::uint64_t>(e) / 4);
  std::uint32_t word = words.word[0];
#pragma unroll
  for (int w = 1; w < 4; ++w) {
    std::uint32_t const here = words.word[w];
    if (e % 4 == w) word = here;
  }
  return math::fma(uniform_of(word), 2.0f * job.rule.jitter, 1.0f - job.rule.jitter);
}

/// Reads, jitters and sanitises the row; returns its peak and counts what was not finite. Jitter:
/// false where there is none to be had (experts that choose), which saves its registers.
template <bool Jitter = true, class Rows>
__device__ float read_logits(route_job const& job, offset_t t, Rows& r, int& non_finite) {
  float const infinity = __builtin_inff();
  float peak = -infinity;
  int bad = 0;
  for_strips(r.z, [&](int i) {
    index_t const e = element_of(i);
    float x = -infinity;
    if (e < job.rule.experts) {
      x = logit_at(job, t, e);
      if (Jitter && job.rule.jitter > 0.0f) x = __fmul_rn(x, jitter_of(job, t, e));
      bad += x < infinity ? 0 : 1;
      x = x < infinity ? x : x == infinity ? 0x1.fffffep127f : -infinity;
    }
    peak = peak < x ? x : peak;
    r.z[i] = x;
  });
  non_finite = __reduce_add_sync(all_lanes, bad);
  return warp_largest(peak);
}

/// to = exp(from - peak); their sum.
template <class Row> __device__ float exponentials(Row& from, Row& to, float peak) {
  float part = 0.0f;
  for_strips(from, [&](int i) {
    float const e = math::exp(__fadd_rn(from[i], -peak));
    part = __fadd_rn(part, e);
    to[i] = e;
  });
  return warp_sum(part);
}

__device__ inline float score_of(score_kind kind, float z, float peak, float total) {
  switch (kind) {
    case score_kind::softmax: return __fdiv_rn(math::exp(__fadd_rn(z, -peak)), total);
    case score_kind::sigmoid: return math::sigmoid(z);
    case score_kind::sqrt_softplus: return math::sqrt_softplus(z);
    case score_kind::logits: break;
  }
  return z > -__builtin_inff() ? z : 0.0f;
}

/// Scores of the logits in `from`; their sum.
template <class Row>
__device__ float all_scores(score_kind kind, Row& from, Row& to, float peak, float total) {
  float part = 0.0f;
  for_strips(from, [&](int i) {
    float const s = score_of(kind, from[i], peak, total);
    part = __fadd_rn(part, s);
    to[i] = s;
  });
  return warp_sum(part);
}

/// Sigmoid's or √softplus's scores over those of the logit q (see score_functions.inl); their sum.
template <class Row> __device__ float shifted_scores(score_kind kind, Row& from, Row& to, float q) {
  if (q == 0.0f) return all_scores(kind, from, to, 0.0f, 1.0f);
  bool const sigmoids = kind == score_kind::sigmoid;
  float part = 0.0f;
  for_strips(from, [&](int i) {
    float const z = from[i];
    float const s = sigmoids ? math::shifted_sigmoid(z, q) : math::shifted_sqrt_softplus(z, q);
    part = __fadd_rn(part, s);
    to[i] = s;
  });
  return warp_sum(part);
}

/// Every score into r.s; what importance divides them by. A softmax's exponentials stand there, and
/// sum to `total`.
template <class Rows>
__device__ float make_scores(route_rule const& rule, Rows& r, float peak, float total) {
  if (rule.score != score_kind::softmax) return all_scores(rule.score, r.z, r.s, peak, total);
  for_strips(r.s, [&](int i) { r.s[i] = __fdiv_rn(r.s[i], total); });
  return 1.0f;
}

/// Each expert's probability to where the block sums them.
template <class Row> __device__ void stage_shares(float* staged, Row& s, float sum) {
  for_strips(s, [&](int i) { staged[element_of(i)] = __fdiv_rn(s[i], sum); });
}
template <class Row> __device__ void stage_nothing(float* staged, Row const& like) {
  for_strips(like, [&](int i) { staged[element_of(i)] = 0.0f; });
}

template <class Rows> __device__ void make_keys(route_rule const& rule, Rows& r) {
  float const none = -__builtin_inff();
  bool const by_score = rule.choose_by_score && rule.score != score_kind::logits;
  for_strips(r.z, [&](int i) {
    float const logit = r.z[i];  // a value: a choice of places stays in memory
    float key = logit;
    if (by_score) key = r.s[i];
    index_t const e = element_of(i);
    if (rule.choice_bias != nullptr && e < rule.experts) key = __fadd_rn(key, rule.choice_bias[e]);
    r.key[i] = key == key && logit > none ? key : none;
  });
}

/// Masks the keys of every group but the best. The groups' ranks take the place of the scores.
template <class Rows> __device__ void keep_best_groups(route_rule const& rule, Rows& r) {
  float const none = -__builtin_inff();
  auto const size = static_cast<index_t>(rule.experts / rule.groups);
  for_strips(r.s, [&](int i) { r.s[i] = none; });
  for (index_t g = 0; g < rule.groups; ++g) {
    // The group's two best, each of its own element.
    float first = none, second = none;
    for_strips(r.key, [&](int i) {
      index_t const e = element_of(i);
      float const x = e / size == g && e < rule.experts ? r.key[i] : none;
      float const less = first < x ? first : x;
      second = second < less ? less : second;
      first = first < x ? x : first;
    });
    float const best = warp_largest(first);
    float rank = best;
    if (rule.group_by == group_rule::sum_of_two_best && best > none) {
      unsigned const holders = __ballot_sync(all_lanes, first == best);
      bool const holder = lane_of_thread() == __ffs(static_cast<int>(holders)) - 1;
      float const next = warp_largest(holder ? second : first);
      rank = next > none ? __fadd_rn(best, next) : best;
    }
    r.s.put(g, rank);
  }
  // The best become NaN, which no rank is and which no comparison finds again.
  for (index_t i = 0; i < rule.top_groups; ++i) {
    best_place const best = largest_of(r.s);
    if (!(best.value > none)) break;
    r.s.put(best.at, __builtin_nanf(""));
  }
  for (index_t g = 0; g < rule.groups; ++g) {
    float const rank = r.s.pick(g);
    if (rank != rank) continue;
    for_strips(r.key, [&](int i) {
      if (element_of(i) / size == g) r.key[i] = none;
    });
  }
}

/// The best experts' ids into r.id. With groups the scores are lost.
template <class Rows> __device__ void choose(route_rule const& rule, Rows& r) {
  make_keys(rule, r);
  if (rule.groups > 1) keep_best_groups(rule, r);
  for_strips(r.id, [&](int i) { r.id[i] = -1; });
  take_best(r.key, static_cast<index_t>(rule.top_k), [&](index_t k, index_t e) { r.id.put(k, e); });
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
