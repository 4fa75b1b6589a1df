// The calls that capture.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <set>

#include "runtime/capture.hpp"
#include "runtime/error.hpp"

namespace softgpu {
namespace {

/// Whether all that other streams captured comes before what the origin's next node would.
bool all_joined(capture const& c) {
  std::set<CUgraphNode_st const*> before;
  std::vector<CUgraphNode_st*> open(c.origin->tips);
  while (!open.empty()) {
    CUgraphNode_st* const n = open.back();
    open.pop_back();
    if (before.insert(n).second) open.insert(open.end(), n->after.begin(), n->after.end());
  }
  return std::all_of(streams().live.begin(), streams().live.end(), [&](auto const& entry) {
    CUstream_st const& s = *entry.second;
    return s.capturing.get() != &c || std::all_of(s.tips.begin(), s.tips.end(), [&](auto const* n) {
             return before.count(n) != 0;
           });
  });
}

cudaError_t status_of(CUstream_st const& s, cudaStreamCaptureStatus* out) {
  if (out == nullptr) return cudaErrorInvalidValue;
  if (s.legacy)
    for (auto const& [handle, other] : streams().live)
      if (other->blocking() && other->capturing != nullptr) return cudaErrorStreamCaptureImplicit;
  *out = s.capturing == nullptr ? cudaStreamCaptureStatusNone
         : s.capturing->valid   ? cudaStreamCaptureStatusActive
                                : cudaStreamCaptureStatusInvalidated;
  return cudaSuccess;
}

cudaError_t info_of(cudaStream_t stream, cudaStreamCaptureStatus* status, unsigned long long* id,
                    cudaGraph_t* graph, cudaGraphNode_t const** tips, std::size_t* count) {
  held_lock const lock = lock_runtime();
  stream_ref const s = find_stream(stream);
  if (s == nullptr) return record(cudaErrorInvalidResourceHandle);
  if (cudaError_t const e = status_of(*s, status); e != cudaSuccess) return record(e);
  if (*status != cudaStreamCaptureStatusActive) return cudaSuccess;
  if (id != nullptr) *id = s->capturing->id;
  if (graph != nullptr) *graph = s->capturing->graph;
  if (tips != nullptr) *tips = s->tips.data();
  if (count != nullptr) *count = s->tips.size();
  return cudaSuccess;
}

/// Begins a capture into a graph, or into a new one, after some of its nodes.
cudaError_t begin(cudaStream_t stream, cudaStreamCaptureMode mode, cudaGraph_t graph,
                  std::vector<CUgraphNode_st*> after) {
  if (cudaError_t const e = enter(); e != cudaSuccess) return e;
  held_lock const lock = lock_runtime();
  stream_ref const s = find_stream(stream);
  if (s == nullptr) return record(cudaErrorInvalidResourceHandle);
  if (s->legacy) return record(cudaErrorStreamCaptureUnsupported);
  if (s->capturing != nullptr) return record(cudaErrorIllegalState);
  if (graph != nullptr && find_graph(graph) == nullptr) return record(cudaErrorInvalidValue);
  for (CUgraphNode_st const* n : after)
    if (!holds(*graph, n)) return record(cudaErrorInvalidValue);
  static unsigned long long ids = 0;
  auto c = std::make_shared<capture>();
  c->id = ++ids;
  c->mode = mode;
  c->thread = std::this_thread::get_id();
  c->origin = s.get();
  if (graph == nullptr) c->own = std::make_unique<CUgraph_st>();
  c->graph = graph == nullptr ? c->own.get() : graph;
  begin_capture(c);
  s->capturing = std::move(c);
  s->tips = std::move(after);
  return cudaSuccess;
}

/// Adds to what a capturing stream's next node comes after, or replaces it.
cudaError_t update(cudaStream_t stream, cudaGraphNode_t const* nodes, std::size_t count,
                   unsigned flags) {
  held_lock const lock = lock_runtime();
  stream_ref const s = find_stream(stream);
  if (s == nullptr) return record(cudaErrorInvalidResourceHandle);
  if (s->capturing == nullptr) return record(cudaErrorIllegalState);
  if (!s->capturing->valid) return record(cudaErrorStreamCaptureInvalidated);
  for (std::size_t i = 0; i < count; ++i)
    if (!holds(*s->capturing->graph, nodes[i])) return record(cudaErrorInvalidValue);
  if (flags == cudaStreamSetCaptureDependencies) s->tips.clear();
  for (std::size_t i = 0; i < count; ++i)
    if (std::find(s->tips.begin(), s->tips.end(), nodes[i]) == s->tips.end())
      s->tips.push_back(nodes[i]);
  return cudaSuccess;
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return begin(stream, mode, nullptr, {});
}
cudaError_t cudaStreamBeginCaptureToGraph(cudaStream_t stream, cudaGraph_t graph,
                                          cudaGraphNode_t const* after, cudaGraphEdgeData const*,
                                          size_t count, cudaStreamCaptureMode mode) {
  if (graph == nullptr || (after == nullptr && count != 0)) return record(cudaErrorInvalidValue);
  return begin(stream, mode, graph, {after, after + count});
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* out) {
  if (cudaError_t const e = enter(); e != cudaSuccess) return e;
  if (out == nullptr) return record(cudaErrorInvalidValue);
  *out = nullptr;
  held_lock const lock = lock_runtime();
  stream_ref const s = find_stream(stream);
  if (s == nullptr) return record(cudaErrorInvalidResourceHandle);
  if (s->capturing == nullptr) return record(cudaErrorIllegalState);
  std::shared_ptr<capture> const c = s->capturing;
  if (c->origin != s.get()) return record(spoil(*c, cudaErrorStreamCaptureUnmatched));
  if (c->mode != cudaStreamCaptureModeRelaxed && c->thread != std::this_thread::get_id())
    return record(cudaErrorStreamCaptureWrongThread);
  bool const joined = all_joined(*c);
  end_capture(*c);
  if (!c->valid) return record(cudaErrorStreamCaptureInvalidated);
  if (!joined) return c->valid = false, record(cudaErrorStreamCaptureUnjoined);
  *out = c->own == nullptr ? c->graph : publish(std::move(c->own));
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  held_lock const lock = lock_runtime();
  stream_ref const s = find_stream(stream);
  if (s == nullptr) return record(cudaErrorInvalidResourceHandle);
  return record(status_of(*s, status));
}

// Its forms: without edges (12), and with them (12.3's _v3, 13's own name). No edge here has data.
cudaError_t cudaStreamGetCaptureInfo_v2(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                        unsigned long long* id, cudaGraph_t* graph,
                                        cudaGraphNode_t const** tips, size_t* count) {
  return info_of(stream, status, id, graph, tips, count);
}
cudaError_t cudaStreamGetCaptureInfo_v3(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                        unsigned long long* id, cudaGraph_t* graph,
                                        cudaGraphNode_t const** tips,
                                        cudaGraphEdgeData const** edges, size_t* count) {
  if (edges != nullptr) *edges = nullptr;
  return info_of(stream, status, id, graph, tips, count);
}
#if CUDART_VERSION >= 13000
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                     unsigned long long* id, cudaGraph_t* graph,
                                     cudaGraphNode_t const** tips, cudaGraphEdgeData const** edges,
                                     size_t* count) {
  return cudaStreamGetCaptureInfo_v3(stream, status, id, graph, tips, edges, count);
}
#endif

cudaError_t cudaStreamUpdateCaptureDependencies_v2(cudaStream_t stream, cudaGraphNode_t* nodes,
                                                   cudaGraphEdgeData const*, size_t count,
                                                   unsigned flags) {
  return update(stream, nodes, count, flags);
}
#if CUDART_VERSION >= 13000
cudaError_t cudaStreamUpdateCaptureDependencies(cudaStream_t stream, cudaGraphNode_t* nodes,
                                                cudaGraphEdgeData const*, size_t count,
                                                unsigned flags) {
  return update(stream, nodes, count, flags);
}
#else
cudaError_t cudaStreamUpdateCaptureDependencies(cudaStream_t stream, cudaGraphNode_t* nodes,
                                                size_t count, unsigned flags) {
  return update(stream, nodes, count, flags);
}
#endif

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  if (mode == nullptr || *mode < cudaStreamCaptureModeGlobal ||
      *mode > cudaStreamCaptureModeRelaxed)
    return record(cudaErrorInvalidValue);
  std::swap(*mode, capture_mode_of_thread());
  return cudaSuccess;
}

}  // extern "C"
