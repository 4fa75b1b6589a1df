#include "shunt/stats.hpp"

#include "bind.hpp"
#include "call.hpp"
#include "maybe.hpp"
#include "plan.hpp"
#include "reports.hpp"

namespace bindings {
namespace {

nb::object load_stats(maybe load, maybe share_, maybe report_, maybe on) {
  policy const where = policy_of(on);
  array const share = optional(share_, "load_stats.share", 1, {element::f32}, access::write, here);
  array const events =
      optional(report_, "load_stats.report", 1, {element::i64}, access::read, here);
  plan_state const* const plan =
      nb::isinstance<plan_state>(load) ? &plan_of(load, "load_stats.plan", here) : nullptr;
  array counts;
  if (plan == nullptr) {
    counts = array(load, "load_stats.counts", 1, {element::i32, element::i64}, access::read, here);
  }
  reported<shunt::load_figures> figures;
  shunt::load_report<S> const out{
      figures.renewed<S>(plan != nullptr ? plan->memory.object() : load, fetcher),
      share.as<float, 1, S>()};
  shunt::load_events<S> with{{}, events.as<std::int64_t const, 1, S>()};
  apart arrays;
  if (plan != nullptr) arrays.reads(plan->memory);
  arrays.reads(events, counts).writes(share).check();
  run([&] {
    if (plan != nullptr) {
      with.plan = plan->totals.where<shunt::plan_counts const, S>();
      return shunt::load_stats(where, plan->as<S>(), out, with);
    }
    return counts.type() == element::i32
               ? shunt::load_stats(where, counts.as<index_t const, 1, S>(), out, with)
               : shunt::load_stats(where, counts.as<std::int64_t const, 1, S>(), out, with);
  });
  return described(figures.value());
}

nb::object add_load(maybe counts_, maybe total_, maybe on) {
  policy const where = policy_of(on);
  array const counts(counts_, "add_load.counts", 1, {element::i32}, access::read, here);
  array const total(total_, "add_load.total", 1, {element::i64}, access::write, here);
  apart().reads(counts).writes(total).check();
  run([&] {
    return shunt::add_load(where, counts.as<index_t const, 1, S>(), total.as<std::int64_t, 1, S>());
  });
  return nb::borrow(total.object());
}

}  // namespace

void bind_stats(nb::module_& m) {
  def(m, "load_stats", &load_stats);
  def(m, "add_load", &add_load);
}

}  // namespace bindings
