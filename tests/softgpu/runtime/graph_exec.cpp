// Graphs that run: instantiated, updated, launched.
#include <map>

#include "memory/arena.hpp"
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

cudaError_t make(cudaGraphExec_t* out, cudaGraph_t graph, unsigned long long flags) {
  if (cudaError_t const e = enter(); e != cudaSuccess) return e;
  held_lock const lock = lock_runtime();
  CUgraph_st const* const g = find_graph(graph);
  if (g == nullptr || out == nullptr) return record(cudaErrorInvalidValue);
  auto made = std::make_unique<CUgraphExec_st>();
  made->flags = flags;
  made->nodes = instantiate(*g);
  if (made->nodes.size() != g->nodes.size()) return record(cudaErrorInvalidValue);  // a cycle
  *out = made.get();
  execs().emplace(made.get(), std::move(made));
  return cudaSuccess;
}

/// Makes a work of each node, after `begin`, and returns one that comes after them all.
work_ref expand(std::vector<instance> const& nodes, work_ref const& begin) {
  std::vector<work_ref> works;
  for (instance const& n : nodes) {
    std::vector<work_ref> after{begin};
    for (std::size_t i : n.after) after.push_back(works[i]);
    auto const* const child = std::get_if<child_action>(&n.what);
    if (child != nullptr && n.enabled)
      works.push_back(expand(*child->nodes, make_work(empty_action{}, std::move(after))));
    else
      works.push_back(make_work(n.enabled ? n.what : action(empty_action{}), std::move(after)));
  }
  works.push_back(begin);
  return make_work(empty_action{}, std::move(works));
}

/// What a graph allocates and does not free itself belongs to the caller from its launch on. False
/// where some of it still does from the launch before.
bool give_memory(CUgraphExec_st const& e) {
  std::vector<std::uint64_t> given;
  for (instance const& n : e.nodes) {
    if (auto const* const o = std::get_if<open_action>(&n.what)) given.push_back(o->address);
    if (auto const* const f = std::get_if<free_action>(&n.what)) std::erase(given, f->address);
  }
  bool const again = (e.flags & cudaGraphInstantiateFlagAutoFreeOnLaunch) != 0;
  for (std::size_t i = 0; i < given.size(); ++i) {
    if (arena::revive(given[i]) || again) continue;
    while (i-- > 0) arena::retire(given[i]);
    return false;
  }
  return true;
}

/// Puts the graph's works between the stream's last one and its next.
void launch(held_lock& lock, CUstream_st& s, CUgraphExec_st& e) {
  work_ref const begin = enqueue(lock, s, empty_action{}, {e.last});
  work_ref const end = expand(e.nodes, begin);
  e.last = enqueue(lock, s, empty_action{}, {end});
}

/// What is different between graphs that an update may not change.
cudaGraphExecUpdateResult compare(std::vector<instance> const& a, std::vector<instance> const& b,
                                  CUgraphNode_st*& where) {
  if (a.size() != b.size()) return cudaGraphExecUpdateErrorTopologyChanged;
  for (std::size_t i = 0; i < a.size(); ++i) {
    where = b[i].made_from;
    if (a[i].after != b[i].after) return cudaGraphExecUpdateErrorTopologyChanged;
    if (type_of(a[i].what) != type_of(b[i].what)) return cudaGraphExecUpdateErrorNodeTypeChanged;
    auto const* const inner = std::get_if<child_action>(&a[i].what);
    if (inner == nullptr) continue;
    auto const r = compare(*inner->nodes, *std::get<child_action>(b[i].what).nodes, where);
    if (r != cudaGraphExecUpdateSuccess) return r;
  }
  where = nullptr;
  return cudaGraphExecUpdateSuccess;
}

/// An instance of a graph by one of its nodes; null where there is none.
instance* find(cudaGraphExec_t e, cudaGraphNode_t node) {
  auto const found = execs().find(e);
  if (found == execs().end()) return nullptr;
  for (instance& n : found->second->nodes)
    if (n.made_from == node) return &n;
  return nullptr;
}

