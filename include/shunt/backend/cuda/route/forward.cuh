#pragma once
#include <type_traits>

#include "shunt/backend/cuda/launch.cuh"
#include "shunt/backend/cuda/route/balance.cuh"
#include "shunt/backend/cuda/route/row.cuh"
#include "shunt/core/math.hpp"
#include "shunt/core/random.hpp"
#include "shunt/route/args.hpp"
#include "shunt/route/make_rule.hpp"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// How logits, or their gradients, are stored: an argument, as one kernel serves all.
enum class logit_type : std::uint8_t { f32, bf16, fp16 };
template <class T>
inline constexpr logit_type logit_type_of = std::is_same_v<T, float>  ? logit_type::f32
                                            : std::is_same_v<T, bf16> ? logit_type::bf16
                                                                      : logit_type::fp16;

/// Rows of up to 256 experts live in registers; of up to these numbers in shared memory, in fewer warps
/// of a block (the code of 32 strips unrolled fits no instruction cache, nor its values the registers);
/// beyond, in scratch of the warps of `general_blocks` blocks.
inline constexpr offset_t most_block_experts = 1024, most_block_choices = 32, general_blocks = 64;
inline constexpr int shared_strips = most_block_experts / warp_lanes, shared_warps = 4;

struct route_scratch {
  float* importance;                 // [blocks, E]
  index_t* counts;                   // [blocks, E]
  std::int64_t* report;              // [blocks, route_events]
  shunt::detail::bias_range* range;  // [1] of the histogram
  float *stage, *rows;               // of the general path's warps: its rows of E, then those of K
  index_t* ids;
};

inline bool in_block(offset_t experts, offset_t top_k) noexcept {
  return experts <= most_block_experts && top_k <= most_block_choices;
}
/// Blocks of the general path, for `blocks` of work.
inline offset_t general_grid(offset_t blocks) noexcept { return std::min(blocks, general_blocks); }

inline route_scratch carve_route(arena<space::device>& a,
                                 shunt::detail::route_sizes const& n) noexcept {
  offset_t const blocks = shunt::detail::blocks_of(n.tokens, n.sequences);
  offset_t const padded = shunt::detail::strips_of(n.experts),
                 padded_k = shunt::detail::strips_of(n.top_k);
  offset_t const warps =
      in_block(n.experts, n.top_k) ? 0 : general_grid(blocks) * (tuning::threads / warp_lanes);
  route_scratch s;
  s.importance = a.take<float>(blocks * n.experts);
  s.counts = a.take<index_t>(blocks * n.experts);
  s.report = a.take<std::int64_t>(blocks * route_events);
  s.range = a.take<shunt::detail::bias_range>(1);
  s.stage = a.take<float>(warps * padded);
  s.rows = a.take<float>(warps * (3 * padded + 3 * padded_k));
  s.ids = a.take<index_t>(warps * padded_k);
  return s;
}

/// What the kernels of one call share.
struct route_job {
  void const* logits;
  offset_t stride;
  logit_type type;
  routing<space::device> out;
  route_options options;
  route_inputs<space::device> with;
  shunt::detail::route_rule rule;
  shunt::detail::token_blocks blocks;
  route_scratch scratch;
  bool load = false;  // importance or counts are wanted
};

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

// In this order: the kernels are made of the steps.
#include "shunt/backend/cuda/route/steps.cuh"

#include "shunt/backend/cuda/route/gates.cuh"

#include "shunt/backend/cuda/route/kernels.cuh"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// f(integral_constant<int, Strips>) of the kernel for such rows: it has so many strips in registers,
/// `shared_strips` at most in shared memory, or, 0, any number in scratch.
template <class F> status with_strips(offset_t experts, offset_t top_k, F const& f) noexcept {
  if (!in_block(experts, top_k)) return f(std::integral_constant<int, 0>{});
  return experts <= 64    ? f(std::integral_constant<int, 2>{})
         : experts <= 128 ? f(std::integral_constant<int, 4>{})
         : experts <= 256 ? f(std::integral_constant<int, 8>{})
                          : f(std::integral_constant<int, shared_strips>{});
}
/// Launches that kernel. `rows`: how many of E a warp of it has.
template <int Strips, class Job>
status launch_rows(on_cuda const& on, char const* who, offset_t blocks, int rows,
                   void (*kernel)(Job), route_job const& row, Job const& job) noexcept {
  constexpr int warps = warps_with<Strips>;
  auto const bytes = [&](offset_t experts) {
    return static_cast<std::size_t>(warps * rows * experts) * sizeof(float);
  };
  bool const in_shared = Strips == shared_strips;
  return launch_shared(on, who, Strips > 0 ? blocks : general_grid(blocks), warps * warp_lanes,
                       in_shared ? bytes(row.rule.padded) : 0, bytes(most_block_experts), kernel,
                       job);
}

template <class T>
status route(on_cuda const& on, shunt::detail::route_call<T, space::device> const& c) noexcept {
  constexpr char const* who = "route";
  offset_t const tokens = c.logits.extent(0), experts = c.logits.extent(1);
  offset_t const top_k = c.out.expert.extent(1);
  offset_t const sequences = shunt::detail::sequences_of(c.out);
  arena<space::device> work = c.work;
  route_job job{.logits = c.logits.data(),
                .stride = c.logits.stride(0),
                .type = logit_type_of<T>,
                .out = c.out,
                .options = c.options,
                .with = c.with,
                .rule = shunt::detail::make_rule(c),
                .blocks = shunt::detail::token_blocks(tokens, sequences),
                .scratch = carve_route(work, {tokens, experts, top_k, sequences})};
  if (status bad = work.check(who); !bad.ok()) return bad;
  job.load = job.rule.importance || c.out.counts || c.out.sequence_counts;
  status done;
  if (c.out.histogram) {
    done = launch_threads(on, who, std::max<offset_t>(1, job.rule.bins * experts), begin_histogram,
                          job);
  }
  if (done.ok()) {
    done = with_strips(experts, top_k, [&](auto n) {
      // z, s, key, and the shares that the block sums.
      return launch_rows<n.value>(on, who, job.blocks.count(), 4, &route_tokens<n.value>, job, job);
    });
  }
  if (done.ok() && job.load) done = launch_threads(on, who, experts, add_route_blocks, job);
  if (done.ok() && (c.out.tokens || c.out.report || c.out.sequence_tokens)) {
    done = launch(on, who, 1, warp_lanes, add_route_reports, job);
  }
  return done;
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

namespace shunt::detail {

template <> struct route_backend<on_cuda> {
  static void carve(on_cuda const&, arena<space::device>& a, route_sizes const& n) noexcept {
    cuda::carve_route(a, n);
  }
  template <class T>
  static status run(on_cuda const& on, route_call<T, space::device> const& c) noexcept {
    return cuda::route(on, c);
  }
};

}  // namespace shunt::detail
