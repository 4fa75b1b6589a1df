#pragma once
#include <type_traits>

#include "shunt/backend/host/nn/optimizer.hpp"
#include "shunt/core/check.hpp"
#include "shunt/core/concepts.hpp"
#include "shunt/nn/schedule.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {

/// Scratch of gradient_norm().
[[nodiscard]] inline std::size_t gradient_norm_scratch_bytes(offset_t count) noexcept {
  auto a = arena<>::measuring();
  (void)detail::carve_gradient_norm(a, count);
  return a.needed();
}

/// norm[0] = √Σ g²: over everything that is clipped together.
/// Shapes   gradient [N], contiguous · norm [1]
/// Order    32 strided partial sums for each 4096 elements, and again over these: the same bits on any
///          thread count and ISA
/// Cost     reads N once; scratch gradient_norm_scratch_bytes()
template <execution P>
status gradient_norm(P const& on, std::type_identity_t<view<float const, 1, P::memory>> gradient,
                     std::type_identity_t<view<float, 1, P::memory>> norm,
                     std::type_identity_t<arena<P::memory>> work) noexcept {
  float* const partial = detail::carve_gradient_norm(work, gradient.extent(0));
  if (status bad = first_of(check::policy(on), check::rows("gradient_norm.gradient", gradient),
                            check::memory("gradient_norm.norm", norm),
                            check::extent("gradient_norm.norm", 0, norm.extent(0), 1, "one number"),
                            work.check("gradient_norm"));
      !bad.ok()) {
    return bad;
  }
  return detail::optimizer_backend<P>::norm(on, gradient, norm.data(), partial);
}

/// Float master weights with their gradient and moments, and (optional) the copy in the type that
/// the model computes with.
template <class T = float, space S = space::host> struct adamw_state {
  view<float, 1, S> parameter = {};       ///< [N], contiguous as all of them
  view<float const, 1, S> gradient = {};  ///< [N]
  view<float, 1, S> first_moment = {};    ///< [N], zeros before the first step
  view<float, 1, S> second_moment = {};   ///< [N], zeros before the first step
  view<T, 1, S> copy = {};                ///< [N] parameter rounded to T; null: none
};

/// Options of adamw.
struct adamw_options {
  float rate = 1e-3f;                 ///< η
  float beta1 = 0.9f, beta2 = 0.95f;  ///< β₁ of the first moment, β₂ of the second
  float epsilon = 1e-8f;              ///< ε, added to the root of the second moment
  float weight_decay =
      0.0f;  ///< λ, decoupled: the weights shrink by ηλ, independent of the gradient
  std::int64_t step = 1;  ///< 1 at the first step: for the bias correction
  float clip = 0.0f;      ///< the norm that gradients are scaled down to; 0: not clipped
};

/// Where the numbers that change from step to step are read when the kernel runs, in the policy's
/// memory: a captured CUDA graph can then be replayed as the next step. advance() (counter.hpp) adds
/// to the step, scheduled_rate() writes the rate.
template <space S = space::host> struct adamw_scalars {
  view<std::int64_t const, 1, S> step = {};  ///< [1] in place of adamw_options::step; null: that
  view<float const, 1, S> rate = {};         ///< [1] in place of adamw_options::rate; null: that
};

namespace detail {
template <class T, space S> status one_number(char const* name, view<T, 1, S> v) noexcept {
  if (v.data() == nullptr) return {};
  return first_of(check::memory(name, v), check::extent(name, 0, v.extent(0), 1, "one number"));
}
}  // namespace detail

