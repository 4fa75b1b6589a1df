// No include guard: what the sums over experts add up, once, for the lane type of the including
// namespace defines (see core/math_functions.inl, whose functions it uses).

/// -log2 p, in bits; 0 for 0, whose share of the entropy is none.
SHUNT_MATH vf self_information(vf p) noexcept {
  return log(select(p > fill(0.0f), p, fill(1.0f))) * fill(-0x1.715476p+0f);
}

/// (1+x)·log(1+x) + (1-x)·log(1-x) for x in [-1, 1): x² + x⁴/6 + x⁶/15 + … where x is small, since
/// the two halves cancel there.
SHUNT_MATH vf lopsided(vf x) noexcept {
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
