// No include guard: part of route/kernels.inl. The k best of a row, exactly, ties to the lower index.

using route_mask = decltype(vf{} < vf{});

/// One bit a lane, lane 0 lowest.
SHUNT_INLINE unsigned lane_bits(route_mask m) noexcept {
#if SHUNT_REGION == 512
  return _mm512_movepi32_mask((__m512i)m);
#elif SHUNT_REGION == 256
  return static_cast<unsigned>(_mm256_movemask_ps((__m256)m));
#elif defined(__x86_64__)
  return static_cast<unsigned>(_mm_movemask_ps((__m128)m));
#else
  unsigned bits = 0;
  for (int i = 0; i < lanes; ++i) bits |= (m[i] != 0 ? 1u : 0u) << i;
  return bits;
#endif
}

/// The largest of all lanes, in each: lane j takes the larger of itself and lane j ^ Distance.
template <int Distance, int... I>
SHUNT_INLINE vf spread_largest(vf x, std::integer_sequence<int, I...> all) noexcept {
  if constexpr (Distance == 0) {
    return x;
  } else {
    x = larger_lanes{}(x, permute<(I ^ Distance)...>(x));
    return spread_largest<Distance / 2>(x, all);
  }
}
SHUNT_INLINE float largest_lane(vf x) noexcept {
  return spread_largest<lanes / 2>(x, std::make_integer_sequence<int, lanes>{})[0];
}

SHUNT_INLINE float strip_peak(float const* strip_at) noexcept {
  vf x = load(strip_at);
  for (int i = 1; i < strip_vectors; ++i) x = larger_lanes{}(x, load(strip_at + i * lanes));
  return largest_lane(x);
}

/// Where `value` first stands in a row that holds it.
SHUNT_INLINE std::int64_t first_place(float const* row, float value) noexcept {
  for (std::int64_t at = 0;; at += lanes) {
    unsigned const bits = lane_bits(load(row + at) == fill(value));
    if (bits != 0) return at + __builtin_ctz(bits);
  }
}

SHUNT_INLINE float best_of(float const* peaks, std::int64_t padded) noexcept {
  vf x = load(peaks);
  for (std::int64_t at = lanes; at < padded; at += lanes) x = larger_lanes{}(x, load(peaks + at));
  return largest_lane(x);
}

/// The `count` largest of key (padded to strips with -Inf), best first, ids into id, -1 where only
/// -Inf is left. Taken keys become -Inf. Two levels: the peak of each strip, then the strip: a taking
/// costs n / 32 + 64 elements, not n. Returns the next best, which was not taken.
__attribute__((noinline)) inline float take_best(float* key, std::int64_t padded, float* peaks,
                                                 index_t* id, std::int64_t count) noexcept {
  float const none = -__builtin_inff();
  std::int64_t const strips = padded / strip_width;
  std::int64_t const padded_peaks = (strips + lanes - 1) / lanes * lanes;
  for (std::int64_t s = 0; s < strips; ++s) peaks[s] = strip_peak(key + s * strip_width);
  for (std::int64_t s = strips; s < padded_peaks; ++s) peaks[s] = none;
  for (std::int64_t k = 0; k < count; ++k) {
    float const best = best_of(peaks, padded_peaks);
    if (best == none) {
      for (; k < count; ++k) id[k] = -1;
      return none;
    }
    std::int64_t const s = first_place(peaks, best);
    float* const in = key + s * strip_width;
    std::int64_t const at = first_place(in, best);
    id[k] = static_cast<index_t>(s * strip_width + at);
    in[at] = none;
    peaks[s] = strip_peak(in);
  }
  return best_of(peaks, padded_peaks);
}

/// The rank of one group: its best key, or the sum of its two best (of one, where there is one).
SHUNT_INLINE float group_rank(float const* key, std::int64_t n, group_rule by) noexcept {
  float const none = -__builtin_inff();
  vf first = fill(none), second = fill(none);
  for (std::int64_t at = 0; at < n; at += lanes) {
    vf const x = n - at >= lanes ? load(key + at) : load_first(key + at, n - at, none);
    second = larger_lanes{}(second, select(first < x, first, x));
    first = larger_lanes{}(first, x);
  }
  float const best = largest_lane(first);
  if (by == group_rule::best || best == none) return best;
  // The runner-up: another lane's best, or the second of the lane that held the best.
  int const holder = __builtin_ctz(lane_bits(first == fill(best)));
  vf rest = first;
  rest[holder] = second[holder];
  float const next = largest_lane(rest);
  return next == none ? best : best + next;
}

/// Masks the keys of every group but the best `top_groups`.
SHUNT_INLINE void keep_best_groups(route_rule const& r, route_buffers const& b) noexcept {
  float const none = -__builtin_inff();
  std::int64_t const size = r.experts / r.groups;
  std::int64_t const padded = (r.groups + strip_width - 1) / strip_width * strip_width;
  for (std::int64_t g = 0; g < padded; ++g) {
    b.group[g] = g < r.groups ? group_rank(b.key + g * size, size, r.group_by) : none;
  }
  take_best(b.group, padded, b.group_peaks, b.group_id, r.top_groups);
  for (std::int64_t g = 0; g < r.groups; ++g) b.group[g] = 0.0f;
  for (std::int64_t i = 0; i < r.top_groups; ++i) {
    if (b.group_id[i] >= 0) b.group[b.group_id[i]] = 1.0f;
  }
  for (std::int64_t g = 0; g < r.groups; ++g) {
    if (b.group[g] != 0.0f) continue;
    for (std::int64_t e = g * size; e < (g + 1) * size; ++e) b.key[e] = none;
  }
}