/// One step of AdamW. Where the norm is not finite nothing changes: a broken batch does not break
/// the weights.
/// Shapes   adamw_state [N] · norm [1] from gradient_norm (null: no clipping, no check) · scalars [1]
/// Order    element by element: the same bits on any thread count and ISA, and from whichever memory
///          step and rate are read: the bias corrections are double arithmetic of Shunt's own
/// Errors   extents that differ, null pointers, step below 1, betas outside [0, 1). Where a step
///          read from `scalars` is below 1, or the rate is not finite, nothing changes.
/// Cost     reads four and writes three numbers an element (and the copy)
/// Source   Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019
template <execution P, class T>
status adamw(P const& on, adamw_state<T, P::memory> const& state,
             std::type_identity_t<view<float const, 1, P::memory>> norm,
             adamw_options const& options,
             std::type_identity_t<adamw_scalars<P::memory>> const& scalars = {}) noexcept {
  static_assert(storage<T>, "shunt::nn::adamw: the copy is float, bf16 or fp16");
  offset_t const count = state.parameter.extent(0);
  auto same = [&](char const* name, auto v) {
    return first_of(check::rows(name, v), check::extent(name, 0, v.extent(0), count, "parameters"));
  };
  if (status bad = first_of(check::policy(on), same("adamw.parameter", state.parameter),
                            same("adamw.gradient", state.gradient),
                            same("adamw.first_moment", state.first_moment),
                            same("adamw.second_moment", state.second_moment));
      !bad.ok()) {
    return bad;
  }
  if (state.copy.data() != nullptr) {
    if (status bad = same("adamw.copy", state.copy); !bad.ok()) return bad;
  }
  if (status bad = first_of(detail::one_number("adamw.scalars.step", scalars.step),
                            detail::one_number("adamw.scalars.rate", scalars.rate));
      !bad.ok()) {
    return bad;
  }
  if (options.step < 1 && scalars.step.data() == nullptr) {
    return status::fail(error::bad_argument, "adamw.step is %lld; it must be 1 or more",
                        static_cast<long long>(options.step));
  }
  for (float const beta : {options.beta1, options.beta2}) {
    if (!(beta >= 0.0f && beta < 1.0f)) {
      return status::fail(error::bad_argument, "adamw.beta is %g; it must be from 0 to below 1",
                          static_cast<double>(beta));
    }
  }
  auto rest = [](float beta) { return static_cast<float>(1.0 - static_cast<double>(beta)); };
  return detail::optimizer_backend<P>::adamw(
      on,
      detail::adamw_args<T>{state.gradient.data(), state.parameter.data(),
                            state.first_moment.data(), state.second_moment.data(),
                            state.copy.data(), norm.data(), scalars.step.data(),
                            scalars.rate.data(), options.step, options.clip, options.beta1,
                            options.beta2, rest(options.beta1), rest(options.beta2),
                            options.epsilon, options.rate, options.weight_decay},
      count);
}

/// rate[0] = rate_at(schedule, taken[0]): the rate of the next step, when `taken` counts those that
/// have been taken. In a captured graph: scheduled_rate, then advance(taken), then adamw with both.
/// Shapes   taken [1] · rate [1]
/// Order    the bits of rate_at
/// Errors   extents that differ, null pointers
template <execution P>
status scheduled_rate(P const& on, cosine_schedule const& schedule,
                      std::type_identity_t<view<std::int64_t const, 1, P::memory>> taken,
                      std::type_identity_t<view<float, 1, P::memory>> rate) noexcept {
  if (status bad =
          first_of(check::policy(on), check::memory("scheduled_rate.taken", taken),
                   check::extent("scheduled_rate.taken", 0, taken.extent(0), 1, "one number"),
                   check::memory("scheduled_rate.rate", rate),
                   check::extent("scheduled_rate.rate", 0, rate.extent(0), 1, "one number"));
      !bad.ok()) {
    return bad;
  }
  return detail::optimizer_backend<P>::rate(on, schedule, taken.data(), rate.data());
}

/// to = from, rounded: the working copy of master weights.
template <execution P, class T>
status working_copy(P const& on, std::type_identity_t<view<float const, 1, P::memory>> from,
                    view<T, 1, P::memory> to) noexcept {
  if (status bad =
          first_of(check::policy(on), check::rows("working_copy.from", from),
                   check::rows("working_copy.to", to),
                   check::extent("working_copy.to", 0, to.extent(0), from.extent(0), "parameters"));
      !bad.ok()) {
    return bad;
  }
  return detail::optimizer_backend<P>::template copy<T>(on, from, to);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::nn
