#pragma once
#include "shunt/dispatch.cuh"
#include "support/device_values.hpp"
#include "support/plan_fixture.hpp"

namespace shunt::test {

/// A plan in device memory.
struct device_plan_fixture {
  on_device<index_t> offset, row_slot, slot_row;
  dispatch_plan<space::device> plan;

  device_plan_fixture(shape const& s, offset_t rows)
      : offset(offset_t{s.experts} + 1),
        row_slot(rows),
        slot_row(offset_t{s.tokens} * s.top_k),
        plan{offset.as(offset.size()), row_slot.as(rows), slot_row.as(slot_row.size()), s.tokens,
             s.top_k} {}
  /// A copy of the host's.
  device_plan_fixture(shape const& s, plan_fixture const& from)
      : device_plan_fixture(s, static_cast<offset_t>(from.rows())) {
    offset.fill({from.offset.begin(), from.offset.end()});
    row_slot.fill({from.row_slot.begin(), from.row_slot.end()});
    slot_row.fill({from.slot_row.begin(), from.slot_row.end()});
  }
};

}  // namespace shunt::test
