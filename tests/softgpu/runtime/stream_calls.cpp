// The calls on streams.
#include <cuda_runtime_api.h>

#include <algorithm>

#include "runtime/capture.hpp"
#include "runtime/error.hpp"
#include "runtime/stream.hpp"

namespace softgpu {
namespace {

template <class F> cudaError_t with_stream(cudaStream_t handle, F&& f) {
  held_lock lock = lock_runtime();
  stream_ref const s = find_stream(handle);
  return s == nullptr ? record(cudaErrorInvalidResourceHandle) : record(f(lock, *s));
}

/// What a call that asks after a stream's work begins with.
cudaError_t may_ask(CUstream_st const& s) {
  if (s.capturing != nullptr) return spoil(*s.capturing, cudaErrorStreamCaptureUnsupported);
  return s.legacy ? check_legacy() : cudaSuccess;
}

constexpr int least_priority = 0, greatest_priority = -5;

}  // namespace
}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* out, unsigned flags, int priority) {
  if (cudaError_t const e = enter(); e != cudaSuccess) return e;
  if (out == nullptr || (flags != cudaStreamDefault && flags != cudaStreamNonBlocking))
    return record(cudaErrorInvalidValue);
  held_lock const lock = lock_runtime();
  *out = make_stream(flags, std::clamp(priority, greatest_priority, least_priority)).get();
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* out, unsigned flags) {
  return cudaStreamCreateWithPriority(out, flags, 0);
}
cudaError_t cudaStreamCreate(cudaStream_t* out) {
  return cudaStreamCreateWithPriority(out, cudaStreamDefault, 0);
}

cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  held_lock const lock = lock_runtime();
  auto const found = streams().live.find(handle);
  if (found == streams().live.end()) return record(cudaErrorInvalidResourceHandle);
  abandon_capture(*found->second);
  if (!is_done(found->second->last)) streams().retired.push_back(found->second);
  streams().live.erase(found);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  if (cudaError_t const e = enter(); e != cudaSuccess) return e;
  return with_stream(handle, [](held_lock& lock, CUstream_st& s) {
    if (cudaError_t const e = may_ask(s); e != cudaSuccess) return e;
    finish(lock, make_work(empty_action{}, all_of(s)));
    return sticky();
  });
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  if (cudaError_t const e = enter(); e != cudaSuccess) return e;
  return with_stream(handle, [](held_lock& lock, CUstream_st& s) {
    if (cudaError_t const e = may_ask(s); e != cudaSuccess) return e;
    bool open = false;
    for (work_ref const& w : all_of(s)) open = open || step(lock, w);
    return sticky() != cudaSuccess ? sticky() : open ? cudaErrorNotReady : cudaSuccess;
  });
}

cudaError_t cudaDeviceSynchronize() {
  if (cudaError_t const e = enter(); e != cudaSuccess) return e;
  held_lock lock = lock_runtime();
  if (cudaError_t const e = check_none_capturing(); e != cudaSuccess) return record(e);
  finish_all(lock);
  return record(sticky());
}

// Memory, streams and events stay: a program that resets its device before it ends is told of what
// it leaks.
cudaError_t cudaDeviceReset() {
  held_lock lock = lock_runtime();
  for (auto const& [handle, s] : streams().live) abandon_capture(*s);
  finish_all(lock);
  heal();
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t f, void* data) {
  if (f == nullptr) return record(cudaErrorInvalidValue);
  return submit(stream, host_action{f, data});
}

cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t f, void* data,
                                  unsigned flags) {
  if (f == nullptr || flags != 0) return record(cudaErrorInvalidValue);
  {
    held_lock const lock = lock_runtime();
    stream_ref const s = find_stream(stream);
    if (s != nullptr && s->capturing != nullptr)
      return record(spoil(*s->capturing, cudaErrorStreamCaptureUnsupported));
  }
  return submit(stream, callback_action{f, stream, data});
}

cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned* flags) {
  return with_stream(stream, [&](held_lock&, CUstream_st& s) {
    return flags == nullptr ? cudaErrorInvalidValue : (*flags = s.flags, cudaSuccess);
  });
}
cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority) {
  return with_stream(stream, [&](held_lock&, CUstream_st& s) {
    return priority == nullptr ? cudaErrorInvalidValue : (*priority = s.priority, cudaSuccess);
  });
}
cudaError_t cudaStreamGetId(cudaStream_t stream, unsigned long long* id) {
  return with_stream(stream, [&](held_lock&, CUstream_st& s) {
    return id == nullptr ? cudaErrorInvalidValue : (*id = s.id, cudaSuccess);
  });
}
cudaError_t cudaStreamGetDevice(cudaStream_t stream, int* device) {
  return with_stream(stream, [&](held_lock&, CUstream_st&) {
    return device == nullptr ? cudaErrorInvalidValue : (*device = 0, cudaSuccess);
  });
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  if (least != nullptr) *least = least_priority;
  if (greatest != nullptr) *greatest = greatest_priority;
  return cudaSuccess;
}

cudaError_t cudaStreamSetAttribute(cudaStream_t stream, cudaStreamAttrID a,
                                   cudaStreamAttrValue const* value) {
  return with_stream(stream, [&](held_lock&, CUstream_st& s) {
    switch (a) {
      case cudaLaunchAttributePriority:
        s.priority = std::clamp(value->priority, greatest_priority, least_priority);
        return cudaSuccess;
      case cudaLaunchAttributeAccessPolicyWindow:  // hints
      case cudaLaunchAttributeSynchronizationPolicy: return cudaSuccess;
      default: return unsupported("cudaStreamSetAttribute", "attribute " + std::to_string(a));
    }
  });
}
cudaError_t cudaStreamGetAttribute(cudaStream_t stream, cudaStreamAttrID a,
                                   cudaStreamAttrValue* value) {
  return with_stream(stream, [&](held_lock&, CUstream_st& s) {
    if (a != cudaLaunchAttributePriority)
      return unsupported("cudaStreamGetAttribute", "attribute " + std::to_string(a));
    value->priority = s.priority;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamCopyAttributes(cudaStream_t to, cudaStream_t from) {
  held_lock const lock = lock_runtime();
  stream_ref const t = find_stream(to), f = find_stream(from);
  if (t == nullptr || f == nullptr) return record(cudaErrorInvalidResourceHandle);
  t->priority = f->priority;
  return cudaSuccess;
}
cudaError_t cudaStreamAttachMemAsync(cudaStream_t stream, void*, size_t, unsigned) {
  return submit(stream, empty_action{});  // all managed memory is everybody's
}

}  // extern "C"
