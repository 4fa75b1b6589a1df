#pragma once
// Copies and fills before they are enqueued: what the caller asked for, and whether it may.

#include <cuda_runtime_api.h>

#include "runtime/stream.hpp"

namespace softgpu {

struct copy_request {
  plane to, from;
  box size;
  cudaMemcpyKind kind = cudaMemcpyDefault;
  char const* call = "";
};

inline plane plane_at(void const* p, std::size_t pitch = 0, std::size_t slice = 0) {
  return {reinterpret_cast<std::uint64_t>(p), pitch, slice};
}

/// Success where both ends lie inside an allocation (device memory) and the direction is right.
cudaError_t check(copy_request const& c);
cudaError_t check(fill_action const& f);

/// Checks and enqueues, as the call without and with `Async` in its name does.
cudaError_t copy_now(copy_request const& c, cudaStream_t stream);
cudaError_t copy_async(copy_request const& c, cudaStream_t stream);
cudaError_t fill_now(fill_action f, cudaStream_t stream);
cudaError_t fill_async(fill_action f, cudaStream_t stream);

/// The box two pitched pointers and an extent describe; or an error, recorded.
cudaError_t box_request(cudaMemcpy3DParms const* p, char const* call, copy_request& out);

/// A variable's address with an offset, where [offset, offset + bytes) is inside it.
cudaError_t symbol_range(void const* symbol, std::size_t bytes, std::size_t offset,
                         std::uint64_t& address);

}  // namespace softgpu
