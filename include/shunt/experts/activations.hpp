#pragma once
#include <concepts>

#include "shunt/core/activation_kind.hpp"
#include "shunt/core/macros.hpp"
#include "shunt/core/math.hpp"

namespace shunt {
namespace math {
#define SHUNT_MATH SHUNT_HD inline
#include "shunt/experts/activation_functions.inl"
#undef SHUNT_MATH
}  // namespace math

/// An activation's value at one point with its derivative, or its two partial derivatives.
using slope_of_one = math::slope_of_one;      ///< .value .slope
using slopes_of_pair = math::slopes_of_pair;  ///< .value .gate .up

/// An activation is a small, trivially copyable type:
///   struct mine {                                 struct my_pair {
///     static constexpr bool gated = false;          static constexpr bool gated = true;
///     float value(float x) const;                   float value(float gate, float up) const;
///     slope_of_one slope(float x) const;            slopes_of_pair slopes(float gate, float up) const;
///   };                                            };
/// Built from the functions of shunt::math, with math::fma for every multiply-add and math::product
/// for a product that feeds a plain addition, its results are the same bits on every instruction set
/// and backend. Mark the functions SHUNT_HD to have them on a device too. Shunt's own are the structs
/// below.
template <class A>
concept activation_function =
    std::is_trivially_copyable_v<A> && ((!A::gated && requires(A const& a, float x) {
                                          { a.value(x) } -> std::same_as<float>;
                                          { a.slope(x) } -> std::same_as<slope_of_one>;
                                        }) || (A::gated && requires(A const& a, float x) {
                                          { a.value(x, x) } -> std::same_as<float>;
                                          { a.slopes(x, x) } -> std::same_as<slopes_of_pair>;
                                        }));

/// x: no activation.
struct identity {
  static constexpr activation_kind kind = activation_kind::identity;
  static constexpr bool gated = false;
  SHUNT_HD float value(float x) const noexcept { return x; }
  SHUNT_HD slope_of_one slope(float x) const noexcept { return {x, 1.0f}; }
};
/// max(x, 0).
struct relu {
  static constexpr activation_kind kind = activation_kind::relu;
  static constexpr bool gated = false;
  SHUNT_HD float value(float x) const noexcept { return slope(x).value; }
  SHUNT_HD slope_of_one slope(float x) const noexcept { return math::relu_slope(x); }
};
/// max(x, 0)² (So et al., "Primer", 2021; Nemotron).
struct relu2 {
  static constexpr activation_kind kind = activation_kind::relu2;
  static constexpr bool gated = false;
  SHUNT_HD float value(float x) const noexcept { return slope(x).value; }
  SHUNT_HD slope_of_one slope(float x) const noexcept { return math::relu2_slope(x); }
};
/// x Φ(x) (Hendrycks & Gimpel, 2016).
struct gelu {
  static constexpr activation_kind kind = activation_kind::gelu;
  static constexpr bool gated = false;
  SHUNT_HD float value(float x) const noexcept { return slope(x).value; }
  SHUNT_HD slope_of_one slope(float x) const noexcept { return math::gelu_slope(x); }
};
/// Its approximation x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))).
struct gelu_tanh {
  static constexpr activation_kind kind = activation_kind::gelu_tanh;
  static constexpr bool gated = false;
  SHUNT_HD float value(float x) const noexcept { return slope(x).value; }
  SHUNT_HD slope_of_one slope(float x) const noexcept { return math::gelu_tanh_slope(x); }
};
/// silu(gate) up (Shazeer, "GLU variants improve transformer", 2020).
struct swiglu {
  static constexpr activation_kind kind = activation_kind::swiglu;
  static constexpr bool gated = true;
  SHUNT_HD float value(float g, float u) const noexcept { return slopes(g, u).value; }
  SHUNT_HD slopes_of_pair slopes(float g, float u) const noexcept {
    return math::swiglu_slopes(g, u);
  }
};
/// gelu(gate) up (the same).
struct geglu {
  static constexpr activation_kind kind = activation_kind::geglu;
  static constexpr bool gated = true;
  SHUNT_HD float value(float g, float u) const noexcept { return slopes(g, u).value; }
  SHUNT_HD slopes_of_pair slopes(float g, float u) const noexcept {
    return math::geglu_slopes(g, u);
  }
};
/// m σ(α m) (clamp(up, ±limit) + 1), m = min(gate, limit) (gpt-oss).
struct swiglu_clamped {
  static constexpr activation_kind kind = activation_kind::swiglu_clamped;
  static constexpr bool gated = true;
  float alpha = 1.702f, limit = 7.0f;  ///< α, and the bound of both halves
  SHUNT_HD float value(float g, float u) const noexcept { return slopes(g, u).value; }
  SHUNT_HD slopes_of_pair slopes(float g, float u) const noexcept {
    return math::swiglu_clamped_slopes(g, u, alpha, limit);
  }
};
/// silu(min(gate, limit)) clamp(up, ±limit) (DeepSeek-V4).
struct swiglu_capped {
  static constexpr activation_kind kind = activation_kind::swiglu_capped;
  static constexpr bool gated = true;
  float limit = 10.0f;  ///< the bound of both halves
  SHUNT_HD float value(float g, float u) const noexcept { return slopes(g, u).value; }
  SHUNT_HD slopes_of_pair slopes(float g, float u) const noexcept {
    return math::swiglu_capped_slopes(g, u, limit);
  }
};
/// β₁ tanh(gate/β₁) σ(gate) β₂ tanh(up/β₂) (Kimi-K3).
struct situ_glu {
  static constexpr activation_kind kind = activation_kind::situ_glu;
  static constexpr bool gated = true;
  float b1 = 4.0f, b2 = 25.0f;  ///< β₁ and β₂
  SHUNT_HD float value(float g, float u) const noexcept { return slopes(g, u).value; }
  SHUNT_HD slopes_of_pair slopes(float g, float u) const noexcept {
    return math::situ_glu_slopes(g, u, b1, b2);
  }
};

/// One of Shunt's own activations, chosen at run time: what a preset or a file names. From a kind
/// alone its numbers are the published ones.
struct activation {
  activation_kind kind = activation_kind::identity;  ///< which function
  float a = 0.0f, b = 0.0f;                          ///< alpha, limit · limit · b1, b2

  constexpr activation() noexcept = default;
  /// A kind with its published numbers.
  constexpr activation(activation_kind which) noexcept : kind(which) {
    if (which == activation_kind::swiglu_clamped) *this = swiglu_clamped{};
    if (which == activation_kind::swiglu_capped) *this = swiglu_capped{};
    if (which == activation_kind::situ_glu) *this = situ_glu{};
  }
  /// One of Shunt's structs, with the numbers that it holds.
  template <activation_function A>
    requires requires { A::kind; }
  constexpr activation(A own) noexcept : kind(A::kind) {
    if constexpr (requires { own.b1; }) {
      a = own.b1;
      b = own.b2;
    } else if constexpr (requires { own.alpha; }) {
      a = own.alpha;
      b = own.limit;
    } else if constexpr (requires { own.limit; }) {
      a = own.limit;
    }
  }
};

/// What the experts' primitives take: a type of one's own, one of Shunt's, or one chosen at run time.
template <class A>
concept any_activation = std::same_as<A, activation> || activation_function<A>;

/// Whether the first matrix has two halves, gate and linear.
template <any_activation A> [[nodiscard]] constexpr bool gated(A const& act) noexcept {
  if constexpr (std::same_as<A, activation>) {
    return is_gated(act.kind);
  } else {
    return A::gated;
  }
}

}  // namespace shunt
