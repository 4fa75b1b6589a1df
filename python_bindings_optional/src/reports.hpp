#pragma once
#include <nanobind/nanobind.h>

#include "array.hpp"
#include "device_call.hpp"
#include "shunt/stats/report.hpp"

namespace bindings {

/// A report of one T that a primitive writes. A device's lies there until it is asked for, so that no
/// call waits.
template <class T> class reported {
 public:
  /// Where the call that is going on writes it, on a device into an array of the kind of `like`.
  template <shunt::space S>
  [[nodiscard]] shunt::view<T, 1, S> renewed(nb::handle like, fetch_bytes fetch) {
    value_ = {};
    if constexpr (S == shunt::space::device) {
      constexpr offset_t words = (sizeof(T) + 7) / 8;
      memory_ = output(nb::none(), like, "report", {words}, {element::i64}, place::cuda);
      device_ = called().device;
    }
    fetch_ = fetch;
    return where<T, S>();
  }
  /// Where it was written.
  template <class Element, shunt::space S>
  [[nodiscard]] shunt::view<Element, 1, S> where() noexcept {
    if constexpr (S == shunt::space::device) {
      return {static_cast<Element*>(memory_.data()), {{1}}};
    } else {
      return {&value_, {{1}}};
    }
  }
  /// Waits for the device where it must.
  [[nodiscard]] T const& value() {
    if (fetch_ != nullptr) {
      fetch_(&value_, memory_.data(), sizeof(T), device_);
      fetch_ = nullptr;
    }
    return value_;
  }

 private:
  T value_{};
  array memory_;
  int device_ = 0;
  fetch_bytes fetch_ = nullptr;
};

/// The members of Shunt's reports, by their names.
[[nodiscard]] nanobind::dict described(shunt::load_figures const& f);
[[nodiscard]] nanobind::dict described(shunt::plan_counts const& c);

}  // namespace bindings
