#pragma once
#include <cstdint>
#include <limits>

#include "shunt/core/abi.hpp"
#include "shunt/core/status.hpp"
#include "shunt/core/view.hpp"

/// Argument checks shared by the public modules. `name` is always "primitive.argument", so that the
/// sentence says where to look: "combine.rows: extent 1 is 63; it must be 64 (hidden)".
namespace shunt::check {
inline namespace SHUNT_ABI {

[[nodiscard]] inline status extent(char const* name, int axis, offset_t is, offset_t must,
                                   char const* why) noexcept {
  if (is == must) return {};
  return status::fail(error::bad_shape, "%s: extent %d is %lld; it must be %lld (%s)", name, axis,
                      static_cast<long long>(is), static_cast<long long>(must), why);
}

/// is in [least, most].
[[nodiscard]] inline status between(char const* name, offset_t is, offset_t least,
                                    offset_t most) noexcept {
  if (is >= least && is <= most) return {};
  return status::fail(error::bad_argument, "%s is %lld; it must be from %lld to %lld", name,
                      static_cast<long long>(is), static_cast<long long>(least),
                      static_cast<long long>(most));
}

/// A view with elements has memory, aligned to its element; no extent is negative.
template <class T, int Rank, space S>
[[nodiscard]] status memory(char const* name, view<T, Rank, S> v) noexcept {
  for (int d = 0; d < Rank; ++d) {
    if (v.extent(d) < 0) {
      return status::fail(error::bad_shape, "%s: extent %d is %lld; it must be 0 or more", name, d,
                          static_cast<long long>(v.extent(d)));
    }
  }
  if (v.empty()) return {};
  if (v.data() == nullptr) {
    return status::fail(error::null_pointer,
                        "%s: the pointer is null; it must point to %lld elements", name,
                        static_cast<long long>(v.size()));
  }
  if (reinterpret_cast<std::uintptr_t>(v.data()) % alignof(T) != 0) {
    return status::fail(error::bad_argument,
                        "%s: the address %p is not aligned; it must be a multiple of %zu", name,
                        static_cast<void const*>(v.data()), alignof(T));
  }
  return {};
}

/// memory(), and the last axis contiguous.
template <class T, int Rank, space S>
[[nodiscard]] status rows(char const* name, view<T, Rank, S> v) noexcept {
  if (status bad = memory(name, v); !bad.ok()) return bad;
  if (v.empty() || v.rows_contiguous()) return {};
  return status::fail(error::bad_shape,
                      "%s: the last axis has stride %lld; it must be 1 (contiguous)", name,
                      static_cast<long long>(v.stride(Rank - 1)));
}

/// The product of counts fits index_t (where rows or slots are numbered with it).
[[nodiscard]] inline status fits_index(char const* name, offset_t a, offset_t b) noexcept {
  constexpr offset_t most = std::numeric_limits<index_t>::max();
  if (a == 0 || b <= most / a) return {};
  return status::fail(error::too_large, "%s is %lld x %lld; it must be at most %lld", name,
                      static_cast<long long>(a), static_cast<long long>(b),
                      static_cast<long long>(most));
}

namespace detail {
struct byte_range {
  std::uintptr_t first = 0, last = 0;  // [first, last); empty when equal
};
template <class T, int Rank, space S>
[[nodiscard]] byte_range range_of(view<T, Rank, S> v) noexcept {
  if (v.data() == nullptr || v.empty()) return {};
  offset_t low = 0, high = 0;
  for (int d = 0; d < Rank; ++d) {
    offset_t const reach = (v.extent(d) - 1) * v.stride(d);
    (reach < 0 ? low : high) += reach;
  }
  auto const base = reinterpret_cast<std::uintptr_t>(v.data());
  auto const size = static_cast<offset_t>(sizeof(T));
  return {base + static_cast<std::uintptr_t>(low * size),
          base + static_cast<std::uintptr_t>((high + 1) * size)};
}
}  // namespace detail

/// Two views share no byte (by their ranges: interleaved views count as sharing).
template <class T, int Rank, space S, class U, int RankU>
[[nodiscard]] status apart(char const* out_name, view<T, Rank, S> out, char const* in_name,
                           view<U, RankU, S> in) noexcept {
  auto const a = detail::range_of(out);
  auto const b = detail::range_of(in);
  if (a.first == a.last || b.first == b.last || a.last <= b.first || b.last <= a.first) return {};
  return status::fail(error::overlap, "%s and %s share memory; they must not", out_name, in_name);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::check
