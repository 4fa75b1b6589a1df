#pragma once
#include "shunt/core/status.hpp"
#include "shunt/layer/options.hpp"

namespace shunt::detail {

/// The layer's own few steps, of a policy: one specialisation in each backend's layer header.
template <class P> struct layer_on;

/// Stages one after the other, until one fails: `step("route", route(...)) && step(...)`.
class stages {
 public:
  explicit stages(stage_hook hook) noexcept : hook_(hook) {}

  bool operator()(char const* stage, status const& outcome) noexcept {
    if (!outcome.ok()) {
      outcome_ = outcome;
    } else if (hook_.after != nullptr) {
      hook_.after(hook_.self, stage);
    }
    return outcome.ok();
  }
  [[nodiscard]] status const& outcome() const noexcept { return outcome_; }

 private:
  stage_hook hook_;
  status outcome_;
};

}  // namespace shunt::detail
