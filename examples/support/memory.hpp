#pragma once
#include <cstddef>
#include <utility>
#include <vector>

#include "shunt/core/policy.hpp"
#include "shunt/core/view.hpp"

namespace lm {

/// Elements in memory that a policy works in, with a copy on the host for files and reports: here both
/// are one. A device's is in device_memory.cuh.
template <class T, class P> class memory {
  static_assert(P::memory == shunt::space::host);

 public:
  explicit memory(std::size_t count = 0) : values_(count) {}

  [[nodiscard]] std::size_t size() const noexcept { return values_.size(); }
  [[nodiscard]] T* data() noexcept { return values_.data(); }
  [[nodiscard]] shunt::view<T, 1> view() noexcept { return values_; }

  /// The elements as they are now, on the host; valid as long as this, until it is asked again.
  [[nodiscard]] T const* read() const { return values_.data(); }
  /// Where elements are put on the host, and how the policy then gets them.
  [[nodiscard]] T* stage() { return values_.data(); }
  void commit() {}

 private:
  std::vector<T> values_;
};

}  // namespace lm
