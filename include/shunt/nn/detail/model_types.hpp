#pragma once
#include "shunt/layer/options.hpp"
#include "shunt/nn/model_config.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {

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
  view<index_t, 2, S> counts =
      {};  ///< [layers,E] slots that chose each expert, overwritten (dense: untouched)
  stage_hook hook = {};  ///< called after each stage: see stage_clock
};

/// Options of a training step of the model.
struct model_train_options {
  bool accumulate = false;  ///< gradients: add to them (micro-batches) instead of overwriting them
  offset_t divisor = 0;     ///< valid targets of all micro-batches together; 0: this one's
};

/// Keys and values of every layer, in one piece of the caller's memory.
template <storage T, space S = space::host> struct model_cache {
  view<T, 1, S> memory = {};  ///< [model_cache_elements], no initial value needed
  index_t batch = 0;          ///< sequences
  index_t capacity = 0;       ///< tokens a sequence, at most config.context
};

}  // namespace SHUNT_ABI
}  // namespace shunt::nn
