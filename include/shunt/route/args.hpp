#pragma once
#include <cstdint>

#include "shunt/core/arena.hpp"
#include "shunt/core/view.hpp"
#include "shunt/route/options.hpp"
#include "shunt/route/routing.hpp"

/// A checked call, as one value: what the public functions hand to the backend of the policy, which is
/// a specialization of these in each backend's route folder, with run(policy, call) for each call and
/// carve(policy, arena, sizes) where there is scratch.
namespace shunt::detail {

template <class P> struct gate_projection_backend;
template <class P> struct route_backend;
template <class P> struct route_backward_backend;
template <class P> struct route_balance_backend;
template <class P> struct expert_choice_backend;

struct route_sizes {
  offset_t tokens, experts, top_k, sequences;
};

template <class T, space S> struct route_call {
  view<T const, 2, S> logits;
  routing<S> out;
  arena<S> work;
  route_options options;
  route_inputs<S> with;
};

template <class T, class G, space S> struct route_backward_call {
  view<T const, 2, S> logits;
  view<index_t const, 2, S> expert;
  route_gradients<S> d;
  view<G, 2, S> d_logits;
  arena<S> work;
  route_options options;
  route_inputs<S> with;
};

template <space S> struct balance_call {
  view<index_t const, 2, S> counts;    // [N,E]
  view<float const, 2, S> importance;  // [N,E]
  view<index_t const, 1, S> tokens;    // [N]
  view<float, 1, S> loss;              // [1]
  view<float, 2, S> d_importance;      // [N,E]
  float coefficient;
  bool accumulate;
};

template <space S> struct z_loss_call {
  view<float const, 1, S> z;
  view<index_t const, 1, S> tokens;
  view<float, 1, S> loss, d_z;
  float coefficient;
  bool accumulate;
};

template <space S> struct band_call {
  view<index_t const, 1, S> counts;
  view<float const, 1, S> importance;
  view<index_t const, 1, S> tokens;
  view<float, 1, S> loss, d_importance;
  float coefficient, low, high;
  bool by_counts, accumulate;
};

template <space S> struct sign_step_call {
  view<index_t const, 1, S> counts;
  view<float, 1, S> bias;
  float step;
};

template <space S> struct quantile_step_call {
  view<index_t const, 2, S> histogram;
  view<float, 1, S> bias;
  offset_t top_k;
};

template <class X, class W, space S> struct gate_logits_call {
  view<X const, 2, S> x;
  view<W const, 2, S> w;
  view<float, 2, S> logits;
  view<float const, 1, S> bias;
};

template <class X, class W, class Dx, space S> struct gate_backward_call {
  view<float const, 2, S> d_logits;
  view<X const, 2, S> x;
  view<W const, 2, S> w;
  view<Dx, 2, S> d_x;
  view<float, 2, S> d_w;
  view<float, 1, S> d_bias;
  bool add_x, add_weights;
};

struct expert_choice_sizes {
  offset_t tokens, experts;
};

template <class T, space S> struct expert_choice_call {
  view<T const, 2, S> logits;
  expert_choice<S> out;
  arena<S> work;
  route_options options;
  view<std::uint8_t const, 1, S> valid;
};

template <class T, class G, space S> struct expert_choice_backward_call {
  view<T const, 2, S> logits;
  view<index_t const, 2, S> token;
  view<float const, 2, S> d_gate;
  view<G, 2, S> d_logits;
  arena<S> work;
  route_options options;
  view<std::uint8_t const, 1, S> valid;
};

/// Sequences that the outputs ask for; 1 where none does.
template <space S> [[nodiscard]] constexpr offset_t sequences_of(routing<S> const& out) noexcept {
  return out.sequence_importance ? out.sequence_importance.extent(0)
         : out.sequence_counts   ? out.sequence_counts.extent(0)
         : out.sequence_tokens   ? out.sequence_tokens.extent(0)
                                 : 1;
}

}  // namespace shunt::detail
