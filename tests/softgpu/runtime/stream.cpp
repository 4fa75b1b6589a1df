// The order of streams.
#include "runtime/stream.hpp"

#include <chrono>
#include <cstdlib>
#include <thread>

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

/// The open work enqueued last: its stream goes first.
work_ref latest_of_all() {
  work_ref latest;
  for_each_stream([&](CUstream_st const& s) {
    if (!is_done(s.last) && (latest == nullptr || s.last->number > latest->number)) latest = s.last;
  });
  return latest;
}

/// Work must begin some day though no call needs it: the host may wait for page-locked memory or
/// for a host function all by itself.
void look_after_work() {
  for (;;) {
    held_lock lock = lock_when_idle(std::chrono::seconds(1));
    while (work_ref const latest = latest_of_all())
      if (!step(lock, latest) || called_since(lock)) break;
    lock.unlock();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
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

stream_ref make_stream(unsigned flags, int priority) {
  auto s = std::make_shared<CUstream_st>();
  s->flags = flags;
  s->priority = priority;
  s->id = ++streams().ids;
  streams().live.emplace(s.get(), s);
  return s;
}

std::vector<work_ref> all_of(CUstream_st const& s) {
  std::vector<work_ref> all{s.last};
  if (s.legacy) add_implicit(s, all);  // as a work in it would
  return all;
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
  if (configure().eager) {
    finish(lock, made);
  } else {
    static bool const looked_after = (std::thread(look_after_work).detach(), true);
    static_cast<void>(looked_after);
  }
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
  while (work_ref const latest = latest_of_all()) finish(lock, latest);
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

}  // namespace softgpu