/// Gives a node of an executable graph another action of its kind.
template <class... From>
cudaError_t set_read(cudaGraphExec_t e, cudaGraphNode_t node, From... from) {
  action what;
  if (cudaError_t const bad = read(from..., what); bad != cudaSuccess) return bad;
  held_lock const lock = lock_runtime();
  instance* const n = find(e, node);
  if (n == nullptr || n->what.index() != what.index()) return record(cudaErrorInvalidValue);
  n->what = std::move(what);
  return cudaSuccess;
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;

extern "C" {

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* out, cudaGraph_t graph,
                                          unsigned long long flags) {
  if ((flags & cudaGraphInstantiateFlagDeviceLaunch) != 0)
    return unsupported("cudaGraphInstantiate", "a graph that the device launches");
  return make(out, graph, flags);
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
  if (s->capturing != nullptr)
    return record(
        add_to_capture(*s, child_action{std::make_shared<std::vector<instance> const>(e->nodes)}));
  if (s->legacy)
    if (cudaError_t const bad = check_legacy(); bad != cudaSuccess) return record(bad);
  if (!give_memory(*e)) return record(cudaErrorInvalidValue);
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
  info->result = allocates(e->nodes) || allocates(fresh)
                     ? cudaGraphExecUpdateErrorNotSupported
                     : compare(e->nodes, fresh, info->errorNode);
  if (info->result != cudaGraphExecUpdateSuccess) return record(cudaErrorGraphExecUpdateFailure);
  for (std::size_t i = 0; i < fresh.size(); ++i) e->nodes[i].what = std::move(fresh[i].what);
  return cudaSuccess;
}

cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t e, cudaGraphNode_t node,
                                             cudaKernelNodeParams const* p) {
  return set_read(e, node, p);
}
cudaError_t cudaGraphExecMemsetNodeSetParams(cudaGraphExec_t e, cudaGraphNode_t node,
                                             cudaMemsetParams const* p) {
  return set_read(e, node, p);
}
cudaError_t cudaGraphExecHostNodeSetParams(cudaGraphExec_t e, cudaGraphNode_t node,
                                           cudaHostNodeParams const* p) {
  return set_read(e, node, p);
}
cudaError_t cudaGraphExecMemcpyNodeSetParams(cudaGraphExec_t e, cudaGraphNode_t node,
                                             cudaMemcpy3DParms const* p) {
  return set_read(e, node, p);
}
cudaError_t cudaGraphExecMemcpyNodeSetParams1D(cudaGraphExec_t e, cudaGraphNode_t node, void* to,
                                               void const* from, size_t bytes,
                                               cudaMemcpyKind kind) {
  return set_read(e, node, to, from, bytes, kind);
}

cudaError_t cudaGraphExecGetFlags(cudaGraphExec_t e, unsigned long long* flags) {
  held_lock const lock = lock_runtime();
  if (execs().count(e) == 0 || flags == nullptr) return record(cudaErrorInvalidValue);
  *flags = e->flags;
  return cudaSuccess;
}

cudaError_t cudaGraphNodeSetEnabled(cudaGraphExec_t e, cudaGraphNode_t node, unsigned enabled) {
  held_lock const lock = lock_runtime();
  instance* const n = find(e, node);
  if (n == nullptr) return record(cudaErrorInvalidValue);
  n->enabled = enabled != 0;
  return cudaSuccess;
}
cudaError_t cudaGraphNodeGetEnabled(cudaGraphExec_t e, cudaGraphNode_t node, unsigned* enabled) {
  held_lock const lock = lock_runtime();
  instance const* const n = find(e, node);
  if (n == nullptr || enabled == nullptr) return record(cudaErrorInvalidValue);
  *enabled = n->enabled ? 1 : 0;
  return cudaSuccess;
}

}  // extern "C"
