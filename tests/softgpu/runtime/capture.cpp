// What calls may not do while something is captured, and what becomes of a capture when they do.
#include "runtime/capture.hpp"

#include "runtime/error.hpp"

namespace softgpu {
namespace {

thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

std::vector<std::shared_ptr<capture>>& active() {
  static auto* const a = new std::vector<std::shared_ptr<capture>>;
  return *a;
}

}  // namespace

cudaStreamCaptureMode& capture_mode_of_thread() { return thread_mode; }

void begin_capture(std::shared_ptr<capture> const& c) { active().push_back(c); }

void end_capture(capture& c) {
  for (auto const& [handle, s] : streams().live)
    if (s->capturing.get() == &c) s->capturing = nullptr, s->tips.clear();
  std::erase_if(active(), [&](auto const& a) { return a.get() == &c; });
  c.ended = true;
}

cudaError_t spoil(capture& c, cudaError_t e) {
  if (!c.valid) return cudaErrorStreamCaptureInvalidated;
  c.valid = false;
  return e;
}

cudaError_t add_to_capture(CUstream_st& s, action what) {
  if (!s.capturing->valid) return cudaErrorStreamCaptureInvalidated;
  s.tips = {s.capturing->graph->add(std::move(what), s.tips)};
  return cudaSuccess;
}

cudaError_t check_legacy() {
  cudaError_t out = cudaSuccess;
  for (auto const& [handle, s] : streams().live)
    if (s->blocking() && s->capturing != nullptr)
      spoil(*s->capturing, out = cudaErrorStreamCaptureImplicit);
  return out;
}

cudaError_t check_none_capturing() {
  cudaError_t out = cudaSuccess;
  for (auto const& c : active()) spoil(*c, out = cudaErrorStreamCaptureUnsupported);
  return out;
}

cudaError_t check_unsafe() {
  if (thread_mode == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  cudaError_t out = cudaSuccess;
  for (auto const& c : active()) {
    bool const ours = c->thread == std::this_thread::get_id();
    bool const theirs = !ours && thread_mode == cudaStreamCaptureModeGlobal &&
                        c->mode == cudaStreamCaptureModeGlobal;
    if (theirs || (ours && c->mode != cudaStreamCaptureModeRelaxed))
      spoil(*c, out = cudaErrorStreamCaptureUnsupported);
  }
  return out;
}

cudaError_t enter_unsafe() {
  if (cudaError_t const e = enter(); e != cudaSuccess) return e;
  held_lock const lock = lock_runtime();
  return record(check_unsafe());
}

void abandon_capture(CUstream_st& s) {
  if (s.capturing == nullptr) return;
  std::shared_ptr<capture> const c = s.capturing;
  c->valid = false;
  if (c->origin == &s) return end_capture(*c);
  s.capturing = nullptr;
  s.tips.clear();
}

}  // namespace softgpu
