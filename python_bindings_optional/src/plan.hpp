#pragma once
#include <nanobind/nanobind.h>

#include "array.hpp"
#include "reports.hpp"
#include "shunt/core/arena.hpp"
#include "shunt/dispatch/plan.hpp"

namespace bindings {

/// Python's Plan. Its memory is written once, when it is made, and given out to read only: who uses
/// a plan need not look for rows that are not there.
struct plan_state {
  array memory;
  index_t tokens = 0, top_k = 0, local = 0;
  offset_t rows = 0;
  mutable reported<shunt::plan_counts> totals;

  template <shunt::space S> [[nodiscard]] shunt::dispatch_plan<S> as() const noexcept {
    shunt::arena<S> from(memory.data(), static_cast<std::size_t>(memory.extent(0)));
    return carve(from);
  }
  /// Memory for it, of the kind of `like`.
  template <shunt::space S> void allocate(nb::handle like, place where) {
    auto measure = shunt::arena<S>::measuring();
    static_cast<void>(carve(measure));
    memory = output(nb::none(), like, "Plan", {static_cast<offset_t>(measure.needed())},
                    {element::u8}, where);
  }

 private:
  template <shunt::space S>
  [[nodiscard]] shunt::dispatch_plan<S> carve(shunt::arena<S>& from) const noexcept {
    return shunt::carve_plan(from, {.tokens = tokens, .experts = local, .top_k = top_k}, rows);
  }
};

/// A plan that the backend `where` can reach; raises for anything else.
[[nodiscard]] plan_state const& plan_of(nb::handle object, char const* name, place where);

/// Segments: those of a Plan, offsets [E+1] of the caller's, or where that is allowed none.
struct segments_argument {
  plan_state const* plan = nullptr;
  array offset;

  segments_argument(nb::handle object, char const* name, place where);

  template <shunt::space S> [[nodiscard]] shunt::segments<S> as() const noexcept {
    return plan != nullptr ? plan->as<S>().segments()
                           : shunt::segments<S>{offset.as<index_t const, 1, S>()};
  }
};

void bind_plan(nb::module_& m);

}  // namespace bindings
