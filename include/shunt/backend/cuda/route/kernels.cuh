#pragma once
// Part of route.cuh: its kernels; the steps of a row stand in route/steps.cuh. A warp has one token, a
// block the 32 tokens whose load is summed in order. The steps are those of the host's route_row, on
// the same 32 partial sums.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

__device__ inline void count(int* events, route_event what, int by) {
  if (by != 0 && lane_of_thread() == 0) atomicAdd(events + static_cast<int>(what), by);
}

/// Ids from outside: an id that names no expert, and one that the token has already, become -1.
template <class Rows>
__device__ void forced_ids(route_job const& job, offset_t t, Rows& r, int* events) {
  offset_t row = t;
  bool there = true;
  if (job.with.token) {
    row = job.with.token[t];
    there = shunt::detail::has_row(job.with.ids, row);
    if (!there) count(events, route_event::ids_out_of_range, 1);
  }
  for (index_t k = 0; k < job.rule.top_k; ++k) {
    index_t id = there ? job.with.ids(row, k) : -1;
    if (shunt::detail::is_wild(id, job.rule.experts)) {
      count(events, route_event::ids_out_of_range, 1);
      id = -1;
    }
    bool before = false;
    for_strips(r.id, [&](int i) { before |= id >= 0 && element_of(i) < k && r.id[i] == id; });
    if (__any_sync(all_lanes, before)) {
      count(events, route_event::ids_repeated, 1);
      id = -1;
    }
    r.id.put(k, id);
  }
}

/// The bin of each expert's required bias, cutoff - score, in integer counts of many tokens.
template <class Rows> __device__ void count_bins(route_job const& job, Rows& r, float cutoff) {
  float const most = static_cast<float>(job.rule.bins - 1), lowest = job.scratch.range->lowest;
  float const per_unit = job.scratch.range->bins_per_unit(job.rule.bins);
  for_strips(r.z, [&](int i) {
    if (!(r.z[i] > -__builtin_inff())) return;
    float place = __fmul_rn(__fadd_rn(__fadd_rn(cutoff, -r.s[i]), -lowest), per_unit);
    place = place > 0.0f ? place : 0.0f;
    place = place < most ? place : most;
    atomicAdd(&job.out.histogram(element_of(i), static_cast<offset_t>(place)), 1);
  });
}

/// What a token's row turned out to be.
struct token_facts {
  float peak = -__builtin_inff(), total = 0.0f;  // largest logit; sum of exp(logit - peak)
  float z = 0.0f, cutoff = -__builtin_inff();
  int non_finite = 0;
  bool second_dropped = false;
};

/// The ids and gates of a token; of a padding token none.
template <class Rows>
__device__ void write_choice(route_job const& job, offset_t t, Rows& r, index_t top_k,
                             bool routed) {
  for_strips(r.id, [&](int i) {
    index_t const k = element_of(i);
    if (k >= top_k) return;
    index_t const id = routed ? r.id[i] : -1;
    job.out.expert(t, k) = id;
    job.out.gate(t, k) = routed ? r.gate[i] : 0.0f;
    if (job.out.recorded) job.out.recorded(t, k) = static_cast<std::int16_t>(id);
  });
}
__device__ inline void write_z(route_job const& job, offset_t t, float z) {
  if (job.out.z && lane_of_thread() == 0) job.out.z[t] = z;
}

/// Whether the draw leaves the second expert out: it stays with probability 2 · its share.
template <class Rows>
__device__ bool drops_second(route_job const& job, offset_t t, Rows& r, token_facts const& f) {
  if (!job.rule.random_second || r.id.pick(1) < 0) return false;
  make_gates(job.rule, r, 1.0f, f.peak, f.total);
  auto const& draws = job.with.draws;
  std::uint64_t const position = draws.first_token_of(job.options) + static_cast<std::uint64_t>(t);
  float const draw = uniform_of(random_at(draws.seed_of(job.options), position, 0).word[0]);
  return !(__fmul_rn(2.0f, r.gate.pick(1)) > draw);
}

