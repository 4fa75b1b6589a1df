// Looking at graphs: nodes, edges, what a node does.
#include <cuda_runtime_api.h>

#include <algorithm>

#include "runtime/error.hpp"
#include "runtime/graph.hpp"
#include "runtime/stream.hpp"

namespace softgpu {
namespace {

/// Fills a caller's array: its size comes in `count`, and what there is goes out.
cudaError_t give(std::vector<CUgraphNode_st*> const& all, cudaGraphNode_t* out,
                 std::size_t* count) {
  if (count == nullptr) return record(cudaErrorInvalidValue);
  if (out != nullptr) {
    std::fill_n(out, *count, nullptr);
    std::copy_n(all.begin(), std::min(*count, all.size()), out);
  }
  *count = out == nullptr ? all.size() : std::min(*count, all.size());
  return cudaSuccess;
}

template <class F>
cudaError_t give_where(cudaGraph_t graph, cudaGraphNode_t* out, std::size_t* count, F&& wanted) {
  held_lock const lock = lock_runtime();
  CUgraph_st const* const g = find_graph(graph);
  if (g == nullptr) return record(cudaErrorInvalidValue);
  std::vector<CUgraphNode_st*> all;
  for (auto const& n : g->nodes)
    if (wanted(*n)) all.push_back(n.get());
  return give(all, out, count);
}

cudaError_t give_before(cudaGraphNode_t node, cudaGraphNode_t* out, std::size_t* count) {
  if (node == nullptr) return record(cudaErrorInvalidValue);
  held_lock const lock = lock_runtime();
  return give(node->after, out, count);
}

cudaError_t give_after(cudaGraphNode_t node, cudaGraphNode_t* out, std::size_t* count) {
  if (node == nullptr) return record(cudaErrorInvalidValue);
  return give_where(node->graph, out, count, [&](CUgraphNode_st const& n) {
    return std::find(n.after.begin(), n.after.end(), node) != n.after.end();
  });
}

cudaError_t give_edges(cudaGraph_t graph, cudaGraphNode_t* from, cudaGraphNode_t* to,
                       std::size_t* count) {
  held_lock const lock = lock_runtime();
  CUgraph_st const* const g = find_graph(graph);
  if (g == nullptr || count == nullptr || (from == nullptr) != (to == nullptr))
    return record(cudaErrorInvalidValue);
  std::vector<CUgraphNode_st*> begins, ends;
  for (auto const& n : g->nodes)
    for (CUgraphNode_st* before : n->after) begins.push_back(before), ends.push_back(n.get());
  std::size_t both = *count;
  if (cudaError_t const e = give(begins, from, &both); e != cudaSuccess) return e;
  return give(ends, to, count);
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  return give_where(graph, nodes, count, [](CUgraphNode_st const&) { return true; });
}
cudaError_t cudaGraphGetRootNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  return give_where(graph, nodes, count, [](CUgraphNode_st const& n) { return n.after.empty(); });
}

// No edge here has data: 13's calls, and 12's with _v2, only have room for it.
#if CUDART_VERSION >= 13000
cudaError_t cudaGraphGetEdges(cudaGraph_t graph, cudaGraphNode_t* from, cudaGraphNode_t* to,
                              cudaGraphEdgeData* data, size_t* count) {
  if (data != nullptr && count != nullptr) std::fill_n(data, *count, cudaGraphEdgeData{});
  return give_edges(graph, from, to, count);
}
cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t node, cudaGraphNode_t* out,
                                         cudaGraphEdgeData* data, size_t* count) {
  if (data != nullptr && count != nullptr) std::fill_n(data, *count, cudaGraphEdgeData{});
  return give_before(node, out, count);
}
cudaError_t cudaGraphNodeGetDependentNodes(cudaGraphNode_t node, cudaGraphNode_t* out,
                                           cudaGraphEdgeData* data, size_t* count) {
  if (data != nullptr && count != nullptr) std::fill_n(data, *count, cudaGraphEdgeData{});
  return give_after(node, out, count);
}
#else
cudaError_t cudaGraphGetEdges(cudaGraph_t graph, cudaGraphNode_t* from, cudaGraphNode_t* to,
                              size_t* count) {
  return give_edges(graph, from, to, count);
}
cudaError_t cudaGraphNodeGetDependencies(cudaGraphNode_t node, cudaGraphNode_t* out,
                                         size_t* count) {
  return give_before(node, out, count);
}
cudaError_t cudaGraphNodeGetDependentNodes(cudaGraphNode_t node, cudaGraphNode_t* out,
                                           size_t* count) {
  return give_after(node, out, count);
}
#endif

cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType* type) {
  if (node == nullptr || type == nullptr) return record(cudaErrorInvalidValue);
  held_lock const lock = lock_runtime();
  *type = type_of(node->what);
  return cudaSuccess;
}

cudaError_t cudaGraphKernelNodeGetParams(cudaGraphNode_t node, cudaKernelNodeParams* out) {
  if (node == nullptr || out == nullptr) return record(cudaErrorInvalidValue);
  held_lock const lock = lock_runtime();
  auto* const k = std::get_if<kernel_action>(&node->what);
  if (k == nullptr) return record(cudaErrorInvalidValue);
  node->pointers.clear();
  for (std::int64_t const offset : k->request.what->parameter_offsets)
    node->pointers.push_back(k->parameters.data() + offset);
  *out = {};
  out->func = const_cast<void*>(k->request.function);
  out->gridDim = k->request.grid;
  out->blockDim = k->request.block;
  out->sharedMemBytes = static_cast<unsigned>(k->request.dynamic_shared);
  out->kernelParams = node->pointers.data();
  return cudaSuccess;
}

cudaError_t cudaGraphHostNodeGetParams(cudaGraphNode_t node, cudaHostNodeParams* out) {
  if (node == nullptr || out == nullptr) return record(cudaErrorInvalidValue);
  held_lock const lock = lock_runtime();
  auto const* const h = std::get_if<host_action>(&node->what);
  if (h == nullptr) return record(cudaErrorInvalidValue);
  *out = {h->function, h->data};
  return cudaSuccess;
}

}  // extern "C"
