#pragma once
#include "shunt/backend/host/route/draws.hpp"
#include "shunt/route/args.hpp"

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

template <class T>
status route(on_host const& on, view<T const, 2> logits, routing<> const& out, arena<> work,
             route_options const& given, route_inputs<> const& with) noexcept {
  route_options const options = drawn(given, with);
  std::int64_t const tokens = logits.extent(0), experts = logits.extent(1);
  std::int64_t const top_k = out.expert.extent(1);
  std::int64_t const sequences = ::shunt::detail::sequences_of(out);
  route_scratch const s = carve_route(on, work, tokens, experts, top_k, sequences);
  if (status bad = work.check("route"); !bad.ok()) return bad;
  token_blocks const blocks(tokens, sequences);

  route_rule r = make_rule(experts, top_k, options);
  r.z = bool(out.z);
  r.importance = out.importance || out.sequence_importance;
  if (out.histogram) {
    auto const range = balance::range_of(with.choice_bias);
    r.bins = out.histogram.extent(1);
    r.lowest = range.lowest;
    r.bins_per_unit = range.bins_per_unit(r.bins);
    if (!options.accumulate) {
      for (std::int64_t e = 0; e < experts; ++e) {
        for (std::int64_t i = 0; i < r.bins; ++i) out.histogram(e, i) = 0;
      }
    }
  }
  set_choice(r, with.ids ? nullptr : with.choice_bias.data());

  auto* const kernel = SHUNT_ISA_PICK(on, route_row<T>);
  parallel(on, blocks.count(), [&](std::int64_t block, int worker) {
    route_buffers const b = buffers_of(s, worker);
    float* const importance = s.importance + block * s.padded;
    index_t* const counts = s.counts + block * experts;
    std::int64_t* const report = s.report + block * route_events;
    for (std::int64_t e = 0; e < s.padded; ++e) importance[e] = 0.0f;
    for (std::int64_t e = 0; e < experts; ++e) counts[e] = 0;
    for (std::int64_t i = 0; i < route_events; ++i) report[i] = 0;
    auto const count = [&](route_event what, std::int64_t by) {
      report[static_cast<std::size_t>(what)] += by;
    };
    for (std::int64_t t = blocks.first(block); t < blocks.last(block); ++t) {
      if (with.valid && with.valid[t] == 0) {
        for (std::int64_t k = 0; k < top_k; ++k) {
          out.expert(t, k) = -1;
          out.gate(t, k) = 0.0f;
          if (out.recorded) out.recorded(t, k) = -1;
        }
        if (out.z) out.z[t] = 0.0f;
        continue;
      }
      route_facts f;
      if (options.jitter > 0.0f) draw_noise(options, t, experts, s.padded, b.noise);
      if (with.ids) forced_ids(with, t, r, b, report);
      float const draw = options.random_second ? draw_second(options, t) : 0.0f;
      kernel(r, logits.data() + t * logits.stride(0), b, importance, bool(with.ids), draw, f);

      std::int64_t unfilled = 0;
      for (std::int64_t k = 0; k < top_k; ++k) {
        index_t const id = b.id[k];
        out.expert(t, k) = id;
        out.gate(t, k) = b.gate[k];
        if (out.recorded) out.recorded(t, k) = static_cast<std::int16_t>(id);
        if (id >= 0) {
          ++counts[id];
        } else {
          ++unfilled;
        }
      }
      if (out.z) out.z[t] = f.z;
      if (r.bins > 0 && f.cutoff > -__builtin_inff()) count_bins(r, b, out.histogram);
      count(route_event::tokens, 1);
      count(route_event::non_finite_tokens, f.non_finite > 0 ? 1 : 0);
      count(route_event::non_finite_logits, f.non_finite);
      count(route_event::empty_tokens, unfilled == top_k ? 1 : 0);
      count(route_event::unfilled_slots, unfilled);
      count(route_event::second_dropped, f.second_dropped ? 1 : 0);
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
    return host::route(on, c.logits, c.out, c.work, c.options, c.with);
  }
};

}  // namespace shunt::detail
