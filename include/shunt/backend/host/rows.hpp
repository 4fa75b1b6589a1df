#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "shunt/backend/host/pool.hpp"
#include "shunt/backend/host/simd/regions.hpp"
#include "shunt/dispatch/plan.hpp"
#include "shunt/dispatch/rules.hpp"

/// Rows and tokens: what dispatch and combine share. The host's twin of backend/cuda/rows.cuh.
namespace shunt::host {
inline namespace SHUNT_ABI {

/// One summand of a token: `row`, or, where that is null, `like`, times a factor.
template <class R, class Y> struct weighted_row {
  R const* row;
  Y const* like;
  float factor;
};

}  // namespace SHUNT_ABI
}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/rows_kernels.inl"
#include "shunt/backend/host/simd/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_ABI {

/// Items of `bytes` each that make a task worth handing to a thread. Reasoned: 64 KiB take some
/// 5 µs to move, as long as a fork and join.
inline offset_t grain_of(offset_t bytes) noexcept {
  return std::max<offset_t>(1, 65536 / std::max<offset_t>(1, bytes));
}

using shunt::detail::row_of;
using shunt::detail::rows_in_use;
using shunt::detail::slot_of;

template <class T> T* row_at(view<T, 2, space::host> m, offset_t i) noexcept {
  return m.data() + i * m.stride(0);
}
template <class T> void zero_row(T* row, offset_t n) noexcept {
  if (n > 0) std::memset(static_cast<void*>(row), 0, static_cast<std::size_t>(n) * sizeof(T));
}

/// One fork for both halves of writing rows: on_token(t), of some bytes, for each token, and zeros
/// into the padding rows of the segments.
template <class Row, class OnToken>
void write_rows(on_host const& on, dispatch_plan<space::host> const& plan,
                view<Row, 2, space::host> rows, offset_t token_bytes,
                OnToken const& on_token) noexcept {
  offset_t const hidden = rows.extent(1), used = rows ? rows_in_use(plan) : 0;
  offset_t const each = grain_of(token_bytes), each_row = 4096;
  offset_t const blocks = (plan.tokens + each - 1) / each;
  parallel(on, blocks + (used + each_row - 1) / each_row, [&](offset_t task, int) {
    if (task < blocks) {
      offset_t const last = std::min<offset_t>((task + 1) * each, plan.tokens);
      for (offset_t t = task * each; t < last; ++t) on_token(t);
      return;
    }
    offset_t const first = (task - blocks) * each_row, last = std::min(first + each_row, used);
    for (offset_t r = first; r < last; ++r) {
      if (slot_of(plan, r) < 0) zero_row(row_at(rows, r), hidden);
    }
  });
}
/// Bytes that a token and its rows take.
template <class Row>
offset_t bytes_of(dispatch_plan<space::host> const& plan, offset_t n) noexcept {
  return n * static_cast<offset_t>(sizeof(Row)) * (plan.top_k + 1);
}

/// Sums tokens from their terms. A token of up to `most` terms takes one pass; one of more goes panel
/// by panel of the columns, its sums resumed in float: the same chain.
template <class R, class Y> class weighted_row_sum {
 public:
  using term_type = weighted_row<R, Y>;

  explicit weighted_row_sum(on_host const& on) noexcept
      : finish_(SHUNT_ISA_PICK(on, sum_weighted_rows<R, Y, Y>)),
        resume_(SHUNT_ISA_PICK(on, sum_weighted_rows<R, Y, float>)) {}

  /// terms(emit): calls emit(term) for each term in order, the same ones each time.
  template <class Terms> void operator()(Terms const& terms, Y* to, offset_t n) const noexcept {
    term_type list[most];
    offset_t count = 0;
    terms([&](term_type const& term) {
      if (count < most) list[count] = term;
      ++count;
    });
    if (count <= most) {
      finish_(list, count, nullptr, 0, to, n);
      return;
    }
    float sum[panel];
    for (offset_t first = 0; first < n; first += panel) {
      offset_t const width = std::min<offset_t>(panel, n - first);
      float const* from = nullptr;
      count = 0;
      terms([&](term_type const& term) {
        if (count == most) {
          resume_(list, count, from, first, sum, width);
          from = sum;
          count = 0;
        }
        list[count++] = term;
      });
      finish_(list, count, from, first, to + first, width);
    }
  }

 private:
  static constexpr offset_t most = 64, panel = 1024;
  void (*finish_)(term_type const*, std::int64_t, float const*, std::int64_t, Y*,
                  std::int64_t) noexcept;
  void (*resume_)(term_type const*, std::int64_t, float const*, std::int64_t, float*,
                  std::int64_t) noexcept;
};

}  // namespace SHUNT_ABI
}  // namespace shunt::host
