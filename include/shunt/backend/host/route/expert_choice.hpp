#pragma once
#include <atomic>

#include "shunt/backend/host/route/draws.hpp"
#include "shunt/route/args.hpp"
#include "shunt/route/make_rule.hpp"

namespace shunt::host {
inline namespace SHUNT_ABI {

/// Beside the rows of route(): a score or a gradient for each expert and token, and for each worker
/// one column of tokens to choose from.
struct expert_choice_scratch {
  route_scratch route;
  float* dense = nullptr;    // [E, padded T], or [T,E] in backward
  float* columns = nullptr;  // [workers, padded T]
  float* peaks = nullptr;    // [workers, padded T / 32]
  std::int64_t padded = 0, strips = 0;
};

inline expert_choice_scratch carve_expert_choice(on_host const& on, arena<>& a, std::int64_t tokens,
                                                 std::int64_t experts) noexcept {
  expert_choice_scratch s;
  s.route = carve_route(on, a, tokens, experts, 1, 1);
  s.padded = strips_of(tokens);
  s.strips = strips_of(s.padded / route_strip);
  std::int64_t const workers = workers_of(on);
  s.dense = a.template take<float>(experts * s.padded);
  s.columns = a.template take<float>(workers * s.padded);
  s.peaks = a.template take<float>(workers * s.strips);
  return s;
}

template <class T>
status route_expert_choice(on_host const& on,
                           detail::expert_choice_call<T, space::host> const& c) noexcept {
  std::int64_t const tokens = c.logits.extent(0), experts = c.logits.extent(1);
  std::int64_t const each = c.out.token.extent(1);
  arena<> memory = c.work;
  expert_choice_scratch const s = carve_expert_choice(on, memory, tokens, experts);
  if (status bad = memory.check("route_expert_choice"); !bad.ok()) return bad;
  route_rule const r = detail::make_rule(c);
  float const none = -__builtin_inff();

  auto* const kernel = SHUNT_ISA_PICK(on, route_row_scores<T>);
  std::int64_t const blocks = blocks_of(tokens, 1);
  parallel(on, blocks, [&](std::int64_t block, int worker) {
    route_buffers const b = buffers_of(s.route, worker);
    std::int64_t* const report = s.route.report + block * route_events;
    for (std::int64_t i = 0; i < route_events; ++i) report[i] = 0;
    std::int64_t const first = block * route_block;
    std::int64_t const last = first + route_block < tokens ? first + route_block : tokens;
    for (std::int64_t t = first; t < last; ++t) {
      bool const counts = !c.valid || c.valid[t] != 0;
      if (c.out.coverage) c.out.coverage[t] = 0;
      route_facts f;
      if (counts) kernel(r, c.logits.data() + t * c.logits.stride(0), b, f);
      for (std::int64_t e = 0; e < experts; ++e) s.dense[e * s.padded + t] = counts ? b.s[e] : none;
      if (!counts) continue;
      ++report[static_cast<std::size_t>(route_event::tokens)];
      report[static_cast<std::size_t>(route_event::non_finite_tokens)] += f.non_finite > 0 ? 1 : 0;
      report[static_cast<std::size_t>(route_event::non_finite_logits)] += f.non_finite;
    }
  });

  auto* const choose = SHUNT_ISA_PICK(on, choose_tokens);
  parallel(on, experts, [&](std::int64_t e, int worker) {
    float* const column = s.columns + worker * s.padded;
    float const* const scores = s.dense + e * s.padded;
    index_t* const to = c.out.token.data() + e * c.out.token.stride(0);
    for (std::int64_t t = 0; t < s.padded; ++t) column[t] = t < tokens ? scores[t] : none;
    std::int64_t const wanted = each < tokens ? each : tokens;
    if (wanted > 0) choose(column, s.padded, s.peaks + worker * s.strips, to, wanted);
    std::int64_t taken = 0;
    while (taken < wanted && to[taken] >= 0) ++taken;
    // Into token order: marked in the column, which is not needed any more, and read from it.
    for (std::int64_t t = 0; t < tokens; ++t) column[t] = 0.0f;
    for (std::int64_t i = 0; i < taken; ++i) column[to[i]] = 1.0f;
    for (std::int64_t t = 0, i = 0; i < taken; ++t) {
      if (column[t] != 0.0f) to[i++] = static_cast<index_t>(t);
    }
    for (std::int64_t i = 0; i < each; ++i) {
      if (i >= taken) to[i] = -1;
      c.out.gate(e, i) = i < taken ? scores[to[i]] * c.options.scale : 0.0f;
      if (i < taken && c.out.coverage) {
        std::atomic_ref<index_t>(c.out.coverage[to[i]]).fetch_add(1, std::memory_order_relaxed);
      }
    }
    if (c.out.counts) c.out.counts[e] = static_cast<index_t>(taken);
  });
  if (c.out.report) {
    for (std::int64_t i = 0; i < route_events; ++i) {
      c.out.report[i] = 0;
      for (std::int64_t k = 0; k < blocks; ++k)
        c.out.report[i] += s.route.report[k * route_events + i];
    }
  }
  return {};
}

template <class T, class G>
status route_expert_choice_backward(
    on_host const& on, detail::expert_choice_backward_call<T, G, space::host> const& c) noexcept {
  std::int64_t const tokens = c.logits.extent(0), experts = c.logits.extent(1);
  arena<> memory = c.work;
  expert_choice_scratch const s = carve_expert_choice(on, memory, tokens, experts);
  if (status bad = memory.check("route_expert_choice_backward"); !bad.ok()) return bad;
  route_rule const r = detail::make_rule(c);
  parallel_ranges(on, tokens, 64, [&](std::int64_t first, std::int64_t last, int) {
    for (std::int64_t i = first * experts; i < last * experts; ++i) s.dense[i] = 0.0f;
  });
  parallel(on, experts, [&](std::int64_t e, int) {
    for (std::int64_t i = 0; i < c.token.extent(1); ++i) {
      index_t const t = c.token(e, i);
      if (t >= 0 && t < tokens) s.dense[t * experts + e] = c.d_gate(e, i);
    }
  });
  auto* const kernel = SHUNT_ISA_PICK(on, route_row_scores_backward<T, G>);
  parallel_ranges(on, tokens, route_block, [&](std::int64_t first, std::int64_t last, int worker) {
    route_buffers const b = buffers_of(s.route, worker);
    for (std::int64_t t = first; t < last; ++t) {
      G* const to = c.d_logits.data() + t * c.d_logits.stride(0);
      if (c.valid && c.valid[t] == 0) {
        for (std::int64_t e = 0; e < experts; ++e) to[e] = from_float<G>(0.0f);
        continue;
      }
      kernel(r, c.logits.data() + t * c.logits.stride(0), b, s.dense + t * experts, to);
    }
  });
  return {};
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host

namespace shunt::detail {

template <> struct expert_choice_backend<on_host> {
  static void carve(on_host const& on, arena<>& a, expert_choice_sizes const& n) noexcept {
    host::carve_expert_choice(on, a, n.tokens, n.experts);
  }
  template <class T>
  static status run(on_host const& on, expert_choice_call<T, space::host> const& c) noexcept {
    return host::route_expert_choice(on, c);
  }
  template <class T, class G>
  static status run(on_host const& on,
                    expert_choice_backward_call<T, G, space::host> const& c) noexcept {
    return host::route_expert_choice_backward(on, c);
  }
};

}  // namespace shunt::detail
