#pragma once
#include <type_traits>

#include "shunt/backend/host/nn/attention.hpp"
#include "shunt/core/check.hpp"
#include "shunt/core/concepts.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {

/// Options of attention and its backward: give both the same.
struct attention_options {
  float scale = 0.0f;  ///< of the scores; 0: 1 / sqrt(head width)
};

namespace detail {
inline float scale_of(attention_options const& options, offset_t head_dim) noexcept {
  if (options.scale != 0.0f || head_dim == 0) return options.scale;
  return 1.0f / __builtin_sqrtf(static_cast<float>(head_dim));
}

/// [B,S,heads,D] with D contiguous, of the extents of another.
template <class V>
status heads_like(char const* name, V v, offset_t batch, offset_t length, offset_t heads,
                  offset_t head_dim) noexcept {
  return first_of(check::rows(name, v), check::extent(name, 0, v.extent(0), batch, "sequences"),
                  check::extent(name, 1, v.extent(1), length, "tokens"),
                  check::extent(name, 2, v.extent(2), heads, "heads"),
                  check::extent(name, 3, v.extent(3), head_dim, "head width"));
}
inline status groups(char const* name, offset_t heads, offset_t kv_heads) noexcept {
  if (kv_heads > 0 && heads > 0 && heads % kv_heads == 0) return {};
  return status::fail(
      error::bad_shape,
      "%s: %lld heads and %lld key/value heads; the first must be a multiple of the "
      "second, both at least 1",
      name, static_cast<long long>(heads), static_cast<long long>(kv_heads));
}
}  // namespace detail

/// Scratch of attention() and of attention_backward(): on a host, for this policy's threads.
template <execution P>
[[nodiscard]] std::size_t attention_scratch_bytes(P const& on, attention_shape const& s) noexcept {
  return detail::attention_backend<P>::forward_bytes(on, s);
}
/// The same of attention_backward().
template <execution P>
[[nodiscard]] std::size_t attention_backward_scratch_bytes(P const& on,
                                                           attention_shape const& s) noexcept {
  return detail::attention_backend<P>::backward_bytes(on, s);
}

/// Causal attention: out_i = Σ_{j ≤ i} softmax_j(scale · q_i·k_j) v_j, each head for itself; heads
/// g·n … g·n + g − 1 share key/value head n. Blocked with an online softmax: no S × S matrix.
/// Shapes   q, out [B,S,heads,D] · k, v [B,S,kv_heads,D], any strides with D contiguous (parts of
///          one projection) · log_sum [B,heads,S] (log Σ e^score; optional, backward needs it)
/// Types    q, k, v, out of one storage type; arithmetic in float (on a device, bf16 and fp16 up to
///          D = 128 on tensor cores, within a bound, unless on_cuda::products is exact)
/// Order    scores and sums over keys: chains in ascending index; a new peak each 64 keys: the same
///          bits on any thread count, ISA and batch, independent of the tokens that follow
/// Aliasing out overlaps nothing
/// Errors   extents that do not fit, null pointers, arena too small (says how much)
/// Cost     2·B·heads·S²·D multiply-adds; scratch attention_scratch_bytes(); allocates nothing
/// Source   Dao et al., "FlashAttention", NeurIPS 2022; Ainslie et al., "GQA", EMNLP 2023
template <execution P, input<P, 4> Q, input<P, 4> K, input<P, 4> V, output<P, 4> O>
status attention(P const& on, Q&& q_in, K&& k_in, V&& v_in, O&& out_in,
                 std::type_identity_t<view<float, 3, P::memory>> log_sum,
                 std::type_identity_t<arena<P::memory>> work,
                 attention_options const& options = {}) noexcept {
  using type = element_t<Q>;
  static_assert(storage<type>, "shunt::nn::attention: float, bf16 or fp16 only");
  auto const q = as_input<P, 4>(q_in);
  view<type const, 4, P::memory> const k = as_input<P, 4>(k_in), v = as_input<P, 4>(v_in);
  view<type, 4, P::memory> const out = as_output<P, 4>(out_in);
  offset_t const batch = q.extent(0), length = q.extent(1), heads = q.extent(2);
  offset_t const kv_heads = k.extent(2), head_dim = q.extent(3);
  if (status bad =
          first_of(check::policy(on), check::rows("attention.q", q),
                   detail::heads_like("attention.k", k, batch, length, kv_heads, head_dim),
                   detail::heads_like("attention.v", v, batch, length, kv_heads, head_dim),
                   detail::heads_like("attention.out", out, batch, length, heads, head_dim),
                   check::apart("attention.out", out, "attention.q", q),
                   check::apart("attention.out", out, "attention.k", k),
                   check::apart("attention.out", out, "attention.v", v));
      !bad.ok()) {
    return bad;
  }
  if (log_sum.data() != nullptr) {
    if (status bad =
            first_of(check::memory("attention.log_sum", log_sum),
                     check::extent("attention.log_sum", 0, log_sum.extent(0), batch, "sequences"),
                     check::extent("attention.log_sum", 1, log_sum.extent(1), heads, "heads"),
                     check::extent("attention.log_sum", 2, log_sum.extent(2), length, "tokens"));
        !bad.ok()) {
      return bad;
    }
  }
  if (q.empty()) return {};
  if (status bad = detail::groups("attention", heads, kv_heads); !bad.ok()) return bad;
  return detail::attention_backend<P>::template forward<type>(
      on, {q, k, v, out, log_sum, detail::scale_of(options, head_dim)}, work);
}

