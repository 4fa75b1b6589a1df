// No include guard: the scores that are not the math room's own, and the slopes of scores, once, for
// whatever lane type the including namespace defines (see core/math_functions.inl, whose functions it
// uses).

SHUNT_MATH vf sqrt_softplus(vf z) noexcept {
  // Far to the left softplus is e^z to the last bit, and its root needs no subnormal number.
  return select(z < fill(-17.0f), exp(z * fill(0.5f)), sqrt(softplus(z)));
}
/// Of the score s of z.
SHUNT_MATH vf sqrt_softplus_slope(vf z, vf s) noexcept {
  return select(z < fill(-17.0f), s * fill(0.5f), sigmoid(z) / (s + s));
}
/// Taken from e^-|z|, so that it keeps its precision in both tails.
SHUNT_MATH vf sigmoid_slope(vf z) noexcept {
  vf const e = exp(as_float(as_bits(z) | 0x80000000u));
  vf const t = e + fill(1.0f);
  return e / (t * t);
}
