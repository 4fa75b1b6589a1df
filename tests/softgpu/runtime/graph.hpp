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

/// A handle the caller gave: known, or null.
CUgraph_st* find_graph(cudaGraph_t g);
/// Makes a graph known by its handle.
cudaGraph_t publish(std::unique_ptr<CUgraph_st> g);

}  // namespace softgpu

struct CUgraphExec_st {
  std::vector<softgpu::instance> nodes;
  softgpu::work_ref last;  // of its latest launch
};
