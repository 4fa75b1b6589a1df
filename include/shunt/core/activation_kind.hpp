#pragma once
#include "shunt/core/compiler.hpp"

#include <cstdint>

namespace shunt {

/// The activations that Shunt brings along, by name: what a preset says and a configuration file
/// stores. The functions themselves, and the way to a user's own, are those of the experts' module.
/// g is the gate half and u the linear half of a gated expert's first product, x the whole of a
/// plain one's.
enum class activation_kind : std::uint8_t {
  identity,        ///< x
  relu,            ///< max(x, 0)
  relu2,           ///< max(x, 0)^2
  gelu,            ///< x * Phi(x), by erf
  gelu_tanh,       ///< its approximation by tanh
  swiglu,          ///< silu(g) * u
  geglu,           ///< gelu(g) * u
  swiglu_clamped,  ///< gpt-oss: min(g,c) * sigmoid(1.702 min(g,c)) * (clamp(u,-c,c) + 1)
  swiglu_capped,   ///< DeepSeek-V4: silu(min(g,c)) * clamp(u,-c,c)
  situ_glu         ///< Kimi-K3: 4 tanh(g/4) sigmoid(g) * 25 tanh(u/25)
};

/// Two halves, gate and linear: the first matrix then has 2 I rows.
[[nodiscard]] constexpr bool is_gated(activation_kind kind) noexcept {
  return kind >= activation_kind::swiglu;
}

/// The name of the enumerator.
[[nodiscard]] constexpr char const* to_string(activation_kind kind) noexcept {
  switch (kind) {
    case activation_kind::identity: return "identity";
    case activation_kind::relu: return "relu";
    case activation_kind::relu2: return "relu2";
    case activation_kind::gelu: return "gelu";
    case activation_kind::gelu_tanh: return "gelu_tanh";
    case activation_kind::swiglu: return "swiglu";
    case activation_kind::geglu: return "geglu";
    case activation_kind::swiglu_clamped: return "swiglu_clamped";
    case activation_kind::swiglu_capped: return "swiglu_capped";
    case activation_kind::situ_glu: return "situ_glu";
  }
  return "unknown";
}

}  // namespace shunt
