#pragma once
#include "shunt/backend/cuda/policy.cuh"
#include "shunt/core/arena.hpp"
#include "shunt/core/numeric.hpp"
#include "shunt/core/view.hpp"
#include "shunt/dispatch/plan.hpp"

// What each module's file in this folder shares. A file calls every public function of its module with
// arguments of the right types and no content: it is compiled, for each architecture, and never run.
namespace shunt::matrix {

template <class T, int Rank> using in = view<T const, Rank, space::device>;
template <class T, int Rank> using out = view<T, Rank, space::device>;
using scratch = arena<space::device>;
using plan = dispatch_plan<space::device>;

/// For float and bf16; one function per type, so that nothing is left out as dead.
#define SHUNT_MATRIX(module)                                        \
  void module##_of_floats(on_cuda const& on) { module<float>(on); } \
  void module##_of_bf16(on_cuda const& on) { module<bf16>(on); }

}  // namespace shunt::matrix
