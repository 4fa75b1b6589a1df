#pragma once
#include <cstring>

#include "shunt/nn/detail/args.hpp"
#include "shunt/nn/detail/model_parts.hpp"
#include "shunt/nn/optimizer.hpp"

/// How a model's parameters begin, and what an optimizer's step does to them: of a whole model or of a rank's.
namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

/// First values of a part of parameter p, which begins at `position` of the whole model's flat buffer.
template <class P>
[[nodiscard]] status init_part(P const& on, model_config const& c, model_parameter const& p,
                               view<float, 1, P::memory> part, std::uint64_t seed,
                               offset_t position) noexcept {
  if (!p.decays) return model_backend<P>::fill(on, part, 1.0f);
  std::size_t const length = std::strlen(p.name);
  auto const ends = [&](char const* tail) {
    std::size_t const n = std::strlen(tail);
    return length >= n && std::strcmp(p.name + length - n, tail) == 0;
  };
  double const shrink = 1.0 / __builtin_sqrt(c.layers > 0 ? 2.0 * c.layers : 1.0);
  return model_backend<P>::fill_normal(on, part, seed, position,
                                       ends(".out") || ends(".down") ? 0.02 * shrink : 0.02);
}

/// AdamW on the flat buffer, clipped by a norm that is known: weight decay on the matrices only.
template <class P, storage T>
[[nodiscard]] status update_by(P const& on, model_config const& config,
                               adamw_state<T, P::memory> const& state,
                               view<float, 1, P::memory> norm, adamw_options const& options,
                               adamw_scalars<P::memory> const& scalars) noexcept {
  offset_t const count = model_layout(config).count, decayed = model_layout(config).norms;
  auto const part = [&](offset_t first, offset_t n) {
    auto const cut = [&](auto v) { return v.data() == nullptr ? v : v.slice(first, n); };
    return adamw_state<T, P::memory>{state.parameter.slice(first, n), cut(state.gradient),
                                     cut(state.first_moment), cut(state.second_moment),
                                     cut(state.copy)};
  };
  adamw_options without = options;
  without.weight_decay = 0.0f;
  if (status bad = adamw(on, part(0, decayed), norm, options, scalars); !bad.ok()) return bad;
  return adamw(on, part(decayed, count - decayed), norm, without, scalars);
}

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
