#pragma once
#include <type_traits>

#include "shunt/backend/host/nn/embedding.hpp"
#include "shunt/core/check.hpp"
#include "shunt/core/concepts.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {

namespace detail {
/// Every id names an entry, or none (negative). What a device holds is not read here: there an id
/// that names no entry is as good as none.
template <space S>
status ids_below(char const* name, view<index_t const, 1, S> id, offset_t entries) noexcept {
  if constexpr (S == space::host) {
    for (offset_t t = 0; t < id.extent(0); ++t) {
      if (id[t] < entries) continue;
      return status::fail(error::bad_argument,
                          "%s: entry %lld is %d; it must be below %lld (negative: none)", name,
                          static_cast<long long>(t), id[t], static_cast<long long>(entries));
    }
  }
  return {};
}
}  // namespace detail

/// rows[t] = table[id[t]]; zeros where the id is negative (padding).
/// Shapes   table [V,H] · id [T] → rows [T,H]
/// Types    table and rows of one storage type
/// Aliasing rows overlaps nothing
/// Errors   extents that differ, null pointers, an id that is V or more (on a device: as a negative)
/// Cost     reads and writes T·H once; allocates nothing
template <execution P, input<P, 2> Table, output<P, 2> Rows>
status embedding(P const& on, Table&& table_in,
                 std::type_identity_t<view<index_t const, 1, P::memory>> id,
                 Rows&& rows_in) noexcept {
  using type = element_t<Table>;
  static_assert(storage<type>, "shunt::nn::embedding: float, bf16 or fp16 only");
  auto const table = as_input<P, 2>(table_in);
  view<type, 2, P::memory> const rows = as_output<P, 2>(rows_in);
  if (status bad = first_of(
          check::policy(on), check::rows("embedding.table", table),
          check::memory("embedding.id", id), check::rows("embedding.rows", rows),
          check::extent("embedding.rows", 0, rows.extent(0), id.extent(0), "ids"),
          check::extent("embedding.rows", 1, rows.extent(1), table.extent(1), "width of the table"),
          check::apart("embedding.rows", rows, "embedding.table", table));
      !bad.ok()) {
    return bad;
  }
  if (status bad = detail::ids_below("embedding.id", id, table.extent(0)); !bad.ok()) return bad;
  if (rows.empty()) return {};
  return detail::embedding_backend<P>::forward(
      on,
      detail::embedding_args<type>{table.data(), table.stride(0), table.extent(0), id.data(),
                                   id.stride(0), rows.data(), rows.stride(0), rows.extent(1)},
      rows.extent(0));
}

/// Options of embedding_backward.
struct embedding_backward_options {
  bool accumulate = false;  ///< add to d_table instead of overwriting it
};

/// d_table[v] = Σ_{t: id[t] = v} d_rows[t].
/// Shapes   d_rows [T,H] · id [T] → d_table [V,H] float
/// Order    additions in token order: the same bits on any thread count and ISA
/// Errors   as embedding()
/// Cost     reads d_rows once; parallel over columns
template <execution P, input<P, 2> Rows>
status embedding_backward(P const& on, Rows&& d_rows_in,
                          std::type_identity_t<view<index_t const, 1, P::memory>> id,
                          std::type_identity_t<view<float, 2, P::memory>> d_table,
                          embedding_backward_options const& options = {}) noexcept {
  using type = element_t<Rows>;
  static_assert(storage<type>, "shunt::nn::embedding_backward: float, bf16 or fp16 only");
  auto const d_rows = as_input<P, 2>(d_rows_in);
  if (status bad = first_of(
          check::policy(on), check::rows("embedding_backward.d_rows", d_rows),
          check::memory("embedding_backward.id", id),
          check::rows("embedding_backward.d_table", d_table),
          check::extent("embedding_backward.d_rows", 0, d_rows.extent(0), id.extent(0), "ids"),
          check::extent("embedding_backward.d_table", 1, d_table.extent(1), d_rows.extent(1),
                        "width of d_rows"),
          check::apart("embedding_backward.d_table", d_table, "embedding_backward.d_rows", d_rows));
      !bad.ok()) {
    return bad;
  }
  if (status bad = detail::ids_below("embedding_backward.id", id, d_table.extent(0)); !bad.ok()) {
    return bad;
  }
  if (d_table.empty()) return {};
  return detail::embedding_backend<P>::backward(
      on, detail::embedding_backward_args<type>{d_rows.data(), d_rows.stride(0), id.data(),
                                                id.stride(0), d_table.data(), d_table.stride(0),
                                                d_table.extent(0), id.extent(0), d_table.extent(1),
                                                options.accumulate});
}

}  // namespace SHUNT_ABI
}  // namespace shunt::nn
