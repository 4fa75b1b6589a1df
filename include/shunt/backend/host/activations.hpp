#pragma once
#include "shunt/backend/host/simd/regions.hpp"
#include "shunt/experts/activations.hpp"

namespace shunt::host {

/// An activation with its type put aside: one of Shunt's own by its kind, or a user's by two
/// functions that work on a piece of a row.
struct activation_code {
  using values_type = void (*)(void const* self, float const* gate, float const* up, float* value,
                               std::int64_t count);
  using slopes_type = void (*)(void const* self, float const* gate, float const* up, float* value,
                               float* d_gate, float* d_up, std::int64_t count);
  activation_kind kind = activation_kind::identity;
  bool gated = false;
  float a = 0.0f, b = 0.0f;
  void const* self = nullptr;  ///< not null: a user's own
  values_type values = nullptr;
  slopes_type slopes = nullptr;
};

}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/activations_kernels.inl"
#include "shunt/backend/host/simd/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_ABI {

/// `act` must outlive the code.
template <any_activation A>
activation_code code_of([[maybe_unused]] on_host const& on, A const& act) noexcept {
  activation_code code;
  code.gated = gated(act);
  if constexpr (std::same_as<A, activation> || requires { A::kind; }) {
    activation const chosen(act);
    code.kind = chosen.kind;
    code.a = chosen.a;
    code.b = chosen.b;
  } else {
    code.self = &act;
    code.values = SHUNT_ISA_PICK(on, own_values<A>);
    code.slopes = SHUNT_ISA_PICK(on, own_slopes<A>);
  }
  return code;
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host
