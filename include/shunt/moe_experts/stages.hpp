#pragma once
#include <concepts>

#include "shunt/core/abi.hpp"
#include "shunt/core/status.hpp"
#include "shunt/moe_experts/options.hpp"

namespace shunt::detail {
inline namespace SHUNT_ABI {

/// The layer's own few steps, of a policy: one specialization in each backend's layer header.
template <class P> struct layer_backend;

/// Stages one after the other; after one that failed, none. `step("combine", [&] { return combine(…); })`,
/// or, where the calls are joined by &&, `step("norm", rms_norm(…)) && step(…)`.
class stages {
 public:
  explicit stages(stage_hook hook) noexcept : hook_(hook) {}

  template <class Stage>
    requires std::invocable<Stage&>
  void operator()(char const* name, Stage&& stage) noexcept {
    if (outcome_.ok()) (*this)(name, stage());
  }
  bool operator()(char const* name, status const& outcome) noexcept {
    outcome_ = outcome;
    if (outcome_.ok() && hook_.after != nullptr) hook_.after(hook_.self, name);
    return outcome_.ok();
  }
  [[nodiscard]] status const& outcome() const noexcept { return outcome_; }

 private:
  stage_hook hook_;
  status outcome_;
};

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
