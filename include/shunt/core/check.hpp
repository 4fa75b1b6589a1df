#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>

#include "shunt/core/abi.hpp"
#include "shunt/core/status.hpp"
#include "shunt/core/view.hpp"

/// Argument checks shared by the public modules. `name` is always "primitive.argument", so that the
/// sentence says where to look: "combine.rows: extent 1 is 63; it must be 64 (hidden)". Not inlined, and not
/// once for each type: a primitive makes a dozen of them, which would cost more to compile than its own work.
namespace shunt::check {
inline namespace SHUNT_ABI {

[[nodiscard]] __attribute__((noinline)) inline status extent(char const* name, int axis,
                                                             offset_t is, offset_t must,
                                                             char const* why) noexcept {
  if (is == must) return {};
  return status::fail(error::bad_shape, "%s: extent %d is %lld; it must be %lld (%s)", name, axis,
                      static_cast<long long>(is), static_cast<long long>(must), why);
}

/// is in [least, most].
[[nodiscard]] __attribute__((noinline)) inline status between(char const* name, offset_t is,
                                                              offset_t least,
                                                              offset_t most) noexcept {
  if (is >= least && is <= most) return {};
  return status::fail(error::bad_argument, "%s is %lld; it must be from %lld to %lld", name,
                      static_cast<long long>(is), static_cast<long long>(least),
                      static_cast<long long>(most));
}

namespace detail {
/// A view with its type put aside.
struct any_view {
  template <class T, int Rank, space S>
  explicit any_view(view<T, Rank, S> const& v) noexcept
      : data(v.data()),
        extents(v.extents().at),
        strides(v.strides().at),
        rank(Rank),
        element(sizeof(T)),
        alignment(alignof(T)) {}

  void const* data;
  offset_t const* extents;
  offset_t const* strides;
  int rank;
  std::size_t element, alignment;

  [[nodiscard]] offset_t size() const noexcept {
    offset_t n = 1;
    for (int d = 0; d < rank; ++d) n *= extents[d];
    return n;
  }
};
[[nodiscard]] __attribute__((noinline)) inline status memory_of(char const* name,
                                                                any_view v) noexcept {
  for (int d = 0; d < v.rank; ++d) {
    if (v.extents[d] < 0) {
      return status::fail(error::bad_shape, "%s: extent %d is %lld; it must be 0 or more", name, d,
                          static_cast<long long>(v.extents[d]));
    }
  }
  if (v.size() == 0) return {};
  if (v.data == nullptr) {
    return status::fail(error::null_pointer,
                        "%s: the pointer is null; it must point to %lld elements", name,
                        static_cast<long long>(v.size()));
  }
  if (reinterpret_cast<std::uintptr_t>(v.data) % v.alignment != 0) {
    return status::fail(error::bad_argument,
                        "%s: the address %p is not aligned; it must be a multiple of %zu", name,
                        v.data, v.alignment);
  }
  return {};
}
[[nodiscard]] __attribute__((noinline)) inline status rows_of(char const* name,
                                                              any_view v) noexcept {
  if (status bad = memory_of(name, v); !bad.ok()) return bad;
  offset_t const stride = v.strides[v.rank - 1];
  if (v.size() == 0 || stride == 1 || v.extents[v.rank - 1] <= 1) return {};
  return status::fail(error::bad_shape,
                      "%s: the last axis has stride %lld; it must be 1 (contiguous)", name,
                      static_cast<long long>(stride));
}
/// What one axis must be, and why.
struct axis {
  offset_t must = 0;
  char const* why = "";
};
[[nodiscard]] __attribute__((noinline)) inline status shape_of(char const* name, any_view v,
                                                               axis first,
                                                               axis second = {}) noexcept {
  for (int d = 0; d < v.rank; ++d) {
    axis const& one = d == 0 ? first : second;
    if (status bad = extent(name, d, v.extents[d], one.must, one.why); !bad.ok()) return bad;
  }
  return {};
}
/// Rows of such a vector or matrix, or none.
[[nodiscard]] __attribute__((noinline)) inline status optional_of(char const* name, any_view v,
                                                                  axis first,
                                                                  axis second = {}) noexcept {
  if (v.data == nullptr) return {};
  if (status bad = shape_of(name, v, first, second); !bad.ok()) return bad;
  return rows_of(name, v);
}
}  // namespace detail

/// A view with elements has memory, aligned to its element; no extent is negative.
template <class T, int Rank, space S>
[[nodiscard]] status memory(char const* name, view<T, Rank, S> const& v) noexcept {
  return detail::memory_of(name, detail::any_view(v));
}

/// memory(), and the last axis contiguous.
template <class T, int Rank, space S>
[[nodiscard]] status rows(char const* name, view<T, Rank, S> const& v) noexcept {
  return detail::rows_of(name, detail::any_view(v));
}

/// The product of counts fits index_t (where rows or slots are numbered with it).
[[nodiscard]] __attribute__((noinline)) inline status fits_index(char const* name, offset_t a,
                                                                 offset_t b) noexcept {
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
[[nodiscard]] inline byte_range range_of(any_view v) noexcept {
  if (v.data == nullptr || v.size() == 0) return {};
  offset_t low = 0, high = 0;
  for (int d = 0; d < v.rank; ++d) {
    offset_t const reach = (v.extents[d] - 1) * v.strides[d];
    (reach < 0 ? low : high) += reach;
  }
  auto const base = reinterpret_cast<std::uintptr_t>(v.data);
  auto const size = static_cast<offset_t>(v.element);
  return {base + static_cast<std::uintptr_t>(low * size),
          base + static_cast<std::uintptr_t>((high + 1) * size)};
}
[[nodiscard]] __attribute__((noinline)) inline status apart_of(char const* out_name, any_view out,
                                                               char const* in_name,
                                                               any_view in) noexcept {
  byte_range const a = range_of(out), b = range_of(in);
  if (a.first == a.last || b.first == b.last || a.last <= b.first || b.last <= a.first) return {};
  return status::fail(error::overlap, "%s and %s share memory; they must not", out_name, in_name);
}
}  // namespace detail

/// Two views share no byte (by their ranges: interleaved views count as sharing).
template <class T, int Rank, space S, class U, int RankU>
[[nodiscard]] status apart(char const* out_name, view<T, Rank, S> const& out, char const* in_name,
                           view<U, RankU, S> const& in) noexcept {
  return detail::apart_of(out_name, detail::any_view(out), in_name, detail::any_view(in));
}

/// "primitive.argument" for checks that several primitives share. Copied by hand: every call makes
/// dozens of them, and snprintf was a third of the time of a tiny layer.
struct argument {
  char name[64];
  __attribute__((noinline)) argument(char const* primitive, char const* what) noexcept {
    char* to = name;
    char* const last = name + sizeof name - 1;
    while (*primitive != '\0' && to != last) *to++ = *primitive++;
    if (to != last) *to++ = '.';
    while (*what != '\0' && to != last) *to++ = *what++;
    *to = '\0';
  }
  operator char const*() const noexcept { return name; }
};

namespace detail {
[[nodiscard]] __attribute__((noinline)) inline status optional_argument(char const* who,
                                                                        char const* what,
                                                                        any_view v, axis first,
                                                                        axis second = {}) noexcept {
  return v.data == nullptr ? status{} : optional_of(argument(who, what), v, first, second);
}
/// The same of one that must be there, its rows apart or not.
[[nodiscard]] __attribute__((noinline)) inline status given_argument(char const* who,
                                                                     char const* what, any_view v,
                                                                     axis first,
                                                                     axis second = {}) noexcept {
  argument const name(who, what);
  if (status bad = shape_of(name, v, first, second); !bad.ok()) return bad;
  return memory_of(name, v);
}
}  // namespace detail

/// An optional matrix with contiguous rows: null, or of these extents.
template <class T, space S>
[[nodiscard]] status optional_matrix(char const* who, char const* what, view<T, 2, S> const& m,
                                     offset_t extent0, char const* why0, offset_t extent1,
                                     char const* why1) noexcept {
  return detail::optional_argument(who, what, detail::any_view(m), {extent0, why0},
                                   {extent1, why1});
}
template <class T, space S>
[[nodiscard]] status optional_vector(char const* who, char const* what, view<T, 1, S> const& v,
                                     offset_t length, char const* why) noexcept {
  return detail::optional_argument(who, what, detail::any_view(v), {length, why});
}

}  // namespace SHUNT_ABI
}  // namespace shunt::check
