#pragma once
#include "shunt/backend/cuda/route_backward.cuh"
#include "shunt/core/ordered.hpp"

// Each expert takes its tokens: scores, a warp a token, turned into columns; then a block an expert
// finds the score of the last token that is taken, eight bits at a time, and takes in token order.
namespace shunt::cuda {
inline namespace SHUNT_HOST_ABI {

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
  float const peak = read_logits(job, t, r, non_finite);
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
  constexpr int shared_pitch = most_register_experts + 4;
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

/// Where a digit is counted: the lanes' runs of eight begin in banks of their own.
__device__ inline int place_of_digit(int digit) { return digit + digit / 8; }

/// A digit of the last key that is taken, by one warp: of `left` keys that are wanted, `above` have a
/// higher one. Lane 0 has the eight highest digits.
struct last_digit {
  int digit, above, all;
};
__device__ inline last_digit find_digit(int const* counts, int wanted) {
  int const top = 255 - 8 * lane_of_thread();
  int mine = 0;
  for (int i = 0; i < 8; ++i) mine += counts[place_of_digit(top - i)];
  int const up_to = warp_prefix(mine), all = __shfl_sync(all_lanes, up_to, warp_lanes - 1);
  wanted = wanted < all ? wanted : all;
  int above = up_to - mine, digit = top;
  bool const mine_has_it = above < wanted && wanted <= up_to;
  while (mine_has_it && above + counts[place_of_digit(digit)] < wanted) {
    above += counts[place_of_digit(digit--)];
  }
  unsigned const here = __ballot_sync(all_lanes, mine_has_it);
  int const lane = here != 0 ? __ffs(static_cast<int>(here)) - 1 : 0;
  return {__shfl_sync(all_lanes, digit, lane), __shfl_sync(all_lanes, above, lane), all};
}

/// Keys above `key` are taken, and the first `equal` that equal it.
struct cut {
  std::uint32_t key;
  int equal, taken;
};

/// Where the `wanted` best of a column end, by one block.
__device__ inline cut find_cut(float const* column, offset_t tokens, int wanted) {
  __shared__ int counts[256 + 256 / 8];
  __shared__ last_digit found;
  std::uint32_t const none = shunt::detail::order_of(-__builtin_inff());
  cut at{0, wanted, wanted};
  for (int shift = 24; shift >= 0; shift -= 8) {
    std::uint32_t const known = shift == 24 ? 0 : ~0u << (shift + 8);
    auto const first = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.x);
    for (int i = first; i < 256 + 256 / 8; i += step) counts[i] = 0;
    __syncthreads();
    for (offset_t base = 0; base < tokens; base += blockDim.x) {
      offset_t const t = base + threadIdx.x;
      std::uint32_t const key = t < tokens ? shunt::detail::order_of(column[t]) : 0;
      bool const counted = key > none && (key & known) == at.key;
      // Equal digits of a warp are one addition: scores have few exponents.
      int const digit = counted ? static_cast<int>(key >> shift & 255) : 256;
      unsigned const same = __match_any_sync(all_lanes, digit);
      if (counted && (same & lanes_below()) == 0) {
        atomicAdd(counts + place_of_digit(digit), __popc(same));
      }
    }
    __syncthreads();
    if (threadIdx.x < warp_lanes) {
      last_digit const d = find_digit(counts, at.equal);
      if (threadIdx.x == 0) found = d;
    }
    __syncthreads();
    last_digit const d = found;
    if (shift == 24) at.taken = at.equal = min(wanted, d.all);
    at.key |= static_cast<std::uint32_t>(d.digit) << shift;
    at.equal -= d.above;
  }
  if (at.taken == 0) at.key = ~0u;  // no key is
  return at;
}

SHUNT_KERNEL void __launch_bounds__(tuning::lone_block) take_tokens(expert_choice_job job) {
  __shared__ int counts[tuning::lone_block / warp_lanes];
  auto const& out = job.out;
  int const warps = static_cast<int>(blockDim.x) / warp_lanes;
  int const warp = static_cast<int>(threadIdx.x) / warp_lanes;
  offset_t const tokens = job.row.blocks.length, each = out.token.extent(1);
  for (offset_t e = blockIdx.x; e < job.row.rule.experts; e += gridDim.x) {
    float const* const column = job.scratch.columns + e * job.scratch.padded;
    cut const last = find_cut(column, tokens, static_cast<int>(min(each, tokens)));
    int above = 0, equal = 0;  // before these tokens
    for (offset_t base = 0; base < tokens; base += blockDim.x) {
      offset_t const t = base + threadIdx.x;
      float const score = t < tokens ? column[t] : 0.0f;
      std::uint32_t const key = t < tokens ? shunt::detail::order_of(score) : 0;
      unsigned const higher = __ballot_sync(all_lanes, t < tokens && key > last.key);
      unsigned const level = __ballot_sync(all_lanes, t < tokens && key == last.key);
      // Both counts of a warp in one word: a block has 1024 tokens at most.
      if (lane_of_thread() == 0) counts[warp] = __popc(higher) << 16 | __popc(level);
      __syncthreads();
      int const mine = lane_of_thread() < warps ? counts[lane_of_thread()] : 0;
      int const up_to = warp_prefix(mine), before = __shfl_sync(all_lanes, up_to - mine, warp);
      int const all = __shfl_sync(all_lanes, up_to, warp_lanes - 1);
      int const my_above = above + (before >> 16) + __popc(higher & lanes_below());
      int const my_equal = equal + (before & 0xffff) + __popc(level & lanes_below());
      unsigned const me = 1u << lane_of_thread();
      if ((higher & me) != 0 || ((level & me) != 0 && my_equal < last.equal)) {
        int const place = my_above + min(my_equal, last.equal);
        out.token(e, place) = static_cast<index_t>(t);
        out.gate(e, place) = __fmul_rn(score, job.row.options.scale);
        if (out.coverage) atomicAdd(&out.coverage[t], 1);
      }
      above += all >> 16;
      equal += all & 0xffff;
      __syncthreads();
    }
    for (offset_t i = last.taken + threadIdx.x; i < each; i += blockDim.x) {
      out.token(e, i) = -1;
      out.gate(e, i) = 0.0f;
    }
    if (out.counts && threadIdx.x == 0) out.counts[e] = last.taken;
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
  float const peak = read_logits(job.row, t, r, non_finite);
  if (!(peak > -__builtin_inff())) return write_no_gradients(job.row, job.to, t);
  bool const softmax = rule.score == score_kind::softmax;
  make_scores(rule, r, peak, softmax ? exponentials(r.z, r.s, peak) : 0.0f);
  for_strips(r.key, [&](int i) {
    index_t const e = element_of(i);
    index_t const mark = e < rule.experts ? job.marks[t * rule.experts + e] : 0;
    r.key[i] = mark > 0 ? __fmul_rn(job.d_gate(e, mark - 1), rule.scale) : 0.0f;
  });
  scores_to_logits(rule, r, softmax);
  write_gradients(job.row, job.to, t, r);
}

template <int Strips>
SHUNT_KERNEL void __launch_bounds__(tuning::threads, 1)
    score_gradients(expert_choice_backward_job job) {
  for (offset_t t = grid_warp(); t < job.row.blocks.length; t += grid_warps()) {
    with_rows_of<Strips>(job.row, [&](auto& r) { token_scores_backward(job, t, r); });
  }
}

/// What the kernels read a token's row by, for either direction.
template <class T>
route_job expert_choice_rows(view<T const, 2, space::device> logits,
                             view<std::uint8_t const, 1, space::device> valid,
                             route_options const& options, route_scratch const& scratch) noexcept {
  route_job job{.logits = logits.data(),
                .stride = logits.stride(0),
                .type = logit_type_of<T>,
                .out = {},
                .options = options,
                .with = {},
                .rule = shunt::detail::rule_of(logits.extent(1), 1, options),
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
  expert_choice_job job{expert_choice_rows<T>(c.logits, c.valid, c.options, scratch.route), c.out,
                        scratch};
  job.row.out.report = c.out.report;
  offset_t const blocks = job.row.blocks.count();
  status done =
      in_registers(experts, 1)
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
      expert_choice_rows<T>(c.logits, c.valid, c.options, scratch.route), c.token, c.d_gate,
      scratch.marks, gradient_rows{c.d_logits.data(), c.d_logits.stride(0), logit_type_of<G>}};
  status done = launch_threads(on, who, tokens * experts, clear_marks, job);
  if (done.ok()) { done = launch_threads(on, who, experts * c.token.extent(1), mark_choices, job); }
  if (!done.ok()) return done;
  return in_registers(experts, 1)
             ? launch_tokens<shared_strips>(on, who, &score_gradients<shared_strips>, job.row, job)
             : launch_tokens<0>(on, who, &score_gradients<0>, job.row, job);
}

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::cuda

namespace shunt::detail {
inline void carve_for(on_cuda const&, arena<space::device>& a,
                      expert_choice_sizes const& n) noexcept {
  cuda::carve_expert_choice(a, n);
}
template <class T>
status run_on(on_cuda const& on, expert_choice_call<T, space::device> const& c) noexcept {
  return cuda::route_expert_choice(on, c);
}
template <class T, class G>
status run_on(on_cuda const& on,
              expert_choice_backward_call<T, G, space::device> const& c) noexcept {
  return cuda::route_expert_choice_backward(on, c);
}
}  // namespace shunt::detail
