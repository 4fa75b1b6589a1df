#pragma once
#include <cstring>
#include <vector>

#include "shunt/dispatch.cuh"
#include "support/device.hpp"
#include "support/planned.hpp"
#include "support/random.hpp"

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

/// Normal numbers, or, of elements that are no numbers, any bytes.
template <class T> std::vector<T> values(offset_t count, std::uint64_t seed) {
  dice d(seed);
  std::vector<T> v(static_cast<std::size_t>(count));
  for (T& x : v) {
    if constexpr (storage<T>) {
      x = from_float<T>(static_cast<float>(d.normal()));
    } else {
      std::uint64_t const bits = d.bits();
      std::memcpy(&x, &bits, sizeof x);
    }
  }
  return v;
}

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
