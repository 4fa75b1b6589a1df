#pragma once
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "shunt/core/view.hpp"

namespace shunt::test {

/// Device memory of a test's own, exactly as long as asked for: what lies behind it is nobody's. Not
/// initialized where it is made by a count, so that a read of what nobody wrote can be noticed.
template <class T> class on_device {
 public:
  on_device() = default;
  explicit on_device(offset_t count) : count_(count) {
    EXPECT_EQ(cudaMalloc(&data_, bytes()), cudaSuccess);
  }
  template <class C>
    requires requires(C const& c) { c.begin(), c.data(), c.size(); }
  explicit on_device(C const& from) : on_device(static_cast<offset_t>(from.size())) {
    copy(data_, from.data(), cudaMemcpyHostToDevice);
  }
  on_device(on_device&& other) noexcept : data_(other.data_), count_(other.count_) {
    other.data_ = nullptr;
  }
  on_device(on_device const&) = delete;
  ~on_device() { EXPECT_EQ(cudaFree(data_), cudaSuccess); }

  [[nodiscard]] std::vector<T> host() const {
    std::vector<T> out(static_cast<std::size_t>(count_));
    copy(out.data(), data_, cudaMemcpyDeviceToHost);
    return out;
  }
  void fill(std::vector<T> const& from) { copy(data_, from.data(), cudaMemcpyHostToDevice); }
  [[nodiscard]] T* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return static_cast<std::size_t>(count_); }

  template <class... Extent> [[nodiscard]] auto as(Extent... extent) const noexcept {
    return view<T, static_cast<int>(sizeof...(Extent)), space::device>(
        data_, {{static_cast<offset_t>(extent)...}});
  }

 private:
  [[nodiscard]] std::size_t bytes() const { return static_cast<std::size_t>(count_) * sizeof(T); }
  void copy(T* to, T const* from, cudaMemcpyKind kind) const {
    if (count_ > 0) { EXPECT_EQ(cudaMemcpy(to, from, bytes(), kind), cudaSuccess); }
  }
  T* data_ = nullptr;
  offset_t count_ = 0;
};

}  // namespace shunt::test
