#pragma once
/// What route() and the layer may write beside ids and gates, as Python hands it over.
#include <optional>

#include "array.hpp"
#include "shunt/route/routing.hpp"

namespace bindings {

/// From a tuple in the order of shunt.Routing's fields behind gate; None: nothing is wanted.
class wanted_arrays {
 public:
  wanted_arrays(nb::handle tuple, place where);

  template <shunt::space S> void fill(shunt::routing<S>& out) const noexcept {
    if (!given_) return;
    out.recorded = given_->recorded.as<std::int16_t, 2, S>();
    out.z = given_->z.as<float, 1, S>();
    out.counts = given_->counts.as<index_t, 1, S>();
    out.importance = given_->importance.as<float, 1, S>();
    out.tokens = given_->tokens.as<index_t, 1, S>();
    out.sequence_counts = given_->sequence_counts.as<index_t, 2, S>();
    out.sequence_importance = given_->sequence_importance.as<float, 2, S>();
    out.sequence_tokens = given_->sequence_tokens.as<index_t, 1, S>();
    out.histogram = given_->histogram.as<index_t, 2, S>();
    out.report = given_->report.as<std::int64_t, 1, S>();
  }
  void written_in(apart& arrays) const {
    if (!given_) return;
    arrays.writes(given_->recorded, given_->z, given_->counts, given_->importance, given_->tokens,
                  given_->sequence_counts, given_->sequence_importance, given_->sequence_tokens,
                  given_->histogram, given_->report);
  }

 private:
  struct fields {
    array recorded, z, counts, importance, tokens;
    array sequence_counts, sequence_importance, sequence_tokens, histogram, report;
  };
  std::optional<fields> given_;
};

/// Forced ids, int16 or int32.
template <shunt::space S> shunt::expert_ids<S> ids_of(array const& ids) noexcept {
  if (!ids) return {};
  if (ids.type() == element::i16) return ids.as<std::int16_t const, 2, S>();
  return ids.as<index_t const, 2, S>();
}

/// (importance, sequence_importance, z), or None.
struct loss_gradients {
  array importance, sequence_importance, z;

  loss_gradients(nb::handle tuple, place where);

  template <shunt::space S> void fill(shunt::route_gradients<S>& d) const noexcept {
    d.importance = importance.as<float const, 1, S>();
    d.sequence_importance = sequence_importance.as<float const, 2, S>();
    d.z = z.as<float const, 1, S>();
  }
};

}  // namespace bindings
