#pragma once
#include "shunt/nn/attention.hpp"
#include "shunt/nn/rotary.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {

namespace detail {
template <class T, space S>
status cache_fits(char const* who, kv_cache<T, S> const& cache, offset_t batch, offset_t tokens,
                  token_positions<S> const& positions) noexcept {
  if (cache.memory == nullptr && cache.elements() > 0) {
    return status::fail(error::null_pointer,
                        "%s.cache: the pointer is null; it must point to %lld elements", who,
                        static_cast<long long>(cache.elements()));
  }
  if (batch != cache.batch) {
    return status::fail(error::bad_shape, "%s.cache is for %d sequences; it must be for %lld", who,
                        cache.batch, static_cast<long long>(batch));
  }
  if (positions.in_memory()) return positions_fit("kv_cache.first_position", positions, batch);
  offset_t const first_position = positions.number(), end = first_position + tokens;
  if (first_position < 0 || end > cache.capacity) {
    return status::fail(error::bad_argument,
                        "%s: tokens %lld to %lld of a sequence; the cache must have room for them "
                        "and has %d",
                        who, static_cast<long long>(first_position), static_cast<long long>(end),
                        cache.capacity);
  }
  return {};
}
}  // namespace detail

/// Writes the keys and values of S tokens a sequence to the cache, from `first_position` on: a number,
/// or [1] or [B] numbers in memory, read when the kernel runs.
/// Shapes   k, v [B,S,kv_heads,D], any strides with D contiguous
/// Errors   extents that differ from the cache's, no room. A sequence whose position read from memory
///          is below 0 or leaves no room for its S tokens is left out: nothing of it is written.
/// Cost     reads k and v once
template <execution P, input<P, 4> K, input<P, 4> V>
status cache_append(P const& on, K&& k_in, V&& v_in, kv_cache<element_t<K>, P::memory> const& cache,
                    std::type_identity_t<token_positions<P::memory>> first_position) noexcept {
  using type = element_t<K>;
  auto const k = as_input<P, 4>(k_in);
  view<type const, 4, P::memory> const v = as_input<P, 4>(v_in);
  offset_t const batch = k.extent(0), length = k.extent(1);
  if (status bad = first_of(
          check::policy(on),
          detail::heads_like("cache_append.k", k, batch, length, cache.kv_heads, cache.head_dim),
          detail::heads_like("cache_append.v", v, batch, length, cache.kv_heads, cache.head_dim),
          detail::cache_fits("cache_append", cache, batch, length, first_position));
      !bad.ok()) {
    return bad;
  }
  if (k.empty()) return {};
  return detail::attention_backend<P>::template append<type>(on, k, v, cache,
                                                             detail::positions_of(first_position));
}

/// Scratch of cache_attend.
template <execution P>
[[nodiscard]] std::size_t cache_attend_scratch_bytes(P const& on, index_t head_dim) noexcept {
  return detail::attention_backend<P>::cached_bytes(on, head_dim);
}

/// Attention of S new queries a sequence, at positions first_position …, over everything that the
/// cache holds up to each: their own keys must have been appended. The bits of attention() over the
/// whole sequence.
/// Shapes   q, out [B,S,heads,D]; heads a multiple of the cache's kv_heads · first_position as
///          cache_append's
/// Order, Source as attention()
/// Errors   as attention(); a sequence that cache_append leaves out gets zeros
/// Cost     reads the cache once for each group of heads; scratch cache_attend_scratch_bytes()
template <execution P, input<P, 4> Q, output<P, 4> O>
status cache_attend(P const& on, Q&& q_in, kv_cache<element_t<Q>, P::memory> const& cache,
                    std::type_identity_t<token_positions<P::memory>> first_position, O&& out_in,
                    std::type_identity_t<arena<P::memory>> work,
                    attention_options const& options = {}) noexcept {
  using type = element_t<Q>;
  static_assert(storage<type>, "shunt::nn::cache_attend: float, bf16 or fp16 only");
  auto const q = as_input<P, 4>(q_in);
  view<type, 4, P::memory> const out = as_output<P, 4>(out_in);
  offset_t const batch = q.extent(0), length = q.extent(1), heads = q.extent(2);
  if (status bad = first_of(
          check::policy(on),
          detail::heads_like("cache_attend.q", q, batch, length, heads, cache.head_dim),
          detail::heads_like("cache_attend.out", out, batch, length, heads, cache.head_dim),
          detail::cache_fits("cache_attend", cache, batch, length, first_position),
          check::apart("cache_attend.out", out, "cache_attend.q", q));
      !bad.ok()) {
    return bad;
  }
  if (q.empty()) return {};
  if (status bad = detail::groups("cache_attend", heads, cache.kv_heads); !bad.ok()) return bad;
  return detail::attention_backend<P>::template cached<type>(
      on, {q, {}, {}, out, {}, detail::scale_of(options, cache.head_dim)}, cache,
      detail::positions_of(first_position), work);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::nn