/// Gradients of attention, p = e^(score − log_sum), δ_i = d_out_i·out_i:
/// d_v_j = Σ p_ij d_out_i, ds_ij = p_ij (d_out_i·v_j − δ_i), d_q_i = scale Σ ds_ij k_j,
/// d_k_j = scale Σ ds_ij q_i.
/// Shapes   as attention; d_q like q, d_k and d_v like k; all overwritten
/// Order    chains: d_q over keys ascending; d_k, d_v over queries ascending, heads of the group within
/// Aliasing the gradients overlap nothing
/// Cost     five products of S²/2 · D a head; parallel over B·kv_heads; scratch
///          attention_backward_scratch_bytes(), nothing of S × S
template <execution P, input<P, 4> Q, input<P, 4> K, input<P, 4> V, input<P, 4> O, input<P, 4> DO,
          output<P, 4> DQ, output<P, 4> DK, output<P, 4> DV>
status attention_backward(P const& on, Q&& q_in, K&& k_in, V&& v_in, O&& out_in,
                          std::type_identity_t<view<float const, 3, P::memory>> log_sum,
                          DO&& d_out_in, DQ&& d_q_in, DK&& d_k_in, DV&& d_v_in,
                          std::type_identity_t<arena<P::memory>> work,
                          attention_options const& options = {}) noexcept {
  using type = element_t<Q>;
  static_assert(storage<type>, "shunt::nn::attention_backward: float, bf16 or fp16 only");
  auto const q = as_input<P, 4>(q_in);
  view<type const, 4, P::memory> const k = as_input<P, 4>(k_in), v = as_input<P, 4>(v_in);
  view<type const, 4, P::memory> const out = as_input<P, 4>(out_in),
                                       d_out = as_input<P, 4>(d_out_in);
  view<type, 4, P::memory> const d_q = as_output<P, 4>(d_q_in), d_k = as_output<P, 4>(d_k_in),
                                 d_v = as_output<P, 4>(d_v_in);
  offset_t const batch = q.extent(0), length = q.extent(1), heads = q.extent(2);
  offset_t const kv_heads = k.extent(2), head_dim = q.extent(3);
  auto like_q = [&](char const* name, auto x) {
    return detail::heads_like(name, x, batch, length, heads, head_dim);
  };
  auto like_k = [&](char const* name, auto x) {
    return detail::heads_like(name, x, batch, length, kv_heads, head_dim);
  };
  if (status bad = first_of(
          check::policy(on), like_q("attention_backward.q", q), like_k("attention_backward.k", k),
          like_k("attention_backward.v", v), like_q("attention_backward.out", out),
          like_q("attention_backward.d_out", d_out), like_q("attention_backward.d_q", d_q),
          like_k("attention_backward.d_k", d_k), like_k("attention_backward.d_v", d_v),
          check::memory("attention_backward.log_sum", log_sum),
          check::extent("attention_backward.log_sum", 0, log_sum.extent(0), batch, "sequences"),
          check::extent("attention_backward.log_sum", 1, log_sum.extent(1), heads, "heads"),
          check::extent("attention_backward.log_sum", 2, log_sum.extent(2), length, "tokens"),
          check::apart("attention_backward.d_q", d_q, "attention_backward.q", q),
          check::apart("attention_backward.d_k", d_k, "attention_backward.k", k),
          check::apart("attention_backward.d_v", d_v, "attention_backward.v", v),
          check::apart("attention_backward.d_q", d_q, "attention_backward.d_out", d_out));
      !bad.ok()) {
    return bad;
  }
  if (q.empty()) return {};
  if (status bad = detail::groups("attention_backward", heads, kv_heads); !bad.ok()) return bad;
  return detail::attention_backend<P>::template backward<type>(
      on, {q, k, v, out, d_out, d_q, d_k, d_v, log_sum, detail::scale_of(options, head_dim)}, work);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::nn
