// The order of streams, and their calls.
#include "runtime/stream.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "runtime/capture.hpp"
#include "runtime/error.hpp"
#include "softgpu/softgpu.hpp"

namespace softgpu {
namespace {

constexpr std::size_t most_open = 1024;  // works of a stream: as many as a device takes

/// The thread's own default stream.
struct thread_stream {
  stream_ref stream;
  ~thread_stream() {
    if (stream == nullptr) return;
    held_lock const lock = lock_runtime();
    streams().live.erase(stream.get());
    if (!is_done(stream->last)) streams().retired.push_back(stream);
  }
};
thread_local thread_stream own;

stream_ref make_stream(unsigned flags, int priority) {
  auto s = std::make_shared<CUstream_st>();
  s->flags = flags;
  s->priority = priority;
  s->id = ++streams().ids;
  streams().live.emplace(s.get(), s);
  return s;
}

template <class F> void for_each_stream(F&& f) {
  f(*streams().legacy);
  for (auto const& [handle, s] : streams().live) f(*s);
  for (auto const& s : streams().retired) f(*s);
}

/// The legacy stream waits for blocking streams, and they for it.
void add_implicit(CUstream_st const& s, std::vector<work_ref>& after) {
  if (s.blocking()) after.push_back(streams().legacy->last);
  if (!s.legacy) return;
  for_each_stream([&](CUstream_st const& other) {
    if (other.blocking()) after.push_back(other.last);
  });
}

void stage(action& what) {
  auto* const c = std::get_if<copy_action>(&what);
  if (c == nullptr) return;
  auto const* const from = reinterpret_cast<std::byte const*>(c->from.address);
  c->staged.assign(from, from + c->size.span(c->from));
}

void at_exit() {
  skip_host_functions();
  held_lock lock = lock_runtime();
  finish_all(lock);
}

}  // namespace

stream_table& streams() {
  static stream_table* const t = [] {
    auto* made = new stream_table;
    made->legacy = std::make_shared<CUstream_st>();
    made->legacy->legacy = true;
    made->legacy->id = 1;
    return made;
  }();
  return *t;
}

stream_ref find_stream(cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy) return streams().legacy;
  if (handle == cudaStreamPerThread) {
    if (own.stream == nullptr) own.stream = make_stream(cudaStreamDefault, 0);
    return own.stream;
  }
  auto const found = streams().live.find(handle);
  return found == streams().live.end() ? nullptr : found->second;
}

work_ref enqueue(held_lock& lock, CUstream_st& s, action what, std::vector<work_ref> after) {
  while (!s.open.empty() && is_done(s.open.front())) s.open.pop_front();
  if (s.open.size() >= most_open) finish(lock, work_ref(s.open.front()));
  after.push_back(s.last);
  add_implicit(s, after);
  s.last = make_work(std::move(what), std::move(after));
  s.open.push_back(s.last);
  work_ref const made = s.last;
  if (configure().eager) finish(lock, made);
  return made;
}

cudaError_t submit(cudaStream_t handle, action what, until when) {
  if (cudaError_t const e = enter(); e != cudaSuccess) return e;
  held_lock lock = lock_runtime();
  stream_ref const s = find_stream(handle);
  if (s == nullptr) return record(cudaErrorInvalidResourceHandle);
  if (s->capturing != nullptr) {
    if (when == until::done) return record(spoil(*s->capturing, cudaErrorStreamCaptureUnsupported));
    return record(add_to_capture(*s, std::move(what)));
  }
  if (s->legacy)
    if (cudaError_t const e = check_legacy(); e != cudaSuccess) return record(e);
  if (when == until::done)
    if (cudaError_t const e = check_unsafe(); e != cudaSuccess) return record(e);
  if (when == until::staged) stage(what);
  work_ref const made = enqueue(lock, *s, std::move(what));
  if (when != until::done && when != until::copied) return cudaSuccess;
  finish(lock, made);
  return record(sticky());
}

void finish_all(held_lock& lock) {
  for (;;) {
    work_ref latest;  // the stream enqueued to last goes first
    for_each_stream([&](CUstream_st const& s) {
      if (!is_done(s.last) && (latest == nullptr || s.last->number > latest->number))
        latest = s.last;
    });
    if (latest == nullptr) break;
    finish(lock, latest);
  }
  streams().retired.clear();
}

void watch_streams() {
  static int const once = std::atexit(at_exit);
  static_cast<void>(once);
}

cudaError_t enter() {
  if (sticky() != cudaSuccess) return record(sticky());
  return in_host_function() ? record(cudaErrorNotPermitted) : cudaSuccess;
}

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
    std::vector<work_ref> all{s.last};
    if (s.legacy) add_implicit(s, all);  // as a work in it would
    finish(lock, make_work(empty_action{}, std::move(all)));
    return sticky();
  });
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  if (cudaError_t const e = enter(); e != cudaSuccess) return e;
  return with_stream(handle, [](held_lock& lock, CUstream_st& s) {
    if (cudaError_t const e = may_ask(s); e != cudaSuccess) return e;
    std::vector<work_ref> all{s.last};
    if (s.legacy) add_implicit(s, all);
    bool open = false;
    for (work_ref const& w : all) open = open || step(lock, w);
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
