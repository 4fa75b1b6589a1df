#pragma once
#include "shunt/backend/cuda/route/forward.cuh"

// From the gates' gradient to the logits': a warp has one token, a lane one of the 32 partial sums. The
// steps are those of the host's route_row_backward.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// Where gradients of logits go.
struct gradient_rows {
  void* data;
  offset_t stride;
  logit_type type;
};

struct route_backward_job {
  route_job row;      // logits, options, inputs, scratch; the rule without the choice
  route_rule choice;  // that of the choice, without the draw
  view<index_t const, 2, space::device> expert;
  route_gradients<space::device> d;
  gradient_rows to;
};

__device__ inline void put_gradient(gradient_rows const& to, offset_t t, index_t e, float x) {
  offset_t const at = t * to.stride + e;
  switch (to.type) {
    case logit_type::f32: static_cast<float*>(to.data)[at] = x; return;
    case logit_type::bf16: static_cast<bf16*>(to.data)[at] = from_float<bf16>(x); return;
    case logit_type::fp16: static_cast<fp16*>(to.data)[at] = from_float<fp16>(x); return;
  }
}

/// r.key, rounded to the caller's type; nothing for a masked logit; the jitter's factor again.
template <bool Jitter = true, class Rows>
__device__ void write_gradients(route_job const& job, gradient_rows const& to, offset_t t,
                                Rows& r) {
  for_strips(r.key, [&](int i) {
    index_t const e = element_of(i);
    if (e >= job.rule.experts) return;
    float const key = r.key[i];
    float d = r.z[i] > -__builtin_inff() ? key : 0.0f;
    if (Jitter && job.rule.jitter > 0.0f) d = __fmul_rn(d, jitter_of(job, t, e));
    put_gradient(to, t, e, d);
  });
}
__device__ inline void write_no_gradients(route_job const& job, gradient_rows const& to,
                                          offset_t t) {
  for (index_t e = lane_of_thread(); e < job.rule.experts; e += warp_lanes) {
    put_gradient(to, t, e, 0.0f);
  }
}

/// Σ a(strip) · b(strip) of a row like `like`.
template <class Row, class A, class B>
__device__ float dot_of(Row const& like, A const& a, B const& b) {
  float part = 0.0f;
  for_strips(like, [&](int i) { part = __fmaf_rn(a(i), b(i), part); });
  return warp_sum(part);
}

/// r.slope, times the slopes of the chosen scores: ds/dz, or, `of_log`, d log(s)/dz.
template <class Rows> __device__ void through_chosen(route_rule const& rule, Rows& r, bool of_log) {
  bool const sigmoids = rule.score == score_kind::sigmoid;
  if (!sigmoids && rule.score != score_kind::sqrt_softplus) return;
  for_strips(r.slope, [&](int i) {
    float const z = r.chosen[i];
    float slope = 0.0f;
    if (of_log) {
      slope = sigmoids ? math::sigmoid_log_slope(z)
                       : math::sqrt_softplus_log_slope(z, math::softplus(z));
    } else {
      slope =
          sigmoids ? math::sigmoid_slope(z) : math::sqrt_softplus_slope(z, math::sqrt_softplus(z));
    }
    r.slope[i] = __fmul_rn(r.slope[i], slope);
  });
}

/// Gradients of the K gates into r.slope, where scale · d_gate stands: to the chosen logits, or to the
/// chosen scores of a softmax that is not renormalized. Returns what a renormalized softmax's epsilon
/// takes from the gradient of every score; 0 elsewhere.
template <class Rows>
__device__ float gate_slopes(route_rule const& rule, Rows& r, float peak, float total) {
  bool const renormalized = rule.gates == gate_kind::renormalized;
  float rest = 0.0f;
  if (rule.gates != gate_kind::raw) {
    float const share = make_gates(rule, r, 1.0f, peak, total);
    float const mean =
        dot_of(r.slope, [&](int i) { return r.slope[i]; }, [&](int i) { return r.gate[i]; });
    if (renormalized && rule.score == score_kind::logits) {
      float const sum =
          __fadd_rn(all_scores(rule.score, r.chosen, r.gate, peak, total), rule.epsilon);
      for_strips(r.slope, [&](int i) {
        float const d = __fdiv_rn(__fadd_rn(r.slope[i], -mean), sum);
        r.slope[i] = sum == 0.0f ? 0.0f : d;
      });
      return 0.0f;
    }
    for_strips(r.slope,
               [&](int i) { r.slope[i] = __fmul_rn(r.gate[i], __fadd_rn(r.slope[i], -mean)); });
    if (rule.score == score_kind::softmax && share > 0.0f) rest = __fmaf_rn(mean, share, 0.0f);
  }
  through_chosen(rule, r, renormalized);
  return rest;
}

