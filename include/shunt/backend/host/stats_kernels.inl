// No include guard: the sums over experts, 32 at a time.

/// (1+x)·log(1+x) + (1-x)·log(1-x) for x in [-1, 1): x² + x⁴/6 + x⁶/15 + … where x is small, since
/// the two halves cancel there.
SHUNT_LANES vf lopsided(vf x) noexcept {
  vf const one = fill(1.0f), u = x * x;
  vf p = fill(1.0f / 66.0f);
  p = fma(p, u, fill(1.0f / 45.0f));
  p = fma(p, u, fill(1.0f / 28.0f));
  p = fma(p, u, fill(1.0f / 15.0f));
  p = fma(p, u, fill(1.0f / 6.0f));
  p = fma(p, u, one);
  vf const up = one + x, down = one - x;
  vf const upper = select(up > fill(0.0f), log1p(x), fill(0.0f));
  vf const far = fma(down, log1p(fill(0.0f) - x), up * upper);
  return select(abs(x) < fill(0.25f), u * p, far);
}

/// Adds 32 experts: their shares, and of each (share - u) / (share + u) and (share + u) / 4.
inline void add_experts(load_strip const& at, load_sums& sums) noexcept {
  for (int i = 0; i < strip_vectors; ++i) {
    int const j = i * lanes;
    vf const p = load(at.share + j);
    vf const bits = log(select(p > fill(0.0f), p, fill(1.0f))) * fill(-0x1.715476p+0f);
    store(sums.entropy + j, fma(p, bits, load(sums.entropy + j)));
    store(sums.divergence + j,
          fma(load(at.weight + j), lopsided(load(at.skew + j)), load(sums.divergence + j)));
  }
}

inline float sum_of_strip(float const* values) noexcept { return row_sum(values, strip_width); }
