#pragma once
#include "shunt/backend/host/route/draws.hpp"
#include "shunt/route/args.hpp"
#include "shunt/route/make_rule.hpp"

namespace shunt::host {
inline namespace SHUNT_ABI {

using shunt::detail::token_blocks;

/// Integer counts of many tokens at once: the order of additions cannot show.
inline void count_bins(route_rule const& r, route_buffers const& b,
                       view<index_t, 2> histogram) noexcept {
  for (std::int64_t e = 0; e < r.experts; ++e) {
    if (b.bin[e] < 0) continue;
    std::atomic_ref<index_t>(histogram(e, b.bin[e])).fetch_add(1, std::memory_order_relaxed);
  }
}

/// Adds the blocks' sums, in order, sequence by sequence; experts [first, last).
inline void add_blocks(route_scratch const& s, token_blocks const& blocks, std::int64_t experts,
                       routing<> const& out, bool accumulate, std::int64_t first,
                       std::int64_t last) noexcept {
  for (std::int64_t e = first; e < last; ++e) {
    float importance = accumulate && out.importance ? out.importance[e] : 0.0f;
    index_t count = accumulate && out.counts ? out.counts[e] : 0;
    for (std::int64_t n = 0; n < blocks.sequences; ++n) {
      bool const own = accumulate && out.sequence_importance;
      float sum = own ? out.sequence_importance(n, e) : 0.0f;
      index_t mine = accumulate && out.sequence_counts ? out.sequence_counts(n, e) : 0;
      for (std::int64_t i = n * blocks.each; i < (n + 1) * blocks.each; ++i) {
        float const p = s.importance[i * s.padded + e];
        importance += p;
        sum += p;
        count += s.counts[i * experts + e];
        mine += s.counts[i * experts + e];
      }
      if (out.sequence_importance) out.sequence_importance(n, e) = sum;
      if (out.sequence_counts) out.sequence_counts(n, e) = mine;
    }
    if (out.importance) out.importance[e] = importance;
    if (out.counts) out.counts[e] = count;
  }
}

inline void add_reports(route_scratch const& s, token_blocks const& blocks, routing<> const& out,
                        bool accumulate) noexcept {
  std::int64_t total[route_events] = {};
  for (std::int64_t n = 0; n < blocks.sequences; ++n) {
    std::int64_t tokens = 0;
    for (std::int64_t i = n * blocks.each; i < (n + 1) * blocks.each; ++i) {
      tokens += s.report[i * route_events];
      for (std::int64_t k = 0; k < route_events; ++k) total[k] += s.report[i * route_events + k];
    }
    if (out.sequence_tokens) {
      index_t const before = accumulate ? out.sequence_tokens[n] : 0;
      out.sequence_tokens[n] = before + static_cast<index_t>(tokens);
    }
  }
  if (out.tokens) out.tokens[0] = (accumulate ? out.tokens[0] : 0) + static_cast<index_t>(total[0]);
  if (out.report) {
    for (std::int64_t k = 0; k < route_events; ++k) {
      out.report[k] = (accumulate ? out.report[k] : 0) + total[k];
    }
  }
}

/// What one block of tokens adds up.
struct block_sums {
  float* importance;
  index_t* counts;
  std::int64_t* report;
  void count(route_event what, std::int64_t by) const noexcept {
    report[static_cast<std::size_t>(what)] += by;
  }
};
inline block_sums cleared_sums(route_scratch const& s, std::int64_t block,
                               std::int64_t experts) noexcept {
  block_sums const to{.importance = s.importance + block * s.padded,
                      .counts = s.counts + block * experts,
                      .report = s.report + block * route_events};
  for (std::int64_t e = 0; e < s.padded; ++e) to.importance[e] = 0.0f;
  for (std::int64_t e = 0; e < experts; ++e) to.counts[e] = 0;
  for (std::int64_t i = 0; i < route_events; ++i) to.report[i] = 0;
  return to;
}

/// A rule with the range of its histogram, which is cleared where nothing is added to.
inline route_rule begin_histogram(route_rule r, view<float const, 1> choice_bias,
                                  view<index_t, 2> histogram, bool accumulate) noexcept {
  if (!histogram) return r;
  auto const range = balance::range_of(choice_bias);
  r.lowest = range.lowest;
  r.bins_per_unit = range.bins_per_unit(r.bins);
  for (std::int64_t e = 0; e < r.experts && !accumulate; ++e) {
    for (std::int64_t i = 0; i < r.bins; ++i) histogram(e, i) = 0;
  }
  return r;
}

/// A padding token has no expert.
inline void write_no_choice(routing<> const& out, std::int64_t t) noexcept {
  for (std::int64_t k = 0; k < out.expert.extent(1); ++k) {
    out.expert(t, k) = -1;
    out.gate(t, k) = 0.0f;
    if (out.recorded) out.recorded(t, k) = -1;
  }
  if (out.z) out.z[t] = 0.0f;
}

/// The ids and gates of a token, and what it adds to the sums of its block.
inline void write_choice(routing<> const& out, std::int64_t t, route_rule const& r,
                         route_buffers const& b, route_facts const& f,
                         block_sums const& sums) noexcept {
  std::int64_t unfilled = 0;
  for (std::int64_t k = 0; k < r.top_k; ++k) {
    index_t const id = b.id[k];
    out.expert(t, k) = id;
    out.gate(t, k) = b.gate[k];
    if (out.recorded) out.recorded(t, k) = static_cast<std::int16_t>(id);
    if (id >= 0) {
      ++sums.counts[id];
    } else {
      ++unfilled;
    }
  }
  if (out.z) out.z[t] = f.z;
  if (r.bins > 0 && f.cutoff > -__builtin_inff()) count_bins(r, b, out.histogram);
  sums.count(route_event::tokens, 1);
  sums.count(route_event::non_finite_tokens, f.non_finite > 0 ? 1 : 0);
  sums.count(route_event::non_finite_logits, f.non_finite);
  sums.count(route_event::empty_tokens, unfilled == r.top_k ? 1 : 0);
  sums.count(route_event::unfilled_slots, unfilled);
  sums.count(route_event::second_dropped, f.second_dropped ? 1 : 0);
}

template <class T>
status route(on_host const& on, detail::route_call<T, space::host> const& c) noexcept {
  auto const& logits = c.logits;
  auto const& out = c.out;
  auto const& with = c.with;
  route_options const options = drawn(c.options, c.with);
  std::int64_t const tokens = logits.extent(0), experts = logits.extent(1);
  arena<> work = c.work;
  std::int64_t const sequences = detail::sequences_of(out);
  route_scratch const s = carve_route(on, work, tokens, experts, out.expert.extent(1), sequences);
  if (status bad = work.check("route"); !bad.ok()) return bad;
  token_blocks const blocks(tokens, sequences);
  route_rule const r =
      begin_histogram(detail::make_rule(c), with.choice_bias, out.histogram, options.accumulate);

  auto* const kernel = SHUNT_ISA_PICK(on, route_row<T>);
  parallel(on, blocks.count(), [&](std::int64_t block, int worker) {
    route_buffers const b = buffers_of(s, worker);
    block_sums const sums = cleared_sums(s, block, experts);
    for (std::int64_t t = blocks.first(block); t < blocks.last(block); ++t) {
      if (with.valid && with.valid[t] == 0) {
        write_no_choice(out, t);
        continue;
      }
      route_facts f;
      if (options.jitter > 0.0f) draw_noise(options, t, experts, s.padded, b.noise);
      if (with.ids) forced_ids(with, t, r, b, sums.report);
      float const draw = options.random_second ? draw_second(options, t) : 0.0f;
      kernel(r, logits.data() + t * logits.stride(0), b, sums.importance, bool(with.ids), draw, f);
      write_choice(out, t, r, b, f, sums);
    }
  });

  if (out.counts || out.importance || out.sequence_counts || out.sequence_importance) {
    parallel_ranges(on, experts, 512, [&](std::int64_t first, std::int64_t last, int) {
      add_blocks(s, blocks, experts, out, options.accumulate, first, last);
    });
  }
  add_reports(s, blocks, out, options.accumulate);
  return {};
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host

namespace shunt::detail {

template <> struct route_backend<on_host> {
  static void carve(on_host const& on, arena<>& a, route_sizes const& n) noexcept {
    host::carve_route(on, a, n.tokens, n.experts, n.top_k, n.sequences);
  }
  template <class T>
  static status run(on_host const& on, route_call<T, space::host> const& c) noexcept {
    return host::route(on, c);
  }
};

}  // namespace shunt::detail
