// Graphs that are built, looked at and copied.
#include "runtime/graph.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "runtime/copy.hpp"
#include "runtime/error.hpp"
#include "runtime/stream.hpp"

CUgraphNode_st* CUgraph_st::add(softgpu::action what, std::vector<CUgraphNode_st*> after) {
  auto n = std::make_unique<CUgraphNode_st>();
  n->what = std::move(what);
  n->after = std::move(after);
  n->graph = this;
  nodes.push_back(std::move(n));
  return nodes.back().get();
}

namespace softgpu {
namespace {

std::map<CUgraph_st*, std::unique_ptr<CUgraph_st>>& graphs() {
  static auto* const g = new std::map<CUgraph_st*, std::unique_ptr<CUgraph_st>>;
  return *g;
}

bool holds(CUgraph_st const& g, CUgraphNode_st const* n) {
  return std::any_of(g.nodes.begin(), g.nodes.end(), [&](auto const& m) { return m.get() == n; });
}

/// Adds a node that the caller describes.
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

}  // namespace

CUgraph_st* find_graph(cudaGraph_t g) { return graphs().count(g) != 0 ? g : nullptr; }

cudaGraph_t publish(std::unique_ptr<CUgraph_st> g) {
  CUgraph_st* const handle = g.get();
  graphs().emplace(handle, std::move(g));
  return handle;
}

cudaGraphNodeType type_of(action const& what) {
  constexpr cudaGraphNodeType types[] = {cudaGraphNodeTypeEmpty,  cudaGraphNodeTypeKernel,
                                         cudaGraphNodeTypeMemcpy, cudaGraphNodeTypeMemset,
                                         cudaGraphNodeTypeHost,   cudaGraphNodeTypeHost,
                                         cudaGraphNodeTypeEmpty,  cudaGraphNodeTypeMemFree};
  return types[what.index()];
}

cudaError_t kernel_of(cudaKernelNodeParams const* p, kernel_action& out);

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
  return graphs().erase(graph) == 1 ? cudaSuccess : record(cudaErrorInvalidValue);
}
cudaError_t cudaGraphClone(cudaGraph_t* out, cudaGraph_t original) {
  held_lock const lock = lock_runtime();
  CUgraph_st const* const g = find_graph(original);
  if (g == nullptr || out == nullptr) return record(cudaErrorInvalidValue);
  auto copy = std::make_unique<CUgraph_st>();
  std::map<CUgraphNode_st const*, CUgraphNode_st*> twins;
  for (auto const& n : g->nodes) twins[n.get()] = copy->add(n->what, n->after);
  for (auto const& n : copy->nodes)
    for (CUgraphNode_st*& before : n->after) before = twins.at(before);
  *out = publish(std::move(copy));
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  return give_where(graph, nodes, count, [](CUgraphNode_st const&) { return true; });
}
cudaError_t cudaGraphGetRootNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  return give_where(graph, nodes, count, [](CUgraphNode_st const& n) { return n.after.empty(); });
}
cudaError_t cudaGraphNodeGetType(cudaGraphNode_t node, cudaGraphNodeType* type) {
  if (node == nullptr || type == nullptr) return record(cudaErrorInvalidValue);
  held_lock const lock = lock_runtime();
  *type = type_of(node->what);
  return cudaSuccess;
}

static cudaError_t add_dependencies(cudaGraph_t graph, cudaGraphNode_t const* from,
                                    cudaGraphNode_t const* to, size_t count) {
  held_lock const lock = lock_runtime();
  CUgraph_st* const g = find_graph(graph);
  if (g == nullptr) return record(cudaErrorInvalidValue);
  for (std::size_t i = 0; i < count; ++i) {
    if (!holds(*g, from[i]) || !holds(*g, to[i])) return record(cudaErrorInvalidValue);
    to[i]->after.push_back(from[i]);
  }
  return cudaSuccess;
}
#if CUDART_VERSION >= 13000
cudaError_t cudaGraphAddDependencies(cudaGraph_t graph, cudaGraphNode_t const* from,
                                     cudaGraphNode_t const* to, cudaGraphEdgeData const*,
                                     size_t count) {
  return add_dependencies(graph, from, to, count);
}
#else
cudaError_t cudaGraphAddDependencies(cudaGraph_t graph, cudaGraphNode_t const* from,
                                     cudaGraphNode_t const* to, size_t count) {
  return add_dependencies(graph, from, to, count);
}
#endif

cudaError_t cudaGraphAddEmptyNode(cudaGraphNode_t* out, cudaGraph_t graph,
                                  cudaGraphNode_t const* after, size_t count) {
  return add_node(out, graph, after, count, empty_action{});
}
cudaError_t cudaGraphAddHostNode(cudaGraphNode_t* out, cudaGraph_t graph,
                                 cudaGraphNode_t const* after, size_t count,
                                 cudaHostNodeParams const* p) {
  if (p == nullptr || p->fn == nullptr) return record(cudaErrorInvalidValue);
  return add_node(out, graph, after, count, host_action{p->fn, p->userData});
}
cudaError_t cudaGraphAddKernelNode(cudaGraphNode_t* out, cudaGraph_t graph,
                                   cudaGraphNode_t const* after, size_t count,
                                   cudaKernelNodeParams const* p) {
  kernel_action k;
  if (cudaError_t const e = kernel_of(p, k); e != cudaSuccess) return e;
  return add_node(out, graph, after, count, std::move(k));
}
cudaError_t cudaGraphAddMemcpyNode1D(cudaGraphNode_t* out, cudaGraph_t graph,
                                     cudaGraphNode_t const* after, size_t count, void* to,
                                     void const* from, size_t bytes, cudaMemcpyKind kind) {
  copy_request c{plane_at(to), plane_at(from), {bytes}, kind, "cudaGraphAddMemcpyNode1D"};
  if (cudaError_t const e = check(c); e != cudaSuccess) return record(e);
  return add_node(out, graph, after, count, copy_action{c.to, c.from, c.size, c.call, {}});
}
cudaError_t cudaGraphAddMemsetNode(cudaGraphNode_t* out, cudaGraph_t graph,
                                   cudaGraphNode_t const* after, size_t count,
                                   cudaMemsetParams const* p) {
  if (p == nullptr) return record(cudaErrorInvalidValue);
  fill_action f{plane_at(p->dst, p->pitch),
                {p->width * p->elementSize, p->height},
                p->value,
                static_cast<int>(p->elementSize),
                "cudaGraphAddMemsetNode"};
  if (cudaError_t const e = check(f); e != cudaSuccess) return record(e);
  return add_node(out, graph, after, count, std::move(f));
}

}  // extern "C"
