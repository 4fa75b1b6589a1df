#pragma once
#include "shunt/across/placement.hpp"
#include "shunt/nn/model_config.hpp"

/// The parameters of one rank of a model whose experts are on several: all tensors but the experts', and of those the
/// ones of its places.
namespace shunt::nn {
inline namespace SHUNT_ABI {

/// The model's configuration as a rank's flat buffer has it: for parameter_count and for_each_parameter. A dense
/// model is whole on every rank.
[[nodiscard]] inline model_config config_of_rank(model_config config, expert_placement const& p,
                                                 int rank) noexcept {
  config.experts_here = config.dense ? -1 : p.on_rank(rank);
  return config;
}

/// Consecutive elements that are the same in the whole model's flat buffer and in a rank's.
struct rank_run {
  model_parameter whole;  ///< the tensor they belong to, of the whole model
  offset_t in_whole = 0;  ///< of the first one, in the whole model's flat buffer
  offset_t here = 0;      ///< of the first one, in the flat buffer of its owner
  offset_t count = 0;     ///< elements
  int owner = -1;         ///< the rank that has them; −1: every rank
};

/// Calls f(rank_run const&) for the whole model in ascending order, whoever has it: a tensor that every rank has, or
/// one expert's part of a tensor. `here` of a tensor that all have is its place in the flat buffer of `rank`.
///   Shapes  an expert has one place (no copies)
template <class F>
void for_each_run(model_config const& config, expert_placement const& p, int rank, F&& f) {
  offset_t experts_before = 0;           // elements of one expert in the tensors before this one
  auto const moved = [&](int of_rank) {  // by the experts that are not on that rank
    return experts_before * (p.on_rank(of_rank) - config.experts);
  };
  for_each_parameter(config, [&](model_parameter const& whole) {
    rank_run run;
    run.whole = whole;
    run.in_whole = whole.offset;
    run.count = whole.size();
    if (config.dense || whole.rank != 3) {
      run.here = config.dense ? whole.offset : whole.offset + moved(rank);
      f(static_cast<rank_run const&>(run));
      return;
    }
    run.count /= config.experts;
    for (index_t e = 0; e < config.experts; ++e) {
      run.in_whole = whole.offset + e * run.count;
      for (int r = 0; r < p.ranks(); ++r) {
        for (index_t at = p.start[r]; at < p.start[r + 1]; ++at) {
          if (p.expert[at] != e) continue;
          run.owner = r;
          run.here = whole.offset + moved(r) + (at - p.start[r]) * run.count;
        }
      }
      f(static_cast<rank_run const&>(run));
    }
    experts_before += run.count;
  });
}

}  // namespace SHUNT_ABI
}  // namespace shunt::nn
