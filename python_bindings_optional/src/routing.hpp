#pragma once
/// What route() and the layer may write beside ids and gates, as Python hands it over.
#include "array.hpp"
#include "shunt/route/routing.hpp"

namespace bindings {

/// From a tuple in the order of shunt.Routing's fields behind gate; None: nothing is wanted.
struct wanted_arrays {
  array recorded, z, counts, importance, tokens;
  array sequence_counts, sequence_importance, sequence_tokens, histogram, report;

  wanted_arrays(nb::handle tuple, place where);

  template <shunt::space S> void fill(shunt::routing<S>& out) const noexcept {
    out.recorded = recorded.as<std::int16_t, 2, S>();
    out.z = z.as<float, 1, S>();
    out.counts = counts.as<index_t, 1, S>();
    out.importance = importance.as<float, 1, S>();
    out.tokens = tokens.as<index_t, 1, S>();
    out.sequence_counts = sequence_counts.as<index_t, 2, S>();
    out.sequence_importance = sequence_importance.as<float, 2, S>();
    out.sequence_tokens = sequence_tokens.as<index_t, 1, S>();
    out.histogram = histogram.as<index_t, 2, S>();
    out.report = report.as<std::int64_t, 1, S>();
  }
  void written_in(apart& arrays) const {
    arrays.writes(recorded, z, counts, importance, tokens, sequence_counts, sequence_importance,
                  sequence_tokens, histogram, report);
  }
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