/// One token, by one warp. `staged` takes its shares where importance is wanted.
template <class Rows>
__device__ void route_token(route_job const& job, offset_t t, Rows& r, float* staged,
                            index_t* counts, int* events) {
  route_rule const& rule = job.rule;
  float const none = -__builtin_inff();
  auto const top_k = static_cast<index_t>(rule.top_k);
  if (job.with.valid && job.with.valid[t] == 0) {
    if (rule.importance) stage_nothing(staged, r.z);
    write_z(job, t, 0.0f);
    return write_choice(job, t, r, top_k, false);
  }
  for_strips(r.id, [&](int i) { r.id[i] = -1; });
  if (job.with.ids) forced_ids(job, t, r, events);
  bool const forced = bool(job.with.ids);
  token_facts f;
  f.peak = read_logits(job, t, r, f.non_finite);
  if (!(f.peak > none)) {
    if (rule.importance) stage_nothing(staged, r.z);
    for_strips(r.gate, [&](int i) { r.gate[i] = 0.0f; });
  } else {
    if (rule.exponentials) {
      f.total = exponentials(r.z, r.s, f.peak);
      if (rule.z) f.z = __fadd_rn(f.peak, math::log(f.total));
      if (rule.importance && rule.score == score_kind::logits) {
        stage_shares(staged, r.s, f.total);
      }
    }
    if (rule.scores) {
      bool const softmax = rule.score == score_kind::softmax;
      bool const shares = rule.importance && rule.score != score_kind::logits;
      float const q = softmax || f.peak >= 0.0f ? 0.0f : f.peak;
      if (softmax || !shares) {
        make_scores(rule, r, f.peak, f.total);
        if (shares) stage_shares(staged, r.s, 1.0f);
      } else {
        stage_shares(staged, r.s, shifted_scores(rule.score, r.z, r.s, q));
        if (q != 0.0f) make_scores(rule, r, f.peak, f.total);
      }
    }
    if (!forced) {
      choose(rule, r);
      if (rule.bins > 0) f.cutoff = largest_of(r.key).value;
    }
    gather_chosen(rule, r);
    f.second_dropped = drops_second(job, t, r, f);
    make_gates(rule, r, rule.scale, f.peak, f.total);
    if (f.second_dropped) {
      r.id.put(1, -1);
      r.gate.put(1, 0.0f);
    }
  }
  int unfilled = 0;
  for_strips(r.id, [&](int i) {
    if (element_of(i) >= top_k) return;
    if (r.id[i] >= 0) {
      if (counts != nullptr) atomicAdd(counts + r.id[i], 1);
    } else {
      ++unfilled;
    }
  });
  unfilled = __reduce_add_sync(all_lanes, unfilled);
  write_choice(job, t, r, top_k, true);
  write_z(job, t, f.z);
  if (f.cutoff > none) count_bins(job, r, f.cutoff);
  count(events, route_event::tokens, 1);
  count(events, route_event::non_finite_tokens, f.non_finite > 0 ? 1 : 0);
  count(events, route_event::non_finite_logits, f.non_finite);
  count(events, route_event::empty_tokens, unfilled == top_k ? 1 : 0);
  count(events, route_event::unfilled_slots, unfilled);
  count(events, route_event::second_dropped, f.second_dropped ? 1 : 0);
}

