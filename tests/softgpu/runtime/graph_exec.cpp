// Graphs that run: instantiated, updated, launched.
#include <map>
#include <set>

#include "runtime/capture.hpp"
#include "runtime/error.hpp"
#include "runtime/graph.hpp"
#include "runtime/stream.hpp"

namespace softgpu {
namespace {

std::map<CUgraphExec_st*, std::unique_ptr<CUgraphExec_st>>& execs() {
  static auto* const e = new std::map<CUgraphExec_st*, std::unique_ptr<CUgraphExec_st>>;
  return *e;
}

cudaError_t make(cudaGraphExec_t* out, cudaGraph_t graph) {
  if (cudaError_t const e = enter(); e != cudaSuccess) return e;
  held_lock const lock = lock_runtime();
  CUgraph_st const* const g = find_graph(graph);
  if (g == nullptr || out == nullptr) return record(cudaErrorInvalidValue);
  auto made = std::make_unique<CUgraphExec_st>();
  made->nodes = instantiate(*g);
  if (made->nodes.size() != g->nodes.size()) return record(cudaErrorInvalidValue);  // a cycle
  *out = made.get();
  execs().emplace(made.get(), std::move(made));
  return cudaSuccess;
}

/// Enqueues a work for each node, between the stream's last one and a new one.
void launch(held_lock& lock, CUstream_st& s, CUgraphExec_st& e) {
  work_ref const begin = enqueue(lock, s, empty_action{}, {e.last});
  std::vector<work_ref> works, all{begin};
  for (instance const& n : e.nodes) {
    std::vector<work_ref> after{begin};
    for (std::size_t i : n.after) after.push_back(works[i]);
    works.push_back(make_work(n.enabled ? n.what : action(empty_action{}), std::move(after)));
  }
  all.insert(all.end(), works.begin(), works.end());
  e.last = enqueue(lock, s, empty_action{}, std::move(all));
}

/// An instance of a graph by one of its nodes; null where there is none.
instance* find(cudaGraphExec_t e, cudaGraphNode_t node) {
  auto const found = execs().find(e);
  if (found == execs().end()) return nullptr;
  for (instance& n : found->second->nodes)
    if (n.made_from == node) return &n;
  return nullptr;
}

}  // namespace

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

cudaError_t kernel_of(cudaKernelNodeParams const* p, kernel_action& out) {
  if (p == nullptr || p->kernelParams == nullptr) {
    if (p != nullptr && p->extra != nullptr)
      return unsupported("cudaGraphAddKernelNode", "parameters given as one buffer");
    return record(cudaErrorInvalidValue);
  }
  if (cudaError_t const e = by_host_function(p->func, out.request.what); e != cudaSuccess) return e;
  out.request.grid = p->gridDim;
  out.request.block = p->blockDim;
  out.request.dynamic_shared = p->sharedMemBytes;
  if (cudaError_t const e = check(out.request); e != cudaSuccess) return record(e);
  out.parameters = pack_arguments(*out.request.what, p->kernelParams);
  return cudaSuccess;
}

}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* out, cudaGraph_t graph,
                                          unsigned long long flags) {
  if ((flags & cudaGraphInstantiateFlagDeviceLaunch) != 0)
    return unsupported("cudaGraphInstantiate", "a graph that the device launches");
  return make(out, graph);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* out, cudaGraph_t graph,
                                 unsigned long long flags) {
  return cudaGraphInstantiateWithFlags(out, graph, flags);
}
cudaError_t cudaGraphInstantiateWithParams(cudaGraphExec_t* out, cudaGraph_t graph,
                                           cudaGraphInstantiateParams* p) {
  if (p == nullptr) return record(cudaErrorInvalidValue);
  p->errNode_out = nullptr;
  cudaError_t const e = cudaGraphInstantiateWithFlags(out, graph, p->flags);
  p->result_out = e == cudaSuccess ? cudaGraphInstantiateSuccess : cudaGraphInstantiateError;
  return e;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t e) {  // what it launched still runs
  held_lock const lock = lock_runtime();
  return execs().erase(e) == 1 ? cudaSuccess : record(cudaErrorInvalidValue);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t e, cudaStream_t stream) {
  if (cudaError_t const bad = enter(); bad != cudaSuccess) return bad;
  held_lock lock = lock_runtime();
  stream_ref const s = find_stream(stream);
  if (s == nullptr) return record(cudaErrorInvalidResourceHandle);
  if (execs().count(e) == 0) return record(cudaErrorInvalidValue);
  if (s->capturing != nullptr) {
    spoil(*s->capturing, cudaErrorNotSupported);
    return unsupported("cudaGraphLaunch", "a launch into a stream that is capturing");
  }
  if (s->legacy)
    if (cudaError_t const bad = check_legacy(); bad != cudaSuccess) return record(bad);
  launch(lock, *s, *e);
  return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t e, cudaStream_t stream) {
  {
    held_lock const lock = lock_runtime();
    if (execs().count(e) == 0) return record(cudaErrorInvalidValue);
  }
  return submit(stream, empty_action{});
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t e, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo* info) {
  held_lock const lock = lock_runtime();
  CUgraph_st const* const g = find_graph(graph);
  if (g == nullptr || execs().count(e) == 0 || info == nullptr)
    return record(cudaErrorInvalidValue);
  std::vector<instance> fresh = instantiate(*g);
  *info = {};
  info->result = cudaGraphExecUpdateSuccess;
  if (fresh.size() != e->nodes.size()) info->result = cudaGraphExecUpdateErrorTopologyChanged;
  for (std::size_t i = 0; i < fresh.size() && info->result == cudaGraphExecUpdateSuccess; ++i) {
    if (fresh[i].after != e->nodes[i].after)
      info->result = cudaGraphExecUpdateErrorTopologyChanged;
    else if (type_of(fresh[i].what) != type_of(e->nodes[i].what))
      info->result = cudaGraphExecUpdateErrorNodeTypeChanged;
    if (info->result != cudaGraphExecUpdateSuccess) info->errorNode = fresh[i].made_from;
  }
  if (info->result != cudaGraphExecUpdateSuccess) return record(cudaErrorGraphExecUpdateFailure);
  for (std::size_t i = 0; i < fresh.size(); ++i) e->nodes[i].what = std::move(fresh[i].what);
  return cudaSuccess;
}

cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t e, cudaGraphNode_t node,
                                             cudaKernelNodeParams const* p) {
  kernel_action k;
  if (cudaError_t const bad = kernel_of(p, k); bad != cudaSuccess) return bad;
  held_lock const lock = lock_runtime();
  instance* const n = find(e, node);
  if (n == nullptr || !std::holds_alternative<kernel_action>(n->what))
    return record(cudaErrorInvalidValue);
  n->what = std::move(k);
  return cudaSuccess;
}

cudaError_t cudaGraphNodeSetEnabled(cudaGraphExec_t e, cudaGraphNode_t node, unsigned enabled) {
  held_lock const lock = lock_runtime();
  instance* const n = find(e, node);
  if (n == nullptr) return record(cudaErrorInvalidValue);
  n->enabled = enabled != 0;
  return cudaSuccess;
}

}  // extern "C"
