// No include guard: the activations on this region's lanes.
#define SHUNT_MATH SHUNT_INLINE
#include "shunt/experts/activation_functions.inl"
#undef SHUNT_MATH

/// A user's own: its functions of one float are inlined here, and get this region's instructions.
template <class A>
void own_values(void const* self, float const* gate, [[maybe_unused]] float const* up, float* value,
                std::int64_t count) {
  A const& act = *static_cast<A const*>(self);
  for (std::int64_t i = 0; i < count; ++i) {
    if constexpr (A::gated) {
      value[i] = act.value(gate[i], up[i]);
    } else {
      value[i] = act.value(gate[i]);
    }
  }
}
template <class A>
void own_slopes(void const* self, float const* gate, [[maybe_unused]] float const* up, float* value,
                float* d_gate, [[maybe_unused]] float* d_up, std::int64_t count) {
  A const& act = *static_cast<A const*>(self);
  for (std::int64_t i = 0; i < count; ++i) {
    if constexpr (A::gated) {
      auto const s = act.slopes(gate[i], up[i]);
      value[i] = s.value;
      d_gate[i] = s.gate;
      d_up[i] = s.up;
    } else {
      auto const s = act.slope(gate[i]);
      value[i] = s.value;
      d_gate[i] = s.slope;
    }
  }
}

/// Calls body(f) with f(g, u), the slopes of one of Shunt's own; a plain one has no `up`.
template <class Body> SHUNT_INLINE void with_activation(activation_code const& code, Body&& body) {
  vf const a = fill(code.a), b = fill(code.b);
  auto const plain = [&](auto f) __attribute__((always_inline)) {
    body([&](vf x, vf) __attribute__((always_inline)) {
      slope_of_one const s = f(x);
      return slopes_of_pair{s.value, s.slope, vf{}};
    });
  };
  switch (code.kind) {
    case activation_kind::identity:
      plain([&](vf x) __attribute__((always_inline)) { return slope_of_one{x, fill(1.0f)}; });
      break;
    case activation_kind::relu:
      plain([&](vf x) __attribute__((always_inline)) { return relu_slope(x); });
      break;
    case activation_kind::relu2:
      plain([&](vf x) __attribute__((always_inline)) { return relu2_slope(x); });
      break;
    case activation_kind::gelu:
      plain([&](vf x) __attribute__((always_inline)) { return gelu_slope(x); });
      break;
    case activation_kind::gelu_tanh:
      plain([&](vf x) __attribute__((always_inline)) { return gelu_tanh_slope(x); });
      break;
    case activation_kind::swiglu:
      body([&](vf g, vf u) __attribute__((always_inline)) { return swiglu_slopes(g, u); });
      break;
    case activation_kind::geglu:
      body([&](vf g, vf u) __attribute__((always_inline)) { return geglu_slopes(g, u); });
      break;
    case activation_kind::swiglu_clamped:
      body([&](vf g, vf u)
               __attribute__((always_inline)) { return swiglu_clamped_slopes(g, u, a, b); });
      break;
    case activation_kind::swiglu_capped:
      body([&](vf g, vf u)
               __attribute__((always_inline)) { return swiglu_capped_slopes(g, u, a); });
      break;
    case activation_kind::situ_glu:
      body([&](vf g, vf u) __attribute__((always_inline)) { return situ_glu_slopes(g, u, a, b); });
      break;
  }
}

/// value[i] = activation of (gate[i], up[i]). The arrays are read and written in whole vectors: they
/// are padded up to the next multiple of 16. `value` may be `gate`.
inline void activate(activation_code const& code, float const* gate, float const* up, float* value,
                     std::int64_t count) noexcept {
  if (code.self != nullptr) {
    code.values(code.self, gate, up, value, count);
    return;
  }
  if (code.kind == activation_kind::identity && value == gate) return;
  if (!code.gated) up = gate;
  with_activation(
      code, [&](auto f) __attribute__((always_inline)) {
        for (std::int64_t i = 0; i < count; i += lanes) {
          store(value + i, f(load(gate + i), load(up + i)).value);
        }
      });
}

/// The same with the partial derivatives.
inline void activate_slopes(activation_code const& code, float const* gate, float const* up,
                            float* value, float* d_gate, float* d_up, std::int64_t count) noexcept {
  if (code.self != nullptr) {
    code.slopes(code.self, gate, up, value, d_gate, d_up, count);
    return;
  }
  if (!code.gated) up = gate;
  with_activation(
      code, [&](auto f) __attribute__((always_inline)) {
        for (std::int64_t i = 0; i < count; i += lanes) {
          slopes_of_pair const s = f(load(gate + i), load(up + i));
          store(value + i, s.value);
          store(d_gate + i, s.gate);
          if (code.gated) store(d_up + i, s.up);
        }
      });
}
