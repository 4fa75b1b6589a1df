#pragma once
#include "shunt/backend/cuda/route/backward.cuh"

// Each expert takes its tokens: scores, a warp a token, turned into columns; then a block an expert
// takes from its column (route/expert_take.cuh).
namespace shunt::cuda {
inline namespace SHUNT_ABI {

struct expert_choice_scratch {
  route_scratch route;
  offset_t padded;  // tokens of a column
  float* columns;   // [E, padded]
  index_t* marks;  // [T, E] in their place, backward: 1 + which of the expert's choices it is, or 0
};

inline expert_choice_scratch carve_expert_choice(
    arena<space::device>& a, shunt::detail::expert_choice_sizes const& n) noexcept {
  expert_choice_scratch s;
  s.route = carve_route(a, {n.tokens, n.experts, 1, 1});
  s.padded = shunt::detail::strips_of(n.tokens);
  s.columns = a.take<float>(n.experts * s.padded);
  s.marks = reinterpret_cast<index_t*>(s.columns);
  return s;
}

struct expert_choice_job {
  route_job row;
  expert_choice<space::device> out;
  expert_choice_scratch scratch;
};
struct expert_choice_backward_job {
  route_job row;
  view<index_t const, 2, space::device> token;
  view<float const, 2, space::device> d_gate;
  index_t* marks;
  gradient_rows to;
};

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

#include "shunt/backend/cuda/route/expert_take.cuh"

namespace shunt::cuda {
inline namespace SHUNT_ABI {

struct row_of_logits {
  memory_row<float> z;
};

/// The scores of one token, -Inf for a masked expert, made in the place of its logits.
__device__ inline void token_scores(route_job const& job, offset_t t, row_of_logits r,
                                    int* events) {
  float const none = -__builtin_inff();
  if (job.with.valid && job.with.valid[t] == 0) {
    for_strips(r.z, [&](int i) { r.z[i] = none; });
    return;
  }
  int non_finite = 0;
  float const peak = read_logits<false>(job, t, r, non_finite);
  float total = 0.0f;
  if (job.rule.score == score_kind::softmax) {
    for_strips(r.z, [&](int i) { total = __fadd_rn(total, math::exp(__fadd_rn(r.z[i], -peak))); });
    total = warp_sum(total);
  }
  for_strips(r.z, [&](int i) {
    float const z = r.z[i];
    r.z[i] = z > none ? score_of(job.rule.score, z, peak, total) : none;
  });
  count(events, route_event::tokens, 1);
  count(events, route_event::non_finite_tokens, non_finite > 0 ? 1 : 0);
  count(events, route_event::non_finite_logits, non_finite);
}

/// A block's warps score eight tokens at a time, the 32 bytes of a sector of each column, in shared
/// memory or, of more experts, in scratch.
template <bool Shared>
SHUNT_KERNEL void __launch_bounds__(tuning::threads) score_columns(expert_choice_job job) {
  constexpr int warps = tuning::threads / warp_lanes, events_of = static_cast<int>(route_events);
  // Four columns of eight tokens are read at once: four words more keep them in banks of their own.
  constexpr int shared_pitch = most_block_experts + 4;
  __shared__ int events[events_of];
  __shared__ float shared_stage[Shared ? warps * shared_pitch : 1];
  route_job const& row = job.row;
  int const warp = static_cast<int>(threadIdx.x) / warp_lanes;
  offset_t const experts = row.rule.experts, padded = row.rule.padded;
  float* const stage =
      Shared ? shared_stage : row.scratch.stage + offset_t{blockIdx.x} * warps * padded;
  offset_t const pitch = Shared ? shared_pitch : padded;
  for (offset_t block = blockIdx.x; block < row.blocks.count(); block += gridDim.x) {
    if (threadIdx.x < events_of) events[threadIdx.x] = 0;
    __syncthreads();
    offset_t const last = row.blocks.last(block);
    for (offset_t at = row.blocks.first(block); at < last; at += warps) {
      offset_t const t = at + warp, here = min(last - at, offset_t{warps});
      if (t < last) {
        memory_row<float> const mine{stage + warp * pitch, static_cast<int>(padded / warp_lanes)};
        token_scores(row, t, {mine}, events);
        if (job.out.coverage && lane_of_thread() == 0) job.out.coverage[t] = 0;
      }
      __syncthreads();
      offset_t const w = threadIdx.x % warps;
      for (offset_t e = threadIdx.x / warps; e < experts; e += tuning::threads / warps) {
        if (w < here) job.scratch.columns[e * job.scratch.padded + at + w] = stage[w * pitch + e];
      }
      __syncthreads();
    }
    if (threadIdx.x < events_of) {
      row.scratch.report[block * events_of + threadIdx.x] = events[threadIdx.x];
    }
    __syncthreads();
  }
}

SHUNT_KERNEL void clear_marks(expert_choice_backward_job job) {
  offset_t const all = job.row.blocks.length * job.row.rule.experts;
  for (offset_t i = grid_thread(); i < all; i += grid_threads()) job.marks[i] = 0;
}
/// Of a token that an expert names twice the last naming stays.
SHUNT_KERNEL void mark_choices(expert_choice_backward_job job) {
  offset_t const each = job.token.extent(1), experts = job.row.rule.experts;
  for (offset_t i = grid_thread(); i < each * experts; i += grid_threads()) {
    offset_t const e = i / each, c = i % each;
    index_t const t = job.token(e, c);
    if (t < 0 || t >= job.row.blocks.length) continue;
    atomicMax(job.marks + (t * experts + e), static_cast<index_t>(c + 1));
  }
}

template <class Rows>
__device__ void token_scores_backward(expert_choice_backward_job const& job, offset_t t, Rows& r) {
  route_rule const& rule = job.row.rule;
  if (job.row.with.valid && job.row.with.valid[t] == 0) {
    return write_no_gradients(job.row, job.to, t);
  }
  int non_finite = 0;
  float const peak = read_logits<false>(job.row, t, r, non_finite);
  if (!(peak > -__builtin_inff())) return write_no_gradients(job.row, job.to, t);
  bool const softmax = rule.score == score_kind::softmax;
  make_scores(rule, r, peak, softmax ? exponentials(r.z, r.s, peak) : 0.0f);
  for_strips(r.key, [&](int i) {
    index_t const e = element_of(i);
    index_t const mark = e < rule.experts ? job.marks[t * rule.experts + e] : 0;
    r.key[i] = mark > 0 ? __fmul_rn(job.d_gate(e, mark - 1), rule.scale) : 0.0f;
  });
  scores_to_logits(rule, r);
  write_gradients<false>(job.row, job.to, t, r);
}

template <int Strips>
SHUNT_KERNEL void __launch_bounds__(tuning::threads, 1)
    score_gradients(expert_choice_backward_job job) {
  for (offset_t t = grid_warp(); t < job.row.blocks.length; t += grid_warps()) {
    with_rows<Strips>(job.row, [&](auto& r) { token_scores_backward(job, t, r); });
  }
}

/// What the kernels read a token's row by, for either direction.
template <class T>
route_job expert_choice_rows(view<T const, 2, space::device> logits,
                             view<std::uint8_t const, 1, space::device> valid,
                             route_options const& options, route_rule const& rule,
                             route_scratch const& scratch) noexcept {
  route_job job{.logits = logits.data(),
                .stride = logits.stride(0),
                .type = logit_type_of<T>,
                .out = {},
                .options = options,
                .with = {},
                .rule = rule,
                .blocks = shunt::detail::token_blocks(logits.extent(0), 1),
                .scratch = scratch};
  job.options.accumulate = false;
  job.with.valid = valid;
  return job;
}

template <class T>
status route_expert_choice(on_cuda const& on,
                           shunt::detail::expert_choice_call<T, space::device> const& c) noexcept {
  constexpr char const* who = "route_expert_choice";
  offset_t const tokens = c.logits.extent(0), experts = c.logits.extent(1);
  arena<space::device> work = c.work;
  auto const scratch = carve_expert_choice(work, {tokens, experts});
  if (status bad = work.check(who); !bad.ok()) return bad;
  expert_choice_job job{expert_choice_rows<T>(c.logits, c.valid, c.options,
                                              shunt::detail::make_rule(c), scratch.route),
                        c.out, scratch};
  job.row.out.report = c.out.report;
  offset_t const blocks = job.row.blocks.count();
  status done =
      in_block(experts, 1)
          ? launch(on, who, blocks, tuning::threads, score_columns<true>, job)
          : launch(on, who, general_grid(blocks), tuning::threads, score_columns<false>, job);
  if (done.ok()) {
    done = launch(on, who, experts, threads_for((tokens + 31) / 32), take_tokens, job);
  }
  if (done.ok() && c.out.report) {
    done = launch(on, who, 1, warp_lanes, add_route_reports, job.row);
  }
  return done;
}

template <class T, class G>
status route_expert_choice_backward(
    on_cuda const& on,
    shunt::detail::expert_choice_backward_call<T, G, space::device> const& c) noexcept {
  constexpr char const* who = "route_expert_choice_backward";
  offset_t const tokens = c.logits.extent(0), experts = c.logits.extent(1);
  arena<space::device> work = c.work;
  auto const scratch = carve_expert_choice(work, {tokens, experts});
  if (status bad = work.check(who); !bad.ok()) return bad;
  expert_choice_backward_job const job{
      expert_choice_rows<T>(c.logits, c.valid, c.options, shunt::detail::make_rule(c),
                            scratch.route),
      c.token, c.d_gate, scratch.marks,
      gradient_rows{c.d_logits.data(), c.d_logits.stride(0), logit_type_of<G>}};
  status done = launch_threads(on, who, tokens * experts, clear_marks, job);
  if (done.ok()) { done = launch_threads(on, who, experts * c.token.extent(1), mark_choices, job); }
  if (!done.ok()) return done;
  return in_block(experts, 1)
             ? launch_tokens<shared_strips>(on, who, &score_gradients<shared_strips>, job.row, job)
             : launch_tokens<0>(on, who, &score_gradients<0>, job.row, job);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda

namespace shunt::detail {

template <> struct expert_choice_backend<on_cuda> {
  static void carve(on_cuda const&, arena<space::device>& a,
                    expert_choice_sizes const& n) noexcept {
    cuda::carve_expert_choice(a, n);
  }
  template <class T>
  static status run(on_cuda const& on, expert_choice_call<T, space::device> const& c) noexcept {
    return cuda::route_expert_choice(on, c);
  }
  template <class T, class G>
  static status run(on_cuda const& on,
                    expert_choice_backward_call<T, G, space::device> const& c) noexcept {
    return cuda::route_expert_choice_backward(on, c);
  }
};

}  // namespace shunt::detail
