#pragma once
#include <type_traits>

#include "shunt/backend/host/nn/cross_entropy.hpp"
#include "shunt/nn/embedding.hpp"
#include "shunt/nn/linear.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {

/// What cross_entropy writes; each part but `mean` is optional.
template <class T, space S = space::host> struct cross_entropy_out {
  view<float, 1, S> mean = {};      ///< [1] over the valid tokens; 0 where there are none
  view<float, 1, S> loss = {};      ///< [T], contiguous; 0 for an ignored token
  view<T, 2, S> d_x = {};           ///< [T,H] of the mean
  view<float, 2, S> d_weight = {};  ///< [V,H] of the mean
};

/// Options of cross_entropy.
struct cross_entropy_options {
  bool accumulate = false;  ///< d_weight: add to it instead of overwriting it
  float scale = 1.0f;       ///< of the gradients
  offset_t divisor =
      0;  ///< of the mean; 0: this call's valid tokens (all micro-batches' otherwise)
};

/// Scratch of cross_entropy().
[[nodiscard]] inline std::size_t cross_entropy_scratch_bytes(offset_t tokens,
                                                             offset_t vocabulary) noexcept {
  auto a = arena<>::measuring();
  (void)detail::carve_cross_entropy(a, tokens, vocabulary);
  return a.needed();
}

namespace detail {
/// What cross_entropy refuses, but for ids and scratch.
template <class P, class T, space S>
[[nodiscard]] status check_cross_entropy(P const& on, view<T const, 2, S> x,
                                         view<T const, 2, S> weight,
                                         view<index_t const, 1, S> target,
                                         cross_entropy_out<T, S> const& out) noexcept {
  offset_t const tokens = x.extent(0), width = x.extent(1), vocabulary = weight.extent(0);
  status bad =
      first_of(check::policy(on), check::rows("cross_entropy.x", x),
               check::rows("cross_entropy.weight", weight),
               check::extent("cross_entropy.weight", 1, weight.extent(1), width, "width of x"),
               check::memory("cross_entropy.target", target),
               check::extent("cross_entropy.target", 0, target.extent(0), tokens, "tokens"),
               check::memory("cross_entropy.mean", out.mean),
               check::extent("cross_entropy.mean", 0, out.mean.extent(0), 1, "one number"));
  if (bad.ok() && out.loss.data() != nullptr) {
    bad = first_of(check::rows("cross_entropy.loss", out.loss),
                   check::extent("cross_entropy.loss", 0, out.loss.extent(0), tokens, "tokens"));
  }
  if (bad.ok() && out.d_x.data() != nullptr) {
    bad = first_of(matrix_of("cross_entropy.d_x", out.d_x, tokens, width),
                   check::apart("cross_entropy.d_x", out.d_x, "cross_entropy.x", x));
  }
  if (bad.ok() && out.d_weight.data() != nullptr) {
    bad = matrix_of("cross_entropy.d_weight", out.d_weight, vocabulary, width);
  }
  return bad;
}

}  // namespace detail

/// The output head and its loss in one: logits = x·Wᵀ, loss_t = log Σ_v e^{z_tv} − z_t,target, and
/// their gradients; the logits of 256 tokens are in memory at a time, never all.
/// Shapes   x [T,H] · weight [V,H] · target [T] (negative: ignored)
/// Types    x, weight, d_x of one storage type; logits, losses and d_weight float
/// Order    softmax: 32 strided partial sums, then halves; d_weight: chains over the tokens of each
///          256, these added in order: the same bits on any thread count and ISA
/// Aliasing d_x overlaps nothing
/// Errors   extents that do not fit, null pointers, a target that is V or more (on a device: ignored),
///          arena too small
/// Cost     T·V·H multiply-adds for each of loss, d_x and d_weight; scratch cross_entropy_scratch_bytes()
template <execution P, input<P, 2> X, input<P, 2> W>
status cross_entropy(P const& on, X&& x_in, W&& weight_in,
                     std::type_identity_t<view<index_t const, 1, P::memory>> target,
                     cross_entropy_out<element_t<X>, P::memory> const& out,
                     std::type_identity_t<arena<P::memory>> work,
                     cross_entropy_options const& options = {}) noexcept {
  using type = element_t<X>;
  static_assert(storage<type>, "shunt::nn::cross_entropy: float, bf16 or fp16 only");
  auto const x = as_input<P, 2>(x_in);
  view<type const, 2, P::memory> const weight = as_input<P, 2>(weight_in);
  offset_t const tokens = x.extent(0), vocabulary = weight.extent(0);
  if (status bad = detail::check_cross_entropy(on, x, weight, target, out); !bad.ok()) return bad;
  auto const scratch = detail::carve_cross_entropy(work, tokens, vocabulary);
  if (status bad = first_of(detail::ids_below("cross_entropy.target", target, vocabulary),
                            work.check("cross_entropy"));
      !bad.ok()) {
    return bad;
  }
  float* const loss = out.loss.data() != nullptr ? out.loss.data() : scratch.loss;
  using backend = detail::cross_entropy_backend<P>;
  status done = backend::count(on, target, vocabulary, options.divisor, scratch.valid);
  if (tokens == 0 && out.d_weight.data() != nullptr && !options.accumulate && done.ok()) {
    view<float const, 2, P::memory> const none(nullptr, {{0, vocabulary}});
    done = linear_wgrad(on, none, x, out.d_weight);
  }
  bool const wanted = out.d_x.data() != nullptr || out.d_weight.data() != nullptr;
  for (offset_t first = 0; done.ok() && first < tokens; first += detail::cross_entropy_chunk) {
    offset_t const left = tokens - first;
    offset_t const rows = left < detail::cross_entropy_chunk ? left : detail::cross_entropy_chunk;
    auto const part = x.slice(first, rows);
    view<float, 2, P::memory> const z(scratch.logits, {{rows, vocabulary}});
    view<float const, 2, P::memory> const d_z = z;
    done = linear(on, part, weight, z);
    if (done.ok()) {
      done = backend::rows(
          on,
          {scratch.logits, vocabulary, target.data() + first * target.stride(0), target.stride(0),
           loss + first, 1, vocabulary, options.scale, scratch.valid},
          rows, wanted);
    }
    if (done.ok() && out.d_x.data() != nullptr) {
      done = linear_dgrad(on, d_z, weight, out.d_x.slice(first, rows));
    }
    if (done.ok() && out.d_weight.data() != nullptr) {
      done = linear_wgrad(on, d_z, part, out.d_weight,
                          {.accumulate = options.accumulate || first > 0});
    }
  }
  if (!done.ok()) return done;
  return backend::mean(on, loss, tokens, scratch.valid, out.mean.data());
}

}  // namespace SHUNT_ABI
}  // namespace shunt::nn
