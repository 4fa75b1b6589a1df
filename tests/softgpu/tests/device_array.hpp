#pragma once
// Device memory with the host's vector on its other end, through the CUDA runtime alone.

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <vector>

template <class T> struct device_array {
  T* data = nullptr;
  std::size_t size = 0;

  explicit device_array(std::size_t n) : size(n) {
    EXPECT_EQ(cudaMalloc(&data, std::max<std::size_t>(n, 1) * sizeof(T)), cudaSuccess);
  }
  explicit device_array(std::vector<T> const& from) : device_array(from.size()) {
    EXPECT_EQ(cudaMemcpy(data, from.data(), size * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
  }
  device_array(device_array const&) = delete;
  device_array& operator=(device_array const&) = delete;
  ~device_array() { cudaFree(data); }

  std::vector<T> host() const {
    std::vector<T> out(size);
    EXPECT_EQ(cudaMemcpy(out.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
    return out;
  }
};
