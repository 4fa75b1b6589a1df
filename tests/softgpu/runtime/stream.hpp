#pragma once
// Streams: where work is enqueued. A stream is its last work; the rest follows from what each work
// waits for (order.hpp). All of it is under the lock of the runtime.

#include <cuda_runtime_api.h>

#include <deque>
#include <map>
#include <vector>

#include "runtime/order.hpp"

namespace softgpu {
struct capture;
}

struct CUstream_st {
  unsigned flags = cudaStreamDefault;
  int priority = 0;
  bool legacy = false;
  unsigned long long id = 0;
  softgpu::work_ref last;
  std::deque<softgpu::work_ref> open;  // oldest first
  std::shared_ptr<softgpu::capture> capturing;
  std::vector<CUgraphNode_st*> tips;  // what the next captured node comes after

  [[nodiscard]] bool blocking() const { return !legacy && flags != cudaStreamNonBlocking; }
};

namespace softgpu {

using stream_ref = std::shared_ptr<CUstream_st>;

struct stream_table {
  std::map<CUstream_st*, stream_ref> live;  // all but the legacy one
  std::vector<stream_ref> retired;          // destroyed, with work that has yet to run
  stream_ref legacy;
  unsigned long long ids = 1;
};
stream_table& streams();

stream_ref make_stream(unsigned flags, int priority);
/// What a wait for the stream waits for.
std::vector<work_ref> all_of(CUstream_st const& s);
/// The stream a handle means; null where it means none.
stream_ref find_stream(cudaStream_t handle);
/// In `_ptds` and `_ptsz` calls the null stream is the thread's own.
inline cudaStream_t per_thread(cudaStream_t s) { return s == nullptr ? cudaStreamPerThread : s; }

/// Whether the call may return before its work has run.
enum class until {
  enqueued,  // asynchronous
  done,      // it may not: such a call cannot be captured
  staged,    // pageable memory is involved: the source is copied now; captured, it is read later
  copied,    // pageable memory is involved: done, unless captured
};

/// Enqueues an action, or adds it to the capture its stream is part of. Returns the errors CUDA
/// would, recorded; those of the work itself become the device's.
cudaError_t submit(cudaStream_t handle, action what, until when = until::enqueued);

/// The same for work with further dependencies, on a stream that is not capturing.
work_ref enqueue(held_lock& lock, CUstream_st& s, action what, std::vector<work_ref> after = {});

/// Runs everything that has been enqueued.
void finish_all(held_lock& lock);
/// Arranges for that at the end of the process.
void watch_streams();

/// What most calls begin with: the device's sticky error, and calls from inside host functions.
cudaError_t enter();

}  // namespace softgpu