/// The warps of a block take the tokens of one token block in turn; after each turn their shares are
/// added in token order.
template <int Strips>
SHUNT_KERNEL void __launch_bounds__(tuning::threads, 1) route_tokens(route_job job) {
  constexpr int warps = warps_with<Strips>, threads = warps * warp_lanes;
  constexpr int events_of = static_cast<int>(route_events);
  constexpr bool fixed = Strips > 0 && Strips != shared_strips;
  __shared__ int events[events_of];
  __shared__ float fixed_stage[fixed ? warps * Strips * warp_lanes : 1];
  int const warp = static_cast<int>(threadIdx.x) / warp_lanes;
  offset_t const padded = job.rule.padded, pitch = fixed ? Strips * warp_lanes : padded;
  float* const stage = fixed        ? fixed_stage
                       : Strips > 0 ? rows_of_block() + 3 * warps * padded
                                    : job.scratch.stage + offset_t{blockIdx.x} * warps * padded;
  for (offset_t block = blockIdx.x; block < job.blocks.count(); block += gridDim.x) {
    float* const importance = job.scratch.importance + block * job.rule.experts;
    index_t* const counts = job.scratch.counts + block * job.rule.experts;
    for (offset_t e = threadIdx.x; job.load && e < job.rule.experts; e += threads) {
      importance[e] = 0.0f;
      counts[e] = 0;
    }
    if (threadIdx.x < events_of) events[threadIdx.x] = 0;
    __syncthreads();
    offset_t const last = job.blocks.last(block);
    for (offset_t at = job.blocks.first(block); at < last; at += warps) {
      offset_t const t = at + warp;
      float* const staged = stage + warp * pitch;
      if (t < last) {
        index_t* const counted = job.load ? counts : nullptr;
        with_rows<Strips>(job, [&](auto& r) { route_token(job, t, r, staged, counted, events); });
      }
      if (!job.rule.importance) continue;
      __syncthreads();
      offset_t const here = min(last - at, offset_t{warps});
      for (offset_t e = threadIdx.x; e < job.rule.experts; e += threads) {
        float sum = importance[e];
        for (offset_t w = 0; w < here; ++w) sum = __fadd_rn(sum, stage[w * pitch + e]);
        importance[e] = sum;
      }
      __syncthreads();
    }
    __syncthreads();
    if (threadIdx.x < events_of) {
      job.scratch.report[block * events_of + threadIdx.x] = events[threadIdx.x];
    }
    __syncthreads();
  }
}

/// Adds the blocks' sums, in order, sequence by sequence: a thread has one expert.
SHUNT_KERNEL void add_route_blocks(route_job job) {
  routing<space::device> const& out = job.out;
  bool const more = job.options.accumulate;
  offset_t const experts = job.rule.experts, each = job.blocks.each;
  for (offset_t e = grid_thread(); e < experts; e += grid_threads()) {
    float importance = more && out.importance ? out.importance[e] : 0.0f;
    index_t counts = more && out.counts ? out.counts[e] : 0;
    for (offset_t n = 0; n < job.blocks.sequences; ++n) {
      float sum = more && out.sequence_importance ? out.sequence_importance(n, e) : 0.0f;
      index_t mine = more && out.sequence_counts ? out.sequence_counts(n, e) : 0;
      for (offset_t i = n * each; i < (n + 1) * each; ++i) {
        float const p = job.scratch.importance[i * experts + e];
        importance = __fadd_rn(importance, p);
        sum = __fadd_rn(sum, p);
        counts += job.scratch.counts[i * experts + e];
        mine += job.scratch.counts[i * experts + e];
      }
      if (out.sequence_importance) out.sequence_importance(n, e) = sum;
      if (out.sequence_counts) out.sequence_counts(n, e) = mine;
    }
    if (out.importance) out.importance[e] = importance;
    if (out.counts) out.counts[e] = counts;
  }
}

/// Adds the blocks' reports: a thread has one event.
SHUNT_KERNEL void add_route_reports(route_job job) {
  routing<space::device> const& out = job.out;
  bool const more = job.options.accumulate;
  for (offset_t k = grid_thread(); k < route_events; k += grid_threads()) {
    std::int64_t total = 0;
    for (offset_t n = 0; n < job.blocks.sequences; ++n) {
      std::int64_t here = 0;
      for (offset_t i = n * job.blocks.each; i < (n + 1) * job.blocks.each; ++i) {
        here += job.scratch.report[i * route_events + k];
      }
      total += here;
      if (k == 0 && out.sequence_tokens) {
        out.sequence_tokens[n] = (more ? out.sequence_tokens[n] : 0) + static_cast<index_t>(here);
      }
    }
    if (k == 0 && out.tokens) {
      out.tokens[0] = (more ? out.tokens[0] : 0) + static_cast<index_t>(total);
    }
    if (out.report) out.report[k] = (more ? out.report[k] : 0) + total;
  }
}

/// Before a histogram: its range, from the bias, and zeros where nothing is added to.
SHUNT_KERNEL void begin_histogram(route_job job) {
  offset_t const bins = job.rule.bins, all = bins * job.rule.experts;
  for (offset_t i = grid_thread(); !job.options.accumulate && i < all; i += grid_threads()) {
    job.out.histogram(i / bins, i % bins) = 0;
  }
  if (grid_warp() != 0) return;
  auto const range = balance::range_of(job.with.choice_bias);
  if (lane_of_thread() == 0) *job.scratch.range = range;
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