template <class Rows> __device__ void scatter_slopes(route_rule const& rule, Rows& r) {
  for (index_t k = 0; k < rule.top_k; ++k) {
    index_t const chosen = r.id.pick(k);
    r.key.add(chosen, r.slope.pick(k));
  }
}

/// The importance's gradient, of scores over their sum, to the logits, into r.key. Shares and slopes
/// of logarithms: the sum may be too small to divide by. Sigmoid and √softplus only.
template <class Rows, class Load>
__device__ void load_to_logits(route_rule const& rule, Rows& r, float peak, Load const& load) {
  float const q = peak < 0.0f ? peak : 0.0f;
  float const sum = shifted_scores(rule.score, r.z, r.s, q);
  float const mean = __fdiv_rn(dot_of(r.s, load, [&](int i) { return r.s[i]; }), sum);
  float const back = math::exp(__fmul_rn(q, 0.5f));
  for_strips(r.key, [&](int i) {
    float const s = r.s[i], z = r.z[i], whole = __fmul_rn(s, back);
    float const slope = rule.score == score_kind::sigmoid
                            ? math::sigmoid_log_slope(z)
                            : math::sqrt_softplus_log_slope(z, __fmul_rn(whole, whole));
    r.key[i] = __fmul_rn(__fmul_rn(__fdiv_rn(s, sum), __fadd_rn(load(i), -mean)), slope);
  });
}

/// r.key, the gradient to every score of a softmax r.s less `rest`, becomes that to every logit.
template <class Rows> __device__ void softmax_to_logits(Rows& r, float rest) {
  float const dot = dot_of(r.key, [&](int i) { return r.key[i]; }, [&](int i) { return r.s[i]; });
  float const mean = __fadd_rn(dot, rest);
  for_strips(r.key, [&](int i) { r.key[i] = __fmul_rn(r.s[i], __fadd_rn(r.key[i], -mean)); });
}

/// r.key, the gradient to every score, becomes that to every logit. r.s holds the scores.
template <class Rows> __device__ void scores_to_logits(route_rule const& rule, Rows& r) {
  if (rule.score == score_kind::sigmoid) {
    for_strips(r.key, [&](int i) { r.key[i] = __fmul_rn(r.key[i], math::sigmoid_slope(r.z[i])); });
  } else if (rule.score == score_kind::sqrt_softplus) {
    for_strips(r.key, [&](int i) {
      r.key[i] = __fmul_rn(r.key[i], math::sqrt_softplus_slope(r.z[i], r.s[i]));
    });
  } else if (rule.score == score_kind::softmax) {
    softmax_to_logits(r, 0.0f);
  }
}

/// The chosen ids into r.id and scale · d_gate into r.slope. Where a draw left the second out it is
/// chosen again: the first one's share was taken against it.
template <class Rows>
__device__ void read_choice(route_backward_job const& job, offset_t t, Rows& r, float peak) {
  route_rule const& rule = job.row.rule;
  for_strips(r.id, [&](int i) {
    index_t const k = element_of(i);
    index_t const id = k < rule.top_k ? job.expert(t, k) : -1;
    r.id[i] = shunt::detail::is_wild(id, rule.experts) ? -1 : id;
  });
  bool const again = job.row.options.random_second && r.id.pick(1) < 0;
  if (again) {
    float total = 0.0f;
    if (job.choice.exponentials) total = exponentials(r.z, r.s, peak);
    if (job.choice.scores) make_scores(job.choice, r, peak, total);
    choose(job.choice, r);
  }
  for_strips(r.slope, [&](int i) {
    index_t const k = element_of(i);
    bool const here = k < rule.top_k && r.id[i] >= 0;
    float const d = here && !(again && k == 1) ? job.d.gate(t, k) : 0.0f;
    r.slope[i] = here ? __fmul_rn(d, rule.scale) : 0.0f;
  });
}

