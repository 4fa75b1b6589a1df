#pragma once
#include <gtest/gtest.h>

#include <vector>

#include "shunt/dispatch.hpp"
#include "support/guarded.hpp"

namespace shunt::test {

/// A plan with memory of its own, each piece ending at a guard page.
struct plan_fixture {
  guarded<index_t> offset, row_slot, slot_row;
  dispatch_plan<> plan;

  plan_fixture(shape const& s, offset_t rows)
      : offset(static_cast<std::size_t>(s.experts) + 1),
        row_slot(static_cast<std::size_t>(rows)),
        slot_row(static_cast<std::size_t>(offset_t{s.tokens} * s.top_k)),
        plan{offset.as(offset.size()), row_slot.as(row_slot.size()), slot_row.as(slot_row.size()),
             s.tokens, s.top_k} {}
  plan_fixture(plan_fixture&&) noexcept = default;  // the buffers stay where they are
  plan_fixture(plan_fixture const&) = delete;

  [[nodiscard]] std::size_t rows() const noexcept { return row_slot.size(); }
  [[nodiscard]] std::size_t used() const noexcept {
    return static_cast<std::size_t>(offset[offset.size() - 1]);
  }
};

/// The plan of ids [T·K]; `spare` rows more than the least.
[[nodiscard]] inline plan_fixture plan_of(on_host const& on, shape const& s,
                                          std::vector<index_t> const& ids,
                                          plan_options<> const& options = {}, offset_t spare = 0) {
  plan_fixture made(s, plan_rows_bound(s, options) + spare);
  guarded<index_t> const expert(ids);
  guarded<std::byte> scratch(plan_scratch_bytes(on, s, options));
  status const done = plan_dispatch(on, expert.as(s.tokens, s.top_k), made.plan, scratch, options);
  EXPECT_TRUE(done.ok()) << done.message();
  return made;
}

}  // namespace shunt::test
