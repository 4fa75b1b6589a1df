#pragma once
#include <cstdint>

#include "shunt/core/macros.hpp"
#include "shunt/core/ordered.hpp"
#include "shunt/dispatch/plan.hpp"

/// What makes a plan and how it is read, said once for all backends: what an id means, who has the
/// better claim, which slot a row serves.
namespace shunt::detail {
inline namespace SHUNT_ABI {

/// True when it takes more than a slot's position to know whether an expert refuses it.
template <space S> bool by_merit(plan_options<S> const& o) noexcept {
  return o.capacity > 0 && o.drop != drop_policy::by_position;
}

SHUNT_HD inline void add_counts(plan_counts& sum, plan_counts const& part) noexcept {
  sum.rows += part.rows;
  sum.padding += part.padding;
  sum.dropped += part.dropped;
  sum.unrouted += part.unrouted;
  sum.foreign += part.foreign;
  sum.zero += part.zero;
  sum.out_of_range += part.out_of_range;
  sum.repeated += part.repeated;
  sum.invalid += part.invalid;
}

/// What an id means: a local expert, or why there is no row.
class shard_map {
 public:
  template <space S>
  shard_map(index_t local, plan_options<S> const& o) noexcept
      : first_(static_cast<std::uint32_t>(o.first_expert)),
        real_(o.experts > 0 ? o.experts : o.first_expert + offset_t{local}),
        all_(real_ + o.zero_experts) {}

  /// The local expert of an id, or one that is none: not below `experts` as an unsigned number.
  SHUNT_HD std::uint32_t local(index_t id) const noexcept {
    return static_cast<std::uint32_t>(id) - first_;
  }
  SHUNT_HD void count_rowless(index_t id, plan_counts& c) const noexcept {
    if (id == -1) {
      ++c.unrouted;
    } else if (id < 0 || id >= all_) {
      ++c.out_of_range;
    } else {
      ++(id < real_ ? c.foreign : c.zero);
    }
  }

 private:
  std::uint32_t first_;
  offset_t real_, all_;
};

/// The slot of a row, or -1; the row of a slot, or -1, also where a plan from elsewhere holds another number.
template <space S> SHUNT_HD index_t slot_of(dispatch_plan<S> const& p, offset_t row) noexcept {
  index_t const slot = p.row_slot.data()[row];
  return slot >= 0 && slot < p.slot_row.extent(0) ? slot : -1;
}
template <space S> SHUNT_HD index_t row_of(dispatch_plan<S> const& p, offset_t slot) noexcept {
  index_t const row = p.slot_row.data()[slot];
  return row >= 0 && row < p.row_slot.extent(0) ? row : -1;
}
/// Rows that belong to some segment.
template <space S> SHUNT_HD offset_t rows_in_use(dispatch_plan<S> const& p) noexcept {
  offset_t const end = p.offset[p.offset.extent(0) - 1], all = p.row_slot.extent(0);
  return end < 0 ? 0 : end < all ? end : all;
}

template <space S>
SHUNT_HD bool is_valid(view<std::uint8_t const, 1, S> const& valid, offset_t t) noexcept {
  return !valid || valid[t] != 0;
}

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
