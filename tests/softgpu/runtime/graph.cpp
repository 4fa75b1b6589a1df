// Graphs and the descriptions their nodes are made of.
#include "runtime/graph.hpp"

#include <algorithm>
#include <map>

#include "runtime/copy.hpp"
#include "runtime/error.hpp"

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

cudaError_t read(copy_request const& c, action& out) {
  if (cudaError_t const e = check(c); e != cudaSuccess) return record(e);
  out = copy_action{c.to, c.from, c.size, c.call, {}};
  return cudaSuccess;
}

}  // namespace

CUgraph_st* find_graph(cudaGraph_t g) { return graphs().count(g) != 0 ? g : nullptr; }

bool holds(CUgraph_st const& g, CUgraphNode_st const* n) {
  return std::any_of(g.nodes.begin(), g.nodes.end(), [&](auto const& m) { return m.get() == n; });
}

cudaGraph_t publish(std::unique_ptr<CUgraph_st> g) {
  CUgraph_st* const handle = g.get();
  graphs().emplace(handle, std::move(g));
  return handle;
}

bool forget(cudaGraph_t g) { return graphs().erase(g) == 1; }

bool allocates(std::vector<instance> const& nodes) {
  return std::any_of(nodes.begin(), nodes.end(), [](instance const& n) {
    auto const* const child = std::get_if<child_action>(&n.what);
    return std::holds_alternative<open_action>(n.what) ||
           (child != nullptr && allocates(*child->nodes));
  });
}

std::unique_ptr<CUgraph_st> clone(CUgraph_st const& g) {
  auto copy = std::make_unique<CUgraph_st>();
  std::map<CUgraphNode_st const*, CUgraphNode_st*> twins;
  for (auto const& n : g.nodes) twins[n.get()] = copy->add(n->what, n->after);
  for (auto const& n : copy->nodes)
    for (CUgraphNode_st*& before : n->after) before = twins.at(before);
  return copy;
}

std::vector<instance> instantiate(CUgraph_st const& g) {
  std::vector<instance> out;
  std::map<CUgraphNode_st const*, std::size_t> placed;
  // Kept in the order they were made, as far as dependencies added later allow.
  for (bool more = true; more;) {
    more = false;
    for (auto const& n : g.nodes) {
      if (placed.count(n.get()) != 0) continue;
      instance i{n->what, {}, n.get()};
      for (CUgraphNode_st const* before : n->after)
        if (auto const at = placed.find(before); at != placed.end()) i.after.push_back(at->second);
      if (i.after.size() != n->after.size()) continue;
      placed.emplace(n.get(), out.size());
      out.push_back(std::move(i));
      more = true;
    }
  }
  return out;  // what is in a cycle is left out
}

cudaGraphNodeType type_of(action const& what) {
  constexpr cudaGraphNodeType types[] = {
      cudaGraphNodeTypeEmpty,    cudaGraphNodeTypeKernel,  cudaGraphNodeTypeMemcpy,
      cudaGraphNodeTypeMemset,   cudaGraphNodeTypeHost,    cudaGraphNodeTypeHost,
      cudaGraphNodeTypeMemAlloc, cudaGraphNodeTypeMemFree, cudaGraphNodeTypeGraph};
  static_assert(std::size(types) == std::variant_size_v<action>);
  return types[what.index()];
}

cudaError_t read(cudaKernelNodeParams const* p, action& out) {
  if (p == nullptr || p->kernelParams == nullptr) {
    if (p != nullptr && p->extra != nullptr)
      return unsupported("cudaGraphAddKernelNode", "parameters given as one buffer");
    return record(cudaErrorInvalidValue);
  }
  launch_request r{nullptr, p->func, p->gridDim, p->blockDim, p->sharedMemBytes};
  if (cudaError_t const e = by_host_function(p->func, r.what); e != cudaSuccess) return e;
  if (cudaError_t const e = check(r); e != cudaSuccess) return record(e);
  out = kernel_action{r, pack_arguments(*r.what, p->kernelParams)};
  return cudaSuccess;
}

cudaError_t read(cudaMemsetParams const* p, action& out) {
  if (p == nullptr) return record(cudaErrorInvalidValue);
  fill_action f{plane_at(p->dst, p->pitch),
                {p->width * p->elementSize, p->height},
                p->value,
                static_cast<int>(p->elementSize),
                "a graph's memset"};
  if (cudaError_t const e = check(f); e != cudaSuccess) return record(e);
  out = std::move(f);
  return cudaSuccess;
}

cudaError_t read(cudaHostNodeParams const* p, action& out) {
  if (p == nullptr || p->fn == nullptr) return record(cudaErrorInvalidValue);
  out = host_action{p->fn, p->userData};
  return cudaSuccess;
}

cudaError_t read(cudaMemcpy3DParms const* p, action& out) {
  copy_request c;
  cudaError_t const e = box_request(p, "a graph's memcpy", c);
  return e != cudaSuccess ? e : read(c, out);
}

cudaError_t read(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind, action& out) {
  return read({plane_at(to), plane_at(from), {bytes}, kind, "a graph's memcpy"}, out);
}

}  // namespace softgpu