template <class Rows>
__device__ void token_backward(route_backward_job const& job, offset_t t, Rows& r) {
  route_rule const& rule = job.row.rule;
  if (job.row.with.valid && job.row.with.valid[t] == 0) {
    return write_no_gradients(job.row, job.to, t);
  }
  int non_finite = 0;
  float const peak = read_logits(job.row, t, r, non_finite);
  if (!(peak > -__builtin_inff())) return write_no_gradients(job.row, job.to, t);
  read_choice(job, t, r, peak);

  offset_t const sequence = job.d.sequence_importance ? t / job.row.blocks.length : 0;
  auto const load = [&](int i) {
    index_t const e = element_of(i);
    if (e >= rule.experts) return 0.0f;
    float const all = job.d.importance ? job.d.importance[e] : 0.0f;
    if (!job.d.sequence_importance) return all;
    return __fadd_rn(all, job.d.sequence_importance(sequence, e));
  };
  float const total = rule.exponentials ? exponentials(r.z, r.s, peak) : 0.0f;
  bool const softmax = rule.score == score_kind::softmax;
  auto const probability = [&](int i) -> float {
    if (softmax) return r.s[i];
    return __fdiv_rn(math::exp(__fadd_rn(r.z[i], -peak)), total);
  };
  bool const logits = rule.score == score_kind::logits;
  bool const to_scores = softmax && rule.gates != gate_kind::renormalized;
  if (softmax && rule.exponentials) make_scores(rule, r, peak, total);
  for_strips(r.key, [&](int i) { r.key[i] = 0.0f; });
  gather_chosen(rule, r);
  float const rest = gate_slopes(rule, r, peak, total);
  if (to_scores || logits) scatter_slopes(rule, r);
  if (softmax && (rule.importance || !rule.chosen_logits)) {
    if (rule.importance) for_strips(r.key, [&](int i) { r.key[i] = __fadd_rn(r.key[i], load(i)); });
    softmax_to_logits(r, rest);
  } else if (rule.importance && logits) {
    float const mean = dot_of(r.key, load, probability);
    for_strips(r.key, [&](int i) {
      r.key[i] = __fmaf_rn(probability(i), __fadd_rn(load(i), -mean), r.key[i]);
    });
  } else if (rule.importance && !softmax) {
    load_to_logits(rule, r, peak, load);
  }
  if (!to_scores && !logits) scatter_slopes(rule, r);
  if (rule.z) {
    float const d_z = job.d.z[t];
    for_strips(r.key, [&](int i) { r.key[i] = __fmaf_rn(d_z, probability(i), r.key[i]); });
  }
  write_gradients(job.row, job.to, t, r);
}

template <int Strips>
SHUNT_KERNEL void __launch_bounds__(tuning::threads, 1) route_gradients_of(route_backward_job job) {
  for (offset_t t = grid_warp(); t < job.expert.extent(0); t += grid_warps()) {
    with_rows<Strips>(job.row, [&](auto& r) { token_backward(job, t, r); });
  }
}

/// Launches a kernel whose warps have a token each.
template <int Strips, class Job>
status launch_tokens(on_cuda const& on, char const* who, void (*kernel)(Job), route_job const& row,
                     Job const& job) noexcept {
  constexpr int warps = warps_with<Strips>;
  offset_t const tokens = row.blocks.sequences * row.blocks.length;
  // Scratch is for as many blocks as route() has.
  offset_t const blocks = Strips > 0 ? (tokens + warps - 1) / warps : row.blocks.count();
  return launch_rows<Strips>(on, who, blocks, 3, kernel, row, job);
}

template <class T, class G>
status route_backward(on_cuda const& on,
                      shunt::detail::route_backward_call<T, G, space::device> const& c) noexcept {
  constexpr char const* who = "route_backward";
  offset_t const tokens = c.logits.extent(0), experts = c.logits.extent(1);
  offset_t const top_k = c.expert.extent(1);
  offset_t const sequences = c.d.sequence_importance ? c.d.sequence_importance.extent(0) : 1;
  arena<space::device> work = c.work;
  route_backward_job const job{
      .row = {.logits = c.logits.data(),
              .stride = c.logits.stride(0),
              .type = logit_type_of<T>,
              .out = {},
              .options = c.options,
              .with = c.with,
              .rule = shunt::detail::make_rule(c),
              .blocks = shunt::detail::token_blocks(tokens, sequences),
              .scratch = carve_route(work, {tokens, experts, top_k, sequences})},
      .choice = shunt::detail::make_choice_rule(c),
      .expert = c.expert,
      .d = c.d,
      .to = {c.d_logits.data(), c.d_logits.stride(0), logit_type_of<G>}};
  if (status bad = work.check(who); !bad.ok()) return bad;
  return with_strips(experts, top_k, [&](auto n) {
    return launch_tokens<n.value>(on, who, &route_gradients_of<n.value>, job.row, job);
  });
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

namespace shunt::detail {

template <> struct route_backward_backend<on_cuda> {
  template <class T, class G>
  static status run(on_cuda const& on, route_backward_call<T, G, space::device> const& c) noexcept {
    return cuda::route_backward(on, c);
  }
};

}  // namespace shunt::detail
