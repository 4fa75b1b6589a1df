#pragma once
#include "shunt/backend/host/route/draws.hpp"
#include "shunt/backend/host/route/forward.hpp"
#include "shunt/route/args.hpp"
#include "shunt/route/make_rule.hpp"

namespace shunt::host {
inline namespace SHUNT_ABI {

/// The chosen ids of a token, for backward; an id that names no expert is none.
inline void chosen_ids(view<index_t const, 2> expert, std::int64_t t, route_rule const& r,
                       route_buffers const& b) noexcept {
  for (std::int64_t k = 0; k < r.top_k; ++k) {
    index_t const id = expert(t, k);
    b.id[k] = detail::is_wild(id, r.experts) ? -1 : id;
  }
}

template <class T, class G>
status route_backward(on_host const& on,
                      detail::route_backward_call<T, G, space::host> const& c) noexcept {
  auto const& logits = c.logits;
  auto const& expert = c.expert;
  auto const& d = c.d;
  auto const& d_logits = c.d_logits;
  auto const& with = c.with;
  route_options const options = drawn(c.options, with);
  std::int64_t const tokens = logits.extent(0), experts = logits.extent(1);
  std::int64_t const top_k = expert.extent(1);
  std::int64_t const sequences = d.sequence_importance ? d.sequence_importance.extent(0) : 1;
  arena<> memory = c.work;
  route_scratch const s = carve_route(on, memory, tokens, experts, top_k, sequences);
  if (status bad = memory.check("route_backward"); !bad.ok()) return bad;
  token_blocks const blocks(tokens, sequences);

  route_rule const r = detail::make_rule(c), choice = detail::make_choice_rule(c);

  auto* const choose = SHUNT_ISA_PICK(on, route_row<T>);
  auto* const kernel = SHUNT_ISA_PICK(on, route_row_backward<T, G>);
  parallel(on, blocks.count(), [&](std::int64_t block, int worker) {
    route_buffers const b = buffers_of(s, worker);
    for (std::int64_t e = 0; e < s.padded; ++e) {
      float load = e < experts && d.importance ? d.importance[e] : 0.0f;
      if (e < experts && d.sequence_importance) {
        load += d.sequence_importance(block / blocks.each, e);
      }
      b.load[e] = load;
    }
    for (std::int64_t t = blocks.first(block); t < blocks.last(block); ++t) {
      G* const to = d_logits.data() + t * d_logits.stride(0);
      if (with.valid && with.valid[t] == 0) {
        for (std::int64_t e = 0; e < experts; ++e) to[e] = from_float<G>(0.0f);
        continue;
      }
      T const* const row = logits.data() + t * logits.stride(0);
      float const* d_gate = d.gate.data() + t * d.gate.stride(0);
      float kept[2];
      if (options.jitter > 0.0f) draw_noise(options, t, experts, s.padded, b.noise);
      chosen_ids(expert, t, r, b);
      if (options.random_second && b.id[1] < 0) {
        // The draw left the second out, but the first one's share was taken against it.
        route_facts f;
        choose(choice, row, b, nullptr, false, 0.0f, f);
        kept[0] = d_gate[0];
        kept[1] = 0.0f;
        d_gate = kept;
      }
      kernel(r, row, b, d_gate, d.z ? d.z[t] : 0.0f, to);
    }
  });
  return {};
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host

namespace shunt::detail {

template <> struct route_backward_backend<on_host> {
  template <class T, class G>
  static status run(on_host const& on, route_backward_call<T, G, space::host> const& c) noexcept {
    return host::route_backward(on, c);
  }
};

}  // namespace shunt::detail
