#pragma once
// Streams, events and page-locked memory that end with their scope.

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstddef>

struct stream {
  cudaStream_t handle = nullptr;
  explicit stream(unsigned flags = cudaStreamNonBlocking) {
    EXPECT_EQ(cudaStreamCreateWithFlags(&handle, flags), cudaSuccess);
  }
  stream(stream const&) = delete;
  ~stream() { EXPECT_EQ(cudaStreamDestroy(handle), cudaSuccess); }
  operator cudaStream_t() const { return handle; }
};

struct event {
  cudaEvent_t handle = nullptr;
  explicit event(unsigned flags = cudaEventDefault) {
    EXPECT_EQ(cudaEventCreateWithFlags(&handle, flags), cudaSuccess);
  }
  event(event const&) = delete;
  ~event() { EXPECT_EQ(cudaEventDestroy(handle), cudaSuccess); }
  operator cudaEvent_t() const { return handle; }
};

struct pinned {
  int* data = nullptr;
  explicit pinned(std::size_t n) { EXPECT_EQ(cudaMallocHost(&data, n * sizeof(int)), cudaSuccess); }
  pinned(pinned const&) = delete;
  ~pinned() { EXPECT_EQ(cudaFreeHost(data), cudaSuccess); }
};

/// A captured graph and its executable form.
struct graph {
  cudaGraph_t handle = nullptr;
  cudaGraphExec_t exec = nullptr;
  template <class F> graph(cudaStream_t s, F&& work) {
    EXPECT_EQ(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal), cudaSuccess);
    work();
    EXPECT_EQ(cudaStreamEndCapture(s, &handle), cudaSuccess);
    EXPECT_EQ(cudaGraphInstantiate(&exec, handle, 0), cudaSuccess);
  }
  graph(graph const&) = delete;
  ~graph() {
    EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(handle), cudaSuccess);
  }
  std::size_t nodes() const {
    std::size_t n = 0;
    EXPECT_EQ(cudaGraphGetNodes(handle, nullptr, &n), cudaSuccess);
    return n;
  }
};
