#pragma once
// Part of route.cuh: the gates of one token's choice, step by step as on the host.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// Logits of the chosen; -Inf where there is none.
template <class Rows> __device__ void gather_chosen(route_rule const& rule, Rows& r) {
  for_strips(r.chosen, [&](int i) { r.chosen[i] = -__builtin_inff(); });
  for (index_t k = 0; k < rule.top_k; ++k) {
    index_t const e = r.id.pick(k);
    if (e >= 0) r.chosen.put(k, r.z.pick(e));
  }
}

/// gate = scale · softmax of v; 0 where v is -Inf.
template <class Row> __device__ void soften(Row& v, Row& gate, float scale) {
  float peak = -__builtin_inff();
  for_strips(v, [&](int i) { peak = peak < v[i] ? v[i] : peak; });
  peak = warp_largest(peak);
  if (!(peak > -__builtin_inff())) {
    for_strips(gate, [&](int i) { gate[i] = 0.0f; });
    return;
  }
  float const total = exponentials(v, gate, peak);
  for_strips(gate, [&](int i) { gate[i] = __fmul_rn(__fdiv_rn(gate[i], total), scale); });
}

/// scale · s / (Σ s + epsilon) of the chosen, from scores over that of their largest logit, so that
/// neither the sum nor a quotient underflows. Returns epsilon / (Σ s + epsilon).
template <class Rows>
__device__ float renormalize(route_rule const& rule, Rows& r, float scale, float peak,
                             float total) {
  float top = -__builtin_inff();
  for_strips(r.chosen, [&](int i) {
    float const z = r.chosen[i];
    top = top < z ? z : top;
  });
  top = warp_largest(top);
  if (!(top > -__builtin_inff())) {
    for_strips(r.gate, [&](int i) { r.gate[i] = 0.0f; });
    return 0.0f;
  }
  bool const softmax = rule.score == score_kind::softmax;
  float const q = softmax ? __fadd_rn(top, -peak) : top < 0.0f ? top : 0.0f;
  float const sum = softmax ? all_scores(rule.score, r.chosen, r.gate, top, total)
                            : shifted_scores(rule.score, r.chosen, r.gate, q);
  float const epsilon = rule.epsilon;
  if (q == 0.0f || epsilon == 0.0f) {
    float const all = __fadd_rn(sum, epsilon);
    for_strips(r.gate, [&](int i) { r.gate[i] = __fmul_rn(__fdiv_rn(r.gate[i], all), scale); });
    return __fdiv_rn(epsilon, all);
  }
  float const part = rule.score == score_kind::sqrt_softplus ? 0.25f : 0.5f;
  float const root = math::exp(__fmul_rn(q, part));
  float const factor = math::renormalizing_factor(sum, epsilon, root);
  for_strips(r.gate, [&](int i) { r.gate[i] = __fmul_rn(__fmul_rn(r.gate[i], factor), scale); });
  return __fdiv_rn(epsilon, __fmaf_rn(sum, __fmul_rn(root, root), epsilon));
}

/// Gates of the chosen logits into r.gate. Returns the share of epsilon in what renormalized scores
/// were divided by, 0 for other gates.
template <class Rows>
__device__ float make_gates(route_rule const& rule, Rows& r, float scale, float peak, float total) {
  if (rule.chosen_logits) return soften(r.chosen, r.gate, scale), 0.0f;
  bool const renormalized = rule.gates == gate_kind::renormalized;
  if (renormalized && rule.score != score_kind::logits) {
    return renormalize(rule, r, scale, peak, total);
  }
  float sum = all_scores(rule.score, r.chosen, r.gate, peak, total);
  if (rule.gates == gate_kind::softmax_chosen) {
    float const none = -__builtin_inff();
    for_strips(r.gate, [&](int i) { r.gate[i] = r.chosen[i] > none ? r.gate[i] : none; });
    return soften(r.gate, r.gate, scale), 0.0f;
  }
  sum = __fadd_rn(sum, rule.epsilon);
  for_strips(r.gate, [&](int i) {
    float g = r.gate[i];
    if (renormalized) g = sum == 0.0f ? 0.0f : __fdiv_rn(g, sum);
    r.gate[i] = __fmul_rn(g, scale);
  });
  return 0.0f;
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
