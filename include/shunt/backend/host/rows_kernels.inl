// No include guard: one row or one token at a time, for dispatch and combine.

/// to = factor · from, rounded once.
template <class A, class B>
void scale_row(A const* from, float factor, B* to, std::int64_t n) noexcept {
  vf const f = fill(factor);
  std::int64_t at = 0;
  for (; at + lanes <= n; at += lanes) store(to + at, f * load(from + at));
  if (at < n) store_first(to + at, f * load_first(from + at, n - at), n - at);
}

/// <a, b>, in the order of every row reduction, with each vector of b passed to `also(at, b)`.
template <class A, class B, class Also>
SHUNT_INLINE float dot_and(A const* a, B const* b, std::int64_t n, Also const& also) noexcept {
  strip s;
  vf part[strip_vectors];  // indexed by constants only, so that it lives in registers
  unroll<strip_vectors>([&](auto i) __attribute__((always_inline)) { part[i.value] = fill(0.0f); });
  std::int64_t at = 0;
  for (; at + strip_width <= n; at += strip_width) {
    unroll<strip_vectors>([&](auto i) __attribute__((always_inline)) {
      std::int64_t const here = at + i.value * lanes;
      vf const y = load(b + here);
      part[i.value] = fma(load(a + here), y, part[i.value]);
      also(here, y, lanes);
    });
  }
  unroll<strip_vectors>([&](auto i)
                            __attribute__((always_inline)) { s.part[i.value] = part[i.value]; });
  for (int i = 0; at < n; ++i, at += lanes) {
    std::int64_t const left = n - at < lanes ? n - at : lanes;
    vf const y = left == lanes ? load(b + at) : load_first(b + at, left);
    vf const x = left == lanes ? load(a + at) : load_first(a + at, left);
    s.part[i] = fma(x, y, s.part[i]);
    also(at, y, left);
  }
  return sum_of(s);
}

template <class A, class B> float dot_rows(A const* a, B const* b, std::int64_t n) noexcept {
  return dot_and(a, b, n, [&](std::int64_t, vf, std::int64_t) __attribute__((always_inline)){});
}

template <class R, class Y>
SHUNT_INLINE vf term_part(weighted_row<R, Y> const& term, std::int64_t at) noexcept {
  return term.row != nullptr ? load(term.row + at) : load(term.like + at);
}
template <class R, class Y>
SHUNT_INLINE vf term_first(weighted_row<R, Y> const& term, std::int64_t at,
                           std::int64_t n) noexcept {
  return term.row != nullptr ? load_first(term.row + at, n) : load_first(term.like + at, n);
}

/// to[0, n) = columns [first, first + n) of Σ factor · row over the terms, a chain of fma in their
/// order that starts from `from` (null: 0). Rounded once.
template <class R, class Y, class Out>
void sum_weighted_rows(weighted_row<R, Y> const* terms, std::int64_t count, float const* from,
                       std::int64_t first, Out* to, std::int64_t n) noexcept {
  constexpr int parts = 8;
  std::int64_t at = 0;
  for (; at + parts * lanes <= n; at += parts * lanes) {
    vf sum[parts];
    unroll<parts>([&](auto i) __attribute__((always_inline)) {
      sum[i.value] = from != nullptr ? load(from + at + i.value * lanes) : fill(0.0f);
    });
    for (std::int64_t k = 0; k < count; ++k) {
      weighted_row<R, Y> const term = terms[k];
      vf const factor = fill(term.factor);
      unroll<parts>([&](auto i) __attribute__((always_inline)) {
        sum[i.value] = fma(factor, term_part(term, first + at + i.value * lanes), sum[i.value]);
      });
    }
    unroll<parts>([&](auto i) __attribute__((always_inline)) {
      store(to + at + i.value * lanes, sum[i.value]);
    });
  }
  for (; at < n; at += lanes) {
    std::int64_t const left = n - at;
    bool const whole = left >= lanes;
    vf sum = fill(0.0f);
    if (from != nullptr) sum = whole ? load(from + at) : load_first(from + at, left);
    for (std::int64_t k = 0; k < count; ++k) {
      weighted_row<R, Y> const term = terms[k];
      vf const x = whole ? term_part(term, first + at) : term_first(term, first + at, left);
      sum = fma(fill(term.factor), x, sum);
    }
    if (whole) {
      store(to + at, sum);
    } else {
      store_first(to + at, sum, left);
    }
  }
}
