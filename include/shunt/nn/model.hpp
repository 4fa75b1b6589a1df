#pragma once
#include "shunt/backend/host/nn/model.hpp"
#include "shunt/nn/block.hpp"
#include "shunt/nn/cross_entropy.hpp"
#include "shunt/nn/embedding.hpp"
#include "shunt/nn/model_config.hpp"
#include "shunt/nn/model_parts.hpp"
#include "shunt/nn/optimiser.hpp"

/// A small language model on the library's primitives: bytes in, loss and gradients out, or logits
/// from a key/value cache. It owns nothing: parameters are one flat buffer of the caller's (float
/// master weights, and where T is not float a working copy in T), scratch comes from an arena.
///
///   nn::model_config config{…};
///   std::vector<float> weights(nn::parameter_count(config)), gradients(weights.size()), m(…), v(…);
///   nn::model_init(on, config, weights, seed);
///   std::vector<std::byte> bytes(nn::model_train_bytes<float>(on, config, batch, length));
///   for (step = 1; …; ++step) {
///     nn::model_train<float>(on, config, {.values = weights}, tokens /*[B,S+1]*/, gradients,
///                            {.loss = loss, .counts = counts}, bytes);
///     nn::model_update<float>(on, config, {weights, gradients, m, v}, norm, bytes,
///                             {.rate = nn::rate_at(schedule, step - 1), .step = step, .clip = 1});
///   }
namespace shunt::nn {
inline namespace SHUNT_HOST_ABI {

/// Where the model's weights lie.
template <storage T, space S = space::host> struct model_weights {
  view<T const, 1, S> values = {};           ///< [parameter_count], the order of for_each_parameter
  view<float const, 2, S> choice_bias = {};  ///< [layers,E] added to the scores for the choice only
                                             ///< (loss-free balancing); null: none
};

/// What training and evaluation report; each part is optional.
template <space S = space::host> struct model_report {
  view<float, 1, S> loss = {};        ///< [1] mean cross-entropy, in nats, of the valid targets
  view<float, 2, S> token_loss = {};  ///< [B,S] of each target; 0 where ignored
  view<index_t, 2, S> counts = {};    ///< [layers,E] slots that chose each expert; overwritten
  stage_hook hook = {};               ///< called after each stage: see stage_clock
};

struct model_train_options {
  bool accumulate = false;  ///< gradients: add to them (micro-batches) instead of overwriting them
  offset_t divisor = 0;     ///< valid targets of all micro-batches together; 0: this one's
};

/// Fills the parameters: matrices with normal values of deviation 0.02 (those that write to the
/// residual stream divided by √(2·layers)), norms with 1. A value depends on seed and position only.
template <execution P>
status model_init(P const& on, model_config const& config, view<float, 1, P::memory> values,
                  std::uint64_t seed) noexcept;

/// Scratch of model_train (and of model_update, which needs less) for B sequences of S tokens.
template <storage T>
[[nodiscard]] std::size_t model_train_bytes(on_host const& on, model_config const& config,
                                            index_t batch, index_t length) noexcept;

/// Forward and backward: the mean cross-entropy of predicting tokens[b][s + 1] from tokens[b][0..s],
/// plus the routers' losses, and its gradient to every parameter.
/// Shapes   tokens [B,S+1] (input below 0: padding, no row in any expert; target below 0: ignored) ·
///          gradients [parameter_count] float
/// Types    T: what weights and activations are stored as; arithmetic and gradients float
/// Order    fixed: the same bits on any thread count and ISA
/// Errors   sentences, before anything is written: extents, null pointers, ids that are V or more,
///          S above config.context, arena too small
/// Cost     3 · forward_flops() a token; scratch model_train_bytes()
template <storage T, execution P>
status model_train(P const& on, model_config const& config,
                   model_weights<T, P::memory> const& weights,
                   view<index_t const, 2, P::memory> tokens, view<float, 1, P::memory> gradients,
                   model_report<P::memory> const& report, arena<P::memory> work,
                   model_train_options const& options = {}) noexcept;

/// Scratch of model_evaluate.
template <storage T>
[[nodiscard]] std::size_t model_evaluate_bytes(on_host const& on, model_config const& config,
                                               index_t batch, index_t length) noexcept;

/// Forward only: the losses and the experts' load. report.loss is required.
template <storage T, execution P>
status model_evaluate(P const& on, model_config const& config,
                      model_weights<T, P::memory> const& weights,
                      view<index_t const, 2, P::memory> tokens,
                      model_report<P::memory> const& report, arena<P::memory> work) noexcept;

/// One optimiser step over the whole flat buffer: global norm, clipping, AdamW (weight decay on the
/// matrices only), and the working copy in T. norm[0] receives the norm before clipping; a norm that
/// is not finite changes nothing.
template <storage T, execution P>
status model_update(P const& on, model_config const& config, adamw_state<T, P::memory> const& state,
                    view<float, 1, P::memory> norm, arena<P::memory> work,
                    adamw_options const& options) noexcept;

/// Keys and values of every layer, in one piece of the caller's memory.
template <storage T, space S = space::host> struct model_cache {
  view<T, 1, S> memory = {};  ///< [model_cache_elements], no initial value needed
  index_t batch = 0;
  index_t capacity = 0;  ///< tokens a sequence, at most config.context
};
[[nodiscard]] inline offset_t model_cache_elements(model_config const& config, index_t batch,
                                                   index_t capacity) noexcept;

/// Scratch of model_decode for B sequences of N new tokens.
template <storage T>
[[nodiscard]] std::size_t model_decode_bytes(on_host const& on, model_config const& config,
                                             index_t batch, index_t tokens) noexcept;

/// Takes N more tokens of each sequence (a whole prompt, or one) at positions first_position … and
/// gives the logits that follow the last of them. Feeding a text in any pieces gives the same bits.
/// Shapes   tokens [B,N] → logits [B,V] float
template <storage T, execution P>
status model_decode(P const& on, model_config const& config,
                    model_weights<T, P::memory> const& weights,
                    view<index_t const, 2, P::memory> tokens, index_t first_position,
                    model_cache<T, P::memory> const& cache, view<float, 2, P::memory> logits,
                    arena<P::memory> work, model_report<P::memory> const& report = {}) noexcept;

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::nn

#include "shunt/nn/model_run.hpp"
