#pragma once
#include <vector>

#include "shunt/dispatch.cuh"
#include "support/device.hpp"
#include "support/planned.hpp"

namespace shunt::test {

/// A plan in device memory.
struct device_planned {
  on_device<index_t> offset, row_slot, slot_row;
  dispatch_plan<space::device> plan;

  device_planned(shape const& s, offset_t rows)
      : offset(offset_t{s.experts} + 1),
        row_slot(rows),
        slot_row(offset_t{s.tokens} * s.top_k),
        plan{offset.as(offset.size()), row_slot.as(rows), slot_row.as(slot_row.size()), s.tokens,
             s.top_k} {}
  /// A copy of the host's.
  device_planned(shape const& s, planned const& from)
      : device_planned(s, static_cast<offset_t>(from.rows())) {
    offset.fill({from.offset.begin(), from.offset.end()});
    row_slot.fill({from.row_slot.begin(), from.row_slot.end()});
    slot_row.fill({from.slot_row.begin(), from.slot_row.end()});
  }
};

/// Two results are the same bits; a NaN is as good as another (devices make their own).
template <class T>
[[nodiscard]] testing::AssertionResult same_values(std::vector<T> const& got,
                                                   std::vector<T> const& want) {
  if (got.size() != want.size()) return testing::AssertionFailure() << "sizes differ";
  for (std::size_t i = 0; i < got.size(); ++i) {
    bool same = std::memcmp(&got[i], &want[i], sizeof(T)) == 0;
    if constexpr (storage<T>) {
      float const a = to_float(got[i]), b = to_float(want[i]);
      same = same || (a != a && b != b);
      if (!same)
        return testing::AssertionFailure() << "element " << i << ": " << a << ", not " << b;
    }
    if (!same) return testing::AssertionFailure() << "element " << i << " differs";
  }
  return testing::AssertionSuccess();
}

}  // namespace shunt::test
