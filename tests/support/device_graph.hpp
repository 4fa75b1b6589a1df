#pragma once
#include "shunt/backend/cuda/policy.cuh"
#include "support/device.hpp"

namespace shunt::test {

/// What `enqueue(on_cuda)` enqueues, captured in a graph: nothing of it has happened until replay().
class captured {
 public:
  template <class Enqueue> explicit captured(Enqueue const& enqueue) {
    EXPECT_EQ(cudaStreamCreate(&stream_), cudaSuccess);
    EXPECT_EQ(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal), cudaSuccess);
    status const done = enqueue(on_cuda{stream_});
    EXPECT_TRUE(done.ok()) << done.message();
    EXPECT_EQ(cudaStreamEndCapture(stream_, &graph_), cudaSuccess);
    EXPECT_EQ(cudaGraphInstantiate(&exec_, graph_, 0), cudaSuccess);
  }
  captured(captured const&) = delete;
  ~captured() {
    EXPECT_EQ(cudaGraphExecDestroy(exec_), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph_), cudaSuccess);
    EXPECT_EQ(cudaStreamDestroy(stream_), cudaSuccess);
  }
  void replay() {
    ASSERT_EQ(cudaGraphLaunch(exec_, stream_), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  }

 private:
  cudaStream_t stream_{};
  cudaGraph_t graph_{};
  cudaGraphExec_t exec_{};
};

}  // namespace shunt::test
