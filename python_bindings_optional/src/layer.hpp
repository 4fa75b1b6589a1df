#pragma once
#include "array.hpp"
#include "device_call.hpp"
#include "options.hpp"
#include "reports.hpp"
#include "routing.hpp"
#include "weights.hpp"

#include "shunt/layer/outputs.hpp"

namespace bindings {

/// What decides how moe_saved is carved: backward must find what forward made.
struct saved_key {
  element type = element::other;
  offset_t tokens = 0, width = 0, hidden = 0, experts = 0, local = 0, top_k = 0, up_rows = 0;
  offset_t intermediate = 0, shared_rows = 0, shared = 0, rows = 0, taken = 0;
  bool latent = false, shared_gated = false, recompute = false, balance_loss = false;
  bool z_loss = false;
  offset_t received = 0, ranks = 0,
           rank = 0;  ///< across ranks: rows that may come; 0: in one process
  std::int64_t placement = 0;
  friend bool operator==(saved_key const&, saved_key const&) = default;
};

/// Python's Saved: what forward keeps for backward. Its memory is nobody else's, so that what is in
/// it can be trusted.
struct saved_state {
  array memory;
  saved_key key;
  bool filled = false;
  int users = 0;      ///< calls that have it in hand; -1: one that writes
  offset_t lent = 0;  ///< bytes of the memory that `lend` gave away

  template <shunt::space S> [[nodiscard]] shunt::arena<S> arena() const noexcept {
    return {memory.data(), static_cast<std::size_t>(memory.extent(0))};
  }

  /// In memory of the backend `where`, on a device that of the call.
  [[nodiscard]] bool reached(place where) const noexcept {
    return memory.where() == where && (where == place::host || memory.device() == called().device);
  }

  /// For the time of a call; raises where another thread's call is in the way.
  class use {
   public:
    use(saved_state* of, bool writes);
    ~use();
    use(use const&) = delete;
    use& operator=(use const&) = delete;

   private:
    saved_state* of_;
    bool writes_;
  };
};

/// Python's LayerReport: figures of the call's load.
struct layer_report {
  reported<shunt::load_figures> figures;
  reported<shunt::plan_counts> totals;

  template <class T, shunt::space S>
  void wanted_in(shunt::moe_outputs<T, S>& out, nb::handle like, fetch_bytes fetch) {
    out.load.figures = figures.template renewed<S>(like, fetch);
    out.plan.totals = totals.template renewed<S>(like, fetch);
  }
};

/// The arrays beside x and the weights that forward and backward share.
struct layer_inputs {
  array valid, frozen, ids, token;
  layer_inputs(nb::handle valid, nb::handle frozen, nb::handle ids, nb::handle token, place where);

  template <shunt::space S>
  void fill(shunt::layer_options<shunt::activation, S>& o) const noexcept {
    o.valid = valid.as<std::uint8_t const, 1, S>();
    o.frozen = frozen.as<std::uint8_t const, 1, S>();
    o.ids = ids_of<S>(ids);
    o.token = token.as<index_t const, 1, S>();
  }
  void read_in(apart& arrays) const { arrays.reads(valid, frozen, ids, token); }
};

void bind_layer_types(nb::module_& m);

}  // namespace bindings
