#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <vector>

#include "memory.hpp"
#include "problem.hpp"
#include "shunt/backend/cuda/policy.cuh"

namespace lm {

inline void require(cudaError_t e) {
  if (e != cudaSuccess) throw problem(std::string("CUDA: ") + cudaGetErrorString(e));
}

/// Elements in a device's memory, zero at first, and their copy on the host.
template <class T> class memory<T, shunt::on_cuda> {
 public:
  explicit memory(std::size_t count = 0) : copy_(count) {
    if (count == 0) return;
    require(cudaMalloc(&data_, bytes()));
    require(cudaMemset(data_, 0, bytes()));
  }
  memory(memory&& other) noexcept : data_(other.data_), copy_(std::move(other.copy_)) {
    other.data_ = nullptr;
  }
  memory& operator=(memory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(copy_, other.copy_);
    return *this;
  }
  ~memory() { (void)cudaFree(data_); }

  [[nodiscard]] std::size_t size() const noexcept { return copy_.size(); }
  [[nodiscard]] T* data() noexcept { return data_; }
  [[nodiscard]] shunt::view<T, 1, shunt::space::device> view() noexcept {
    return {data_, {{static_cast<shunt::offset_t>(size())}}};
  }
  /// Waits for what was enqueued before.
  [[nodiscard]] T const* read() const {
    if (data_ != nullptr) require(cudaMemcpy(copy_.data(), data_, bytes(), cudaMemcpyDeviceToHost));
    return copy_.data();
  }
  [[nodiscard]] T* stage() { return copy_.data(); }
  void commit() {
    if (data_ != nullptr) require(cudaMemcpy(data_, copy_.data(), bytes(), cudaMemcpyHostToDevice));
  }

 private:
  [[nodiscard]] std::size_t bytes() const noexcept { return copy_.size() * sizeof(T); }
  T* data_ = nullptr;
  mutable std::vector<T> copy_;
};

}  // namespace lm
