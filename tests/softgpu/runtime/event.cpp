// Events: a place in a stream's work.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <set>

#include "runtime/capture.hpp"
#include "runtime/error.hpp"
#include "runtime/stream.hpp"

struct CUevent_st {
  unsigned flags = cudaEventDefault;
  softgpu::work_ref recorded;
  std::shared_ptr<softgpu::capture> captured;  // where it was recorded in a capturing stream
  std::vector<CUgraphNode_st*> tips;
};

namespace softgpu {
namespace {

std::set<cudaEvent_t>& events() {
  static auto* const e = new std::set<cudaEvent_t>;
  return *e;
}

bool known(cudaEvent_t e) { return events().count(e) != 0; }

/// What asking after an event of a capture says. It spoils the capture.
cudaError_t check_captured(CUevent_st const& e) {
  if (e.captured == nullptr) return cudaSuccess;
  return spoil(*e.captured, cudaErrorCapturedEvent);
}

/// The same, and what waiting for any event says while something is captured.
cudaError_t check_wait(CUevent_st const& e) {
  cudaError_t const bad = check_captured(e);
  return bad != cudaSuccess ? bad : check_unsafe();
}

cudaError_t wait_captured(CUstream_st& s, CUevent_st const& e) {
  if (s.capturing == nullptr) {
    if (e.captured->ended) return cudaErrorCapturedEvent;
    if (!e.captured->valid) return cudaErrorStreamCaptureInvalidated;
    if (s.legacy) return spoil(*e.captured, cudaErrorStreamCaptureImplicit);
    s.capturing = e.captured;  // a fork
    s.tips = e.tips;
    return cudaSuccess;
  }
  if (s.capturing != e.captured) {
    spoil(*e.captured, cudaErrorStreamCaptureMerge);
    return spoil(*s.capturing, cudaErrorStreamCaptureMerge);
  }
  for (CUgraphNode_st* n : e.tips)
    if (std::find(s.tips.begin(), s.tips.end(), n) == s.tips.end()) s.tips.push_back(n);
  return cudaSuccess;
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned flags) {
  if (cudaError_t const e = enter(); e != cudaSuccess) return e;
  constexpr unsigned all = cudaEventBlockingSync | cudaEventDisableTiming | cudaEventInterprocess;
  if (out == nullptr || (flags & ~all) != 0) return record(cudaErrorInvalidValue);
  if ((flags & cudaEventInterprocess) != 0)
    return unsupported("cudaEventCreateWithFlags", "an event between processes");
  held_lock const lock = lock_runtime();
  *out = new CUevent_st{flags, nullptr, nullptr, {}};
  events().insert(*out);
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* out) {
  return cudaEventCreateWithFlags(out, cudaEventDefault);
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
  held_lock const lock = lock_runtime();
  if (events().erase(e) == 0) return record(cudaErrorInvalidResourceHandle);
  delete e;
  return cudaSuccess;
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t stream, unsigned flags) {
  if (cudaError_t const bad = enter(); bad != cudaSuccess) return bad;
  if (flags == cudaEventRecordExternal)
    return unsupported("cudaEventRecordWithFlags", "cudaEventRecordExternal");
  if (flags != 0) return record(cudaErrorInvalidValue);
  held_lock lock = lock_runtime();
  stream_ref const s = find_stream(stream);
  if (s == nullptr || !known(e)) return record(cudaErrorInvalidResourceHandle);
  if (s->capturing != nullptr) {
    if (!s->capturing->valid) return record(cudaErrorStreamCaptureInvalidated);
    e->captured = s->capturing;
    e->tips = s->tips;
    e->recorded = nullptr;
    return cudaSuccess;
  }
  if (s->legacy)
    if (cudaError_t const bad = check_legacy(); bad != cudaSuccess) return record(bad);
  e->captured = nullptr;
  e->recorded = nullptr;  // what it stood for is not needed any longer
  work_ref const made = enqueue(lock, *s, empty_action{});
  e->recorded = made;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream) {
  return cudaEventRecordWithFlags(e, stream, 0);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t e, unsigned flags) {
  if (cudaError_t const bad = enter(); bad != cudaSuccess) return bad;
  if (flags == cudaEventWaitExternal)
    return unsupported("cudaStreamWaitEvent", "cudaEventWaitExternal");
  if (flags != 0) return record(cudaErrorInvalidValue);
  held_lock lock = lock_runtime();
  stream_ref const s = find_stream(stream);
  if (s == nullptr || !known(e)) return record(cudaErrorInvalidResourceHandle);
  if (e->captured != nullptr) return record(wait_captured(*s, *e));
  if (s->capturing != nullptr) {
    if (e->recorded == nullptr) return cudaSuccess;  // never recorded: nothing to wait for
    return record(spoil(*s->capturing, cudaErrorStreamCaptureIsolation));
  }
  if (s->legacy)
    if (cudaError_t const bad = check_legacy(); bad != cudaSuccess) return record(bad);
  if (!is_done(e->recorded)) enqueue(lock, *s, empty_action{}, {e->recorded});
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  if (cudaError_t const bad = enter(); bad != cudaSuccess) return bad;
  held_lock lock = lock_runtime();
  if (!known(e)) return record(cudaErrorInvalidResourceHandle);
  if (cudaError_t const bad = check_wait(*e); bad != cudaSuccess) return record(bad);
  finish(lock, work_ref(e->recorded));
  return record(sticky());
}

cudaError_t cudaEventQuery(cudaEvent_t e) {
  if (cudaError_t const bad = enter(); bad != cudaSuccess) return bad;
  held_lock lock = lock_runtime();
  if (!known(e)) return record(cudaErrorInvalidResourceHandle);
  if (cudaError_t const bad = check_wait(*e); bad != cudaSuccess) return record(bad);
  bool const open = step(lock, work_ref(e->recorded));
  return record(sticky() != cudaSuccess ? sticky() : open ? cudaErrorNotReady : cudaSuccess);
}

cudaError_t cudaEventElapsedTime(float* out, cudaEvent_t begin, cudaEvent_t end) {
  if (cudaError_t const bad = enter(); bad != cudaSuccess) return bad;
  held_lock const lock = lock_runtime();
  if (!known(begin) || !known(end) || out == nullptr ||
      ((begin->flags | end->flags) & cudaEventDisableTiming) != 0)
    return record(cudaErrorInvalidResourceHandle);
  for (cudaEvent_t e : {begin, end})
    if (cudaError_t const bad = check_captured(*e); bad != cudaSuccess) return record(bad);
  if (begin->recorded == nullptr || end->recorded == nullptr)
    return record(cudaErrorInvalidResourceHandle);
  if (!is_done(begin->recorded) || !is_done(end->recorded)) return record(cudaErrorNotReady);
  std::chrono::duration<float, std::milli> const t =
      end->recorded->finished - begin->recorded->finished;
  *out = t.count();
  return cudaSuccess;
}

}  // extern "C"
