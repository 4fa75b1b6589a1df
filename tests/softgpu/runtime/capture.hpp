#pragma once
// Stream capture: a stream, and those that join it through events, whose work becomes a graph.

#include <cuda_runtime_api.h>

#include <memory>
#include <thread>
#include <vector>

#include "runtime/graph.hpp"
#include "runtime/stream.hpp"

namespace softgpu {

struct capture {
  unsigned long long id = 0;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id thread;
  CUstream_st* origin = nullptr;
  std::unique_ptr<CUgraph_st> own;  // unless the graph is one the caller has
  CUgraph_st* graph = nullptr;
  bool valid = true;  // no forbidden call has been made
  bool ended = false;
};

/// Makes a capture known; and takes every stream out of one that is over.
void begin_capture(std::shared_ptr<capture> const& c);
void end_capture(capture& c);
/// The mode cudaThreadExchangeStreamCaptureMode sets.
cudaStreamCaptureMode& capture_mode_of_thread();

/// A call that cannot be captured was made on a capturing stream: the capture is lost.
cudaError_t spoil(capture& c, cudaError_t e);
/// Adds a node after the stream's tips.
cudaError_t add_to_capture(CUstream_st& s, action what);
/// Success, or what a call on the legacy stream says while a blocking stream is capturing.
cudaError_t check_legacy();
/// Success, or what a call says that no capture allows (cudaDeviceSynchronize).
cudaError_t check_none_capturing();
/// Success, or what a call says that might disturb a capture (cudaMalloc, cudaFree): it depends on
/// the modes of the thread and of the captures.
cudaError_t check_unsafe();
/// The same, with the lock taken: what an allocation or a free begins with.
cudaError_t enter_unsafe();
/// The stream has been destroyed, or the device reset.
void abandon_capture(CUstream_st& s);

}  // namespace softgpu
