#pragma once
// Graphs: nodes with what they come after. A launch makes a work of every node.

#include <cuda_runtime_api.h>

#include <memory>
#include <vector>

#include "runtime/order.hpp"

struct CUgraphNode_st {
  softgpu::action what;
  std::vector<CUgraphNode_st*> after;
  CUgraph_st* graph = nullptr;
  std::vector<void*> pointers;  // to its parameters, for who asks
};

struct CUgraph_st {
  std::vector<std::unique_ptr<CUgraphNode_st>> nodes;  // each after those it depends on

  CUgraphNode_st* add(softgpu::action what, std::vector<CUgraphNode_st*> after);
};

namespace softgpu {

/// A node of an executable graph: what it does, and the nodes it comes after by their index.
struct instance {
  action what;
  std::vector<std::size_t> after;
  CUgraphNode_st* made_from = nullptr;
  bool enabled = true;
};

cudaGraphNodeType type_of(action const& what);
/// Nodes in an order in which each comes after what it depends on.
std::vector<instance> instantiate(CUgraph_st const& g);

/// Whether memory is allocated in it: such a graph may not be copied, updated or put into another.
bool allocates(std::vector<instance> const& nodes);

/// A handle the caller gave: known, or null.
CUgraph_st* find_graph(cudaGraph_t g);
bool holds(CUgraph_st const& g, CUgraphNode_st const* n);
/// Makes a graph known by its handle; and forgets it. False where it was not known.
cudaGraph_t publish(std::unique_ptr<CUgraph_st> g);
bool forget(cudaGraph_t g);
std::unique_ptr<CUgraph_st> clone(CUgraph_st const& g);

/// What a caller's description means; or an error, recorded.
cudaError_t read(cudaKernelNodeParams const* p, action& out);
cudaError_t read(cudaMemsetParams const* p, action& out);
cudaError_t read(cudaHostNodeParams const* p, action& out);
cudaError_t read(cudaMemcpy3DParms const* p, action& out);
cudaError_t read(void* to, void const* from, std::size_t bytes, cudaMemcpyKind kind, action& out);

}  // namespace softgpu

struct CUgraphExec_st {
  std::vector<softgpu::instance> nodes;
  unsigned long long flags = 0;
  softgpu::work_ref last;  // of its latest launch
};
