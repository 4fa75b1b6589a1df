// When a copy happens. CUDA documents it by the memory at its ends ("API synchronization behavior"):
// pageable memory is read at the call and written before it returns, everything else is the
// stream's; the calls without Async wait, except from device memory to device memory.
#include "runtime/copy.hpp"

#include "memory/arena.hpp"
#include "runtime/error.hpp"
#include "runtime/registry.hpp"

namespace softgpu {
namespace {

bool is_host(memory_kind k) { return k == memory_kind::pageable || k == memory_kind::pinned; }

cudaError_t check_range(plane const& p, box const& size, char const* call, char const* end) {
  if (p.address == 0) return cudaErrorInvalidValue;
  if (size.height > 1 && p.pitch < size.width) return cudaErrorInvalidPitchValue;
  if (!map::in_arena(p.address) || arena::covers(p.address, size.span(p))) return cudaSuccess;
  return refuse(cudaErrorInvalidValue, std::string(call) + " of " + std::to_string(size.span(p)) +
                                           " bytes exceeds the " + end);
}

/// Where a corner of a pitched box lies.
plane corner(cudaPitchedPtr const& p, cudaPos const& at) {
  std::size_t const slice = p.pitch * p.ysize;
  return plane_at(static_cast<char*>(p.ptr) + at.z * slice + at.y * p.pitch + at.x, p.pitch, slice);
}

cudaError_t enqueue_copy(copy_request const& c, cudaStream_t stream, until when) {
  return submit(stream, copy_action{c.to, c.from, c.size, c.call, {}}, when);
}

}  // namespace

cudaError_t check(copy_request const& c) {
  if (c.kind < cudaMemcpyHostToHost || c.kind > cudaMemcpyDefault)
    return cudaErrorInvalidMemcpyDirection;
  bool const to_device = c.kind == cudaMemcpyHostToDevice || c.kind == cudaMemcpyDeviceToDevice;
  bool const from_device = c.kind == cudaMemcpyDeviceToHost || c.kind == cudaMemcpyDeviceToDevice;
  if ((to_device && !map::in_arena(c.to.address)) ||
      (from_device && !map::in_arena(c.from.address)))
    return refuse(cudaErrorInvalidValue, std::string(c.call) +
                                             ": its direction names device memory where there is "
                                             "none");
  if (c.kind != cudaMemcpyDefault &&
      ((!to_device && kind_of(c.to.address) == memory_kind::device) ||
       (!from_device && kind_of(c.from.address) == memory_kind::device)))
    return refuse(cudaErrorInvalidValue,
                  std::string(c.call) + ": its direction names host memory where device memory is");
  if (c.size.empty()) return cudaSuccess;
  cudaError_t const e = check_range(c.to, c.size, c.call, "destination");
  return e != cudaSuccess ? e : check_range(c.from, c.size, c.call, "source");
}

cudaError_t check(fill_action const& f) {
  if (f.element != 1 && f.element != 2 && f.element != 4) return cudaErrorInvalidValue;
  if (f.size.empty()) return cudaSuccess;
  if (!map::in_arena(f.to.address))
    return refuse(cudaErrorInvalidValue,
                  std::string(f.call) + " of memory that is not the device's");
  return check_range(f.to, f.size, f.call, "destination");
}

cudaError_t copy_now(copy_request const& c, cudaStream_t stream) {
  if (cudaError_t const e = enter(); e != cudaSuccess) return e;
  if (cudaError_t const e = check(c); e != cudaSuccess) return record(e);
  if (c.size.empty()) return cudaSuccess;
  bool const on_device = kind_of(c.to.address) == memory_kind::device &&
                         kind_of(c.from.address) == memory_kind::device;
  return enqueue_copy(c, stream, on_device ? until::enqueued : until::done);
}

cudaError_t copy_async(copy_request const& c, cudaStream_t stream) {
  if (cudaError_t const e = enter(); e != cudaSuccess) return e;
  if (cudaError_t const e = check(c); e != cudaSuccess) return record(e);
  if (c.size.empty()) return cudaSuccess;
  memory_kind const to = kind_of(c.to.address), from = kind_of(c.from.address);
  bool const waits = to == memory_kind::pageable || (is_host(to) && is_host(from));
  return enqueue_copy(c, stream,
                      waits                           ? until::copied
                      : from == memory_kind::pageable ? until::staged
                                                      : until::enqueued);
}

cudaError_t fill_now(fill_action f, cudaStream_t stream) {
  if (cudaError_t const e = enter(); e != cudaSuccess) return e;
  if (cudaError_t const e = check(f); e != cudaSuccess) return record(e);
  if (f.size.empty()) return cudaSuccess;
  // Memory of the device alone: the host does not wait.
  bool const waits = kind_of(f.to.address) != memory_kind::device;
  return submit(stream, std::move(f), waits ? until::done : until::enqueued);
}

cudaError_t fill_async(fill_action f, cudaStream_t stream) {
  if (cudaError_t const e = enter(); e != cudaSuccess) return e;
  if (cudaError_t const e = check(f); e != cudaSuccess) return record(e);
  return f.size.empty() ? cudaSuccess : submit(stream, std::move(f));
}

cudaError_t box_request(cudaMemcpy3DParms const* p, char const* call, copy_request& out) {
  if (p == nullptr) return record(cudaErrorInvalidValue);
  if (p->srcArray != nullptr || p->dstArray != nullptr) return unsupported(call, "a CUDA array");
  out = {corner(p->dstPtr, p->dstPos),
         corner(p->srcPtr, p->srcPos),
         {p->extent.width, p->extent.height, p->extent.depth},
         p->kind,
         call};
  return cudaSuccess;
}

cudaError_t symbol_range(void const* symbol, std::size_t bytes, std::size_t offset,
                         std::uint64_t& address) {
  registry::device_variable v;
  try {
    v = registry::find_variable(symbol);
  } catch (std::exception const& e) { return refuse(cudaErrorInvalidPtx, e.what()); }
  if (v.address == 0) return record(cudaErrorInvalidSymbol);
  if (offset > v.bytes || bytes > v.bytes - offset) return record(cudaErrorInvalidValue);
  address = v.address + offset;
  return cudaSuccess;
}

}  // namespace softgpu
