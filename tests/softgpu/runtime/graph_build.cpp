// Graphs made by hand: nodes and what they come after.
#include <cuda_runtime_api.h>

#include <algorithm>

#include "runtime/error.hpp"
#include "runtime/graph.hpp"
#include "runtime/stream.hpp"

namespace softgpu {
namespace {

cudaError_t add_node(cudaGraphNode_t* out, cudaGraph_t graph, cudaGraphNode_t const* after,
                     std::size_t count, action what) {
  held_lock const lock = lock_runtime();
  CUgraph_st* const g = find_graph(graph);
  if (g == nullptr || out == nullptr || (after == nullptr && count != 0))
    return record(cudaErrorInvalidValue);
  std::vector<CUgraphNode_st*> list(after, after + count);
  for (CUgraphNode_st const* n : list)
    if (!holds(*g, n)) return record(cudaErrorInvalidValue);
  *out = g->add(std::move(what), std::move(list));
  return cudaSuccess;
}

/// Adds a node that the caller describes by `from`.
template <class... From>
cudaError_t add_read(cudaGraphNode_t* out, cudaGraph_t graph, cudaGraphNode_t const* after,
                     std::size_t count, From... from) {
  action what;
  cudaError_t const e = read(from..., what);
  return e != cudaSuccess ? e : add_node(out, graph, after, count, std::move(what));
}

/// Gives a node of a graph another action of its kind.
template <class... From> cudaError_t set_read(cudaGraphNode_t node, From... from) {
  if (node == nullptr) return record(cudaErrorInvalidValue);
  action what;
  if (cudaError_t const e = read(from..., what); e != cudaSuccess) return e;
  held_lock const lock = lock_runtime();
  if (what.index() != node->what.index()) return record(cudaErrorInvalidValue);
  node->what = std::move(what);
  return cudaSuccess;
}

template <class F>
cudaError_t for_edges(cudaGraph_t graph, cudaGraphNode_t const* from, cudaGraphNode_t const* to,
                      std::size_t count, F&& f) {
  held_lock const lock = lock_runtime();
  CUgraph_st* const g = find_graph(graph);
  if (g == nullptr) return record(cudaErrorInvalidValue);
  for (std::size_t i = 0; i < count; ++i)
    if (!holds(*g, from[i]) || !holds(*g, to[i])) return record(cudaErrorInvalidValue);
  for (std::size_t i = 0; i < count; ++i) f(to[i]->after, from[i]);
  return cudaSuccess;
}

cudaError_t add_edges(cudaGraph_t graph, cudaGraphNode_t const* from, cudaGraphNode_t const* to,
                      std::size_t count) {
  return for_edges(graph, from, to, count, [](auto& after, auto* n) { after.push_back(n); });
}
cudaError_t remove_edges(cudaGraph_t graph, cudaGraphNode_t const* from, cudaGraphNode_t const* to,
                         std::size_t count) {
  return for_edges(graph, from, to, count, [](auto& after, auto* n) { std::erase(after, n); });
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaGraphCreate(cudaGraph_t* out, unsigned flags) {
  if (out == nullptr || flags != 0) return record(cudaErrorInvalidValue);
  held_lock const lock = lock_runtime();
  *out = publish(std::make_unique<CUgraph_st>());
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  held_lock const lock = lock_runtime();
  return forget(graph) ? cudaSuccess : record(cudaErrorInvalidValue);
}
cudaError_t cudaGraphClone(cudaGraph_t* out, cudaGraph_t original) {
  held_lock const lock = lock_runtime();
  CUgraph_st const* const g = find_graph(original);
  if (g == nullptr || out == nullptr) return record(cudaErrorInvalidValue);
  if (allocates(instantiate(*g)))
    return unsupported("cudaGraphClone", "a graph that allocates memory");
  *out = publish(clone(*g));
  return cudaSuccess;
}
cudaError_t cudaGraphDestroyNode(cudaGraphNode_t node) {
  if (node == nullptr) return record(cudaErrorInvalidValue);
  held_lock const lock = lock_runtime();
  CUgraph_st& g = *node->graph;
  for (auto const& n : g.nodes) std::erase(n->after, node);
  std::erase_if(g.nodes, [&](auto const& n) { return n.get() == node; });
  return cudaSuccess;
}

#if CUDART_VERSION >= 13000
cudaError_t cudaGraphAddDependencies(cudaGraph_t graph, cudaGraphNode_t const* from,
                                     cudaGraphNode_t const* to, cudaGraphEdgeData const*,
                                     size_t count) {
  return add_edges(graph, from, to, count);
}
cudaError_t cudaGraphRemoveDependencies(cudaGraph_t graph, cudaGraphNode_t const* from,
                                        cudaGraphNode_t const* to, cudaGraphEdgeData const*,
                                        size_t count) {
  return remove_edges(graph, from, to, count);
}
#else
cudaError_t cudaGraphAddDependencies(cudaGraph_t graph, cudaGraphNode_t const* from,
                                     cudaGraphNode_t const* to, size_t count) {
  return add_edges(graph, from, to, count);
}
cudaError_t cudaGraphRemoveDependencies(cudaGraph_t graph, cudaGraphNode_t const* from,
                                        cudaGraphNode_t const* to, size_t count) {
  return remove_edges(graph, from, to, count);
}
#endif

cudaError_t cudaGraphAddEmptyNode(cudaGraphNode_t* out, cudaGraph_t graph,
                                  cudaGraphNode_t const* after, size_t count) {
  return add_node(out, graph, after, count, empty_action{});
}
cudaError_t cudaGraphAddHostNode(cudaGraphNode_t* out, cudaGraph_t graph,
                                 cudaGraphNode_t const* after, size_t count,
                                 cudaHostNodeParams const* p) {
  return add_read(out, graph, after, count, p);
}
cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* out, cudaGraph_t graph,
                                   cudaGraphNode_t const* after, size_t count,
                                   cudaKernelNodeParams const* p) {
  return add_read(out, graph, after, count, p);
}
cudaError_t cudaGraphAddMemsetNode(cudaGraphNode_t* out, cudaGraph_t graph,
                                   cudaGraphNode_t const* after, size_t count,
                                   cudaMemsetParams const* p) {
  return add_read(out, graph, after, count, p);
}
cudaError_t cudaGraphAddMemcpyNode(cudaGraphNode_t* out, cudaGraph_t graph,
                                   cudaGraphNode_t const* after, size_t count,
                                   cudaMemcpy3DParms const* p) {
  return add_read(out, graph, after, count, p);
}
cudaError_t cudaGraphAddMemcpyNode1D(cudaGraphNode_t* out, cudaGraph_t graph,
                                     cudaGraphNode_t const* after, size_t count, void* to,
                                     void const* from, size_t bytes, cudaMemcpyKind kind) {
  return add_read(out, graph, after, count, to, from, bytes, kind);
}
cudaError_t cudaGraphAddChildGraphNode(cudaGraphNode_t* out, cudaGraph_t graph,
                                       cudaGraphNode_t const* after, size_t count,
                                       cudaGraph_t child) {
  child_action inside;
  {
    held_lock const lock = lock_runtime();
    CUgraph_st const* const g = find_graph(child);
    if (g == nullptr || child == graph) return record(cudaErrorInvalidValue);
    inside.nodes = std::make_shared<std::vector<instance> const>(instantiate(*g));
    if (inside.nodes->size() != g->nodes.size()) return record(cudaErrorInvalidValue);  // a cycle
    if (allocates(*inside.nodes))
      return unsupported("cudaGraphAddChildGraphNode", "a graph that allocates memory");
  }
  return add_node(out, graph, after, count, std::move(inside));
}

cudaError_t cudaGraphKernelNodeSetParams(cudaGraphNode_t node, cudaKernelNodeParams const* p) {
  return set_read(node, p);
}
cudaError_t cudaGraphMemsetNodeSetParams(cudaGraphNode_t node, cudaMemsetParams const* p) {
  return set_read(node, p);
}
cudaError_t cudaGraphHostNodeSetParams(cudaGraphNode_t node, cudaHostNodeParams const* p) {
  return set_read(node, p);
}
cudaError_t cudaGraphMemcpyNodeSetParams(cudaGraphNode_t node, cudaMemcpy3DParms const* p) {
  return set_read(node, p);
}
cudaError_t cudaGraphMemcpyNodeSetParams1D(cudaGraphNode_t node, void* to, void const* from,
                                           size_t bytes, cudaMemcpyKind kind) {
  return set_read(node, to, from, bytes, kind);
}

}  // extern "C"
