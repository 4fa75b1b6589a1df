// No include guard: the activations and their derivatives, once, for the lane type of the including
// namespace defines (see core/math_functions.inl, whose functions it uses). No product feeds a plain
// add. Where only the value is used, the compiler drops the rest.

/// An activation of one number, and of a (gate, up) pair, with its partial derivatives.
struct slope_of_one {
  vf value, slope;
};
struct slopes_of_pair {
  vf value, gate, up;
};

SHUNT_MATH slope_of_one relu_slope(vf x) noexcept {
  vf const zero = fill(0.0f);
  return {select(x < zero, zero, x), select(x > zero, fill(1.0f), zero)};
}
SHUNT_MATH slope_of_one relu2_slope(vf x) noexcept {
  vf const zero = fill(0.0f), r = select(x < zero, zero, x);
  return {r * r, r + r};
}
/// x Φ(x), Φ the normal distribution.
SHUNT_MATH slope_of_one gelu_slope(vf x) noexcept {
  vf const below = fma(fill(0.5f), erf(x * fill(0x1.6a09e6p-1f)), fill(0.5f));
  vf const density = exp(x * x * fill(-0.5f)) * fill(0x1.988454p-2f);
  // Beyond 16 the density is 0 in float: no Inf times 0.
  vf const tail = select(abs(x) < fill(16.0f), x, fill(0.0f));
  return {x * below, fma(tail, density, below)};
}
/// x/2 (1 + tanh u) = x sigmoid(2 u), u = sqrt(2/pi) (x + 0.044715 x^3).
SHUNT_MATH slope_of_one gelu_tanh_slope(vf x) noexcept {
  vf const square = x * x, scale = fill(0x1.988454p+0f);  // 2 sqrt(2/pi)
  vf const s = sigmoid(x * fma(square, fill(0.044715f), fill(1.0f)) * scale);
  vf const inner = fma(square, fill(0.134145f), fill(1.0f)) * scale;
  vf const steep = s * (fill(1.0f) - s);
  vf const tail = select(abs(x) < fill(16.0f), x * inner, fill(0.0f));
  return {x * s, fma(steep, tail, s)};
}
/// x sigmoid(alpha x).
SHUNT_MATH slope_of_one silu_slope(vf x, vf alpha) noexcept {
  vf const ax = alpha * x;
  vf const s = sigmoid(ax);
  return {x * s, s * fma(ax, fill(1.0f) - s, fill(1.0f))};
}
SHUNT_MATH slope_of_one silu_slope(vf x) noexcept {
  vf const s = sigmoid(x);
  return {x * s, s * fma(x, fill(1.0f) - s, fill(1.0f))};
}
/// b tanh(x / b).
SHUNT_MATH slope_of_one soft_cap_slope(vf x, vf b) noexcept {
  vf const t = tanh(x / b);
  return {b * t, fma(as_float(as_bits(t) ^ 0x80000000u), t, fill(1.0f))};
}
/// min(x, most), and x held within ±most; where they hold x back the derivative is 0.
SHUNT_MATH slope_of_one cap_slope(vf x, vf most) noexcept {
  return {select(x > most, most, x), select(x > most, fill(0.0f), fill(1.0f))};
}
SHUNT_MATH slope_of_one clamp_slope(vf x, vf most) noexcept {
  vf const least = as_float(as_bits(most) ^ 0x80000000u);
  vf const high = select(x > most, most, x);
  vf const held = select(x > most, fill(0.0f), select(x < least, fill(0.0f), fill(1.0f)));
  return {select(high < least, least, high), held};
}

/// f(gate) h(up) from its two factors.
SHUNT_MATH slopes_of_pair times(slope_of_one f, slope_of_one h) noexcept {
  return {f.value * h.value, f.slope * h.value, f.value * h.slope};
}
SHUNT_MATH slopes_of_pair swiglu_slopes(vf g, vf u) noexcept {
  return times(silu_slope(g), {u, fill(1.0f)});
}
SHUNT_MATH slopes_of_pair geglu_slopes(vf g, vf u) noexcept {
  return times(gelu_slope(g), {u, fill(1.0f)});
}
/// m sigmoid(alpha m) (v + 1), m = min(g, limit), v = u held within ±limit.
SHUNT_MATH slopes_of_pair swiglu_clamped_slopes(vf g, vf u, vf alpha, vf limit) noexcept {
  slope_of_one const m = cap_slope(g, limit), v = clamp_slope(u, limit);
  slope_of_one const s = silu_slope(m.value, alpha);
  return times({s.value, s.slope * m.slope}, {v.value + fill(1.0f), v.slope});
}
/// silu(min(g, limit)) times u held within ±limit.
SHUNT_MATH slopes_of_pair swiglu_capped_slopes(vf g, vf u, vf limit) noexcept {
  slope_of_one const m = cap_slope(g, limit);
  slope_of_one const s = silu_slope(m.value);
  return times({s.value, s.slope * m.slope}, clamp_slope(u, limit));
}
/// b1 tanh(g / b1) sigmoid(g) times b2 tanh(u / b2).
SHUNT_MATH slopes_of_pair situ_glu_slopes(vf g, vf u, vf b1, vf b2) noexcept {
  slope_of_one const t = soft_cap_slope(g, b1);
  vf const s = sigmoid(g);
  vf const both = t.value * s;
  return times({both, fma(t.slope, s, both * (fill(1.0f) - s))}, soft_cap_slope(u, b2));
}
