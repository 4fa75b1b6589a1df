// No include guard: what combine does beyond the kernels of dispatch, which it shares.

/// Both gradients of one row in one pass: to = factor · from, and <row, from>.
template <class A, class B>
float scale_and_dot(A const* from, float factor, B* to, B const* row, std::int64_t n) noexcept {
  vf const f = fill(factor);
  return dot_and(
      row, from, n, [&](std::int64_t at, vf x, std::int64_t count) __attribute__((always_inline)) {
        if (count == lanes) {
          store(to + at, f * x);
        } else {
          store_first(to + at, f * x, count);
        }
      });
}
