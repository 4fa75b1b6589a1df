#include "reports.hpp"

namespace bindings {
namespace nb = nanobind;

nb::dict described(shunt::load_figures const& f) {
  nb::dict d;
  d["slots"] = f.slots;
  d["dropped"] = f.dropped;
  d["non_finite"] = f.non_finite;
  d["experts"] = f.experts;
  d["utilization"] = f.utilization;
  d["active_fraction"] = f.active_fraction;
  d["max_violation"] = f.max_violation;
  d["entropy"] = f.entropy;
  d["jsd"] = f.jsd;
  return d;
}

nb::dict described(shunt::plan_counts const& c) {
  nb::dict d;
  d["rows"] = c.rows;
  d["padding"] = c.padding;
  d["dropped"] = c.dropped;
  d["unrouted"] = c.unrouted;
  d["foreign"] = c.foreign;
  d["zero"] = c.zero;
  d["out_of_range"] = c.out_of_range;
  d["repeated"] = c.repeated;
  d["invalid"] = c.invalid;
  return d;
}

}  // namespace bindings
