// No include guard: the elementary functions, once, for whatever "lane" type the including
// namespace defines. It supplies: vf (float, one or many lanes), vu (as many uint32), SHUNT_MATH
// (the function prefix), and fma, product, select, as_bits, as_float, to_float_lanes(vu), sqrt on
// them.
//
// Every multiply-add is an explicit fma, and no product feeds a plain add, in a caller neither (exp
// ends with `product`, not with *): the bits are then the same for every lane count, compiler flag
// and backend. Bounds in units in the last place were measured over all floats (tests/math_test.cpp)
// and stand in docs/numerics.md.

SHUNT_MATH vf abs(vf x) noexcept { return as_float(as_bits(x) & 0x7fffffffu); }
/// max and min keep a NaN in `a` and ignore one in `b`.
SHUNT_MATH vf max(vf a, vf b) noexcept { return select(a < b, b, a); }
SHUNT_MATH vf min(vf a, vf b) noexcept { return select(b < a, b, a); }

/// e^x. Underflows to subnormals and 0, overflows to +Inf, keeps NaN.
SHUNT_MATH vf exp(vf x) noexcept {
  vf const high = fill(89.0f), low = fill(-104.0f);
  vf const c = select(x > high, high, select(x < low, low, x));
  vf const magic = fill(0x1.8p23f);
  vf const t = fma(c, fill(0x1.715476p+0f), magic);  // log2 e; the addition rounds to an integer
  vu const n = as_bits(t) - 0x4b400000u;
  vf const k = t - magic;
  vf r = fma(k, fill(-0x1.62e400p-1f), c);  // ln 2 in two pieces; the first times k is exact
  r = fma(k, fill(-0x1.7f7d1cp-20f), r);
  vf p = fill(0x1.6db5bap-10f);
  p = fma(p, r, fill(0x1.123c78p-7f));
  p = fma(p, r, fill(0x1.55545cp-5f));
  p = fma(p, r, fill(0x1.55548ep-3f));
  p = fma(p, r, fill(0.5f));
  p = fma(p, r, fill(1.0f));
  p = fma(p, r, fill(1.0f));
  vu const half = ((n + 256u) >> 1) - 128u;  // n may leave the exponent's range: two factors
  return product(p * as_float((half + 127u) << 23), as_float((n - half + 127u) << 23));
}

/// Natural logarithm. log 0 is -Inf, of a negative number NaN, log Inf is Inf.
SHUNT_MATH vf log(vf x) noexcept {
  vf const least = fill(0x1p-126f);
  vf const scaled = select(x < least, x * fill(0x1p23f), x);
  vu const u = as_bits(scaled) + (0x3f800000u - 0x3f3504f3u);
  vf e = to_float_lanes(u >> 23) - fill(127.0f);
  e = select(x < least, e - fill(23.0f), e);
  vf const f = as_float((u & 0x7fffffu) + 0x3f3504f3u) - fill(1.0f);
  vf p = fill(0x1.1b457ap-4f);
  p = fma(p, f, fill(-0x1.e2f8dap-4f));
  p = fma(p, f, fill(0x1.e65794p-4f));
  p = fma(p, f, fill(-0x1.fb4146p-4f));
  p = fma(p, f, fill(0x1.23322ep-3f));
  p = fma(p, f, fill(-0x1.5562eap-3f));
  p = fma(p, f, fill(0x1.99a54cp-3f));
  p = fma(p, f, fill(-0x1.ffffeep-3f));
  p = fma(p, f, fill(0x1.555546p-2f));
  p = fma(p, f, fill(-0.5f));
  vf r = fma(e, fill(0x1.7f7d1cp-20f), fma(f * f, p, f));
  r = fma(e, fill(0x1.62e400p-1f), r);
  vf const inf = fill(__builtin_inff()), nan = fill(__builtin_nanf(""));
  r = select(x < inf, r, x);  // +Inf and NaN are their own logarithm
  r = select(x > fill(0.0f), r, select(x < fill(0.0f), nan, r));
  return select(x == fill(0.0f), fill(-__builtin_inff()), r);
}

/// log(1 + x) without the cancellation; -1 gives -Inf.
SHUNT_MATH vf log1p(vf x) noexcept {
  vf const u = x + fill(1.0f);
  vf const lost = x - (u - fill(1.0f));
  vf const r = log(u) + lost / u;
  // Where u is 0 or not finite there is nothing to correct; a tiny x is its own logarithm.
  vf const exact = select(u > fill(0.0f), select(u < fill(__builtin_inff()), r, log(u)), log(u));
  return select(u == fill(1.0f), x, exact);
}

/// 1 / (1 + e^-x), accurate in both tails.
SHUNT_MATH vf sigmoid(vf x) noexcept {
  vf const e = exp(as_float(as_bits(x) | 0x80000000u));  // e^-|x|, never above 1
  vf const top = select(x < fill(0.0f), e, fill(1.0f));
  return top / (e + fill(1.0f));
}

/// log(1 + e^x), for any x.
SHUNT_MATH vf softplus(vf x) noexcept {
  vf const e = exp(as_float(as_bits(x) | 0x80000000u));
  return max(x, fill(0.0f)) + log1p(e);
}

SHUNT_MATH vf tanh(vf x) noexcept {
  vf const a = abs(x), u = x * x;
  vf p = fill(-0x1.76abf6p-8f);
  p = fma(p, u, fill(0x1.5256cep-6f));
  p = fma(p, u, fill(-0x1.b84448p-5f));
  p = fma(p, u, fill(0x1.110768p-3f));
  p = fma(p, u, fill(-0x1.555534p-2f));
  vf const near = fma(x * u, p, x);
  vf const far = fill(1.0f) - fill(2.0f) / (exp(a + a) + fill(1.0f));
  vf const either = select(a < fill(0.6f), near, far);
  return as_float(as_bits(either) | (as_bits(x) & 0x80000000u));  // of -0 too
}

SHUNT_MATH vf erf(vf x) noexcept {
  vf const a = abs(x), u = x * x;
  vf p = fill(0x1.5e062cp-14f);
  p = fma(p, u, fill(-0x1.aaa2d6p-11f));
  p = fma(p, u, fill(0x1.54d42ap-8f));
  p = fma(p, u, fill(-0x1.b80ff2p-6f));
  p = fma(p, u, fill(0x1.ce2e1cp-4f));
  p = fma(p, u, fill(-0x1.812744p-2f));
  p = fma(p, u, fill(0x1.06eba8p-3f));
  vf const near = fma(p, x, x);
  vf const c = select(a > fill(4.0f), fill(4.0f), a);  // log of 1 - erf, as a polynomial
  vf q = fill(-0x1.6309b8p-16f);
  q = fma(q, c, fill(0x1.c85c32p-12f));
  q = fma(q, c, fill(-0x1.1196e4p-8f));
  q = fma(q, c, fill(0x1.9bb518p-6f));
  q = fma(q, c, fill(-0x1.bb9270p-4f));
  q = fma(q, c, fill(-0x1.444470p-1f));
  q = fma(q, c, fill(-0x1.212846p+0f));
  q = fma(q, c, fill(0x1.70d5fcp-13f));
  vf const far = fill(1.0f) - exp(q);
  vf const signed_far = as_float(as_bits(far) | (as_bits(x) & 0x80000000u));
  return select(a < fill(0.92f), near, signed_far);
}
