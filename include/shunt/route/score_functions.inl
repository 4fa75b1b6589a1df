// No include guard: the scores that are not the math module's own, and the slopes of scores, once, for
// whatever lane type the including namespace defines (see core/math_functions.inl, whose functions it
// uses).

SHUNT_MATH vf sqrt_softplus(vf z) noexcept {
  // Far to the left softplus is e^z to the last bit, and its root needs no subnormal number.
  return select(z < fill(-17.0f), exp(z * fill(0.5f)), sqrt(softplus(z)));
}
/// Scores over those of a logit q: e^-q · sigmoid(z) and e^(-q/2) · sqrt_softplus(z). q is the row's
/// largest logit where that is below 0, else 0 (and they are the scores themselves). So the largest is
/// not small, however far below 0 a row's logits are.
SHUNT_MATH vf shifted_sigmoid(vf z, vf q) noexcept {
  vf const e = exp(as_float(as_bits(z) | 0x80000000u));
  vf const top = select(z < fill(0.0f), exp(z - q), fill(1.0f));
  return top / (e + fill(1.0f));
}
SHUNT_MATH vf shifted_sqrt_softplus(vf z, vf q) noexcept {
  vf const half = fill(0.5f);
  return select(z < fill(-17.0f), exp((z - q) * half), sqrt(softplus(z)) / exp(q * half));
}
/// The factor of a score over κ in s / (Σ s + epsilon): 1 / (sum + epsilon / κ), for a sum of scores
/// over κ and root = √κ. κ itself may be too small for a float where the factor is not.
SHUNT_MATH vf renormalizing_factor(vf sum, vf epsilon, vf root) noexcept {
  return root / fma(sum, root, epsilon / root);
}

/// d log(s) / dz: the slope of a score over the score, which is never small where the score is.
SHUNT_MATH vf sigmoid_log_slope(vf z) noexcept { return sigmoid(fill(0.0f) - z); }
/// Of y = softplus(z).
SHUNT_MATH vf sqrt_softplus_log_slope(vf z, vf y) noexcept {
  return select(z < fill(-17.0f), fill(0.5f), sigmoid(z) * fill(0.5f) / y);
}

/// ds / dz, of the score s of z.
SHUNT_MATH vf sqrt_softplus_slope(vf z, vf s) noexcept {
  return select(z < fill(-17.0f), s * fill(0.5f), sigmoid(z) / (s + s));
}
/// Taken from e^-|z|, so that it keeps its precision in both tails.
SHUNT_MATH vf sigmoid_slope(vf z) noexcept {
  vf const e = exp(as_float(as_bits(z) | 0x80000000u));
  vf const t = e + fill(1.0f);
  return e / (t * t);
}
