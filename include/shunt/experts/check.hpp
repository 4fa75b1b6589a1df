#pragma once
#include "shunt/core/abi.hpp"
#include "shunt/core/check.hpp"
#include "shunt/experts/activations.hpp"
#include "shunt/experts/options.hpp"

/// Argument checks of the experts' primitives.
namespace shunt::check {
inline namespace SHUNT_ABI {

/// What the host can see of segments' content; a device's is not read.
template <space S>
[[nodiscard]] status segments_content(char const* name, segments<S> rows, offset_t most) noexcept {
  if (status bad = offsets(name, rows); !bad.ok()) return bad;
  if constexpr (S == space::host) {
    if (rows.offset[0] != 0) {
      return status::fail(error::bad_argument, "%s: offset 0 is %d; it must be 0", name,
                          rows.offset[0]);
    }
    for (index_t e = 0; e < rows.experts(); ++e) {
      if (rows.offset[e + 1] < rows.offset[e]) {
        return status::fail(error::bad_argument,
                            "%s: offset %d is %d; it must be at least the one before, %d", name,
                            e + 1, rows.offset[e + 1], rows.offset[e]);
      }
    }
    if (rows.offset[rows.experts()] > most) {
      return status::fail(error::bad_shape,
                          "%s: the last offset is %d; it must be at most %lld (rows)", name,
                          rows.offset[rows.experts()], static_cast<long long>(most));
    }
  }
  return {};
}

/// A weight matrix, or where gradients of one go, for so many experts.
template <class Element, space S>
[[nodiscard]] status experts(char const* name, basic_expert_matrix<Element, S> const& w,
                             offset_t must) noexcept {
  if (status bad = extent(name, 0, w.experts(), must, "experts of the segments"); !bad.ok()) {
    return bad;
  }
  if (w.rows() < 1 || w.columns() < 1) {
    return status::fail(error::bad_shape, "%s: it has %lld rows of %lld; both must be 1 or more",
                        name, static_cast<long long>(w.rows()),
                        static_cast<long long>(w.columns()));
  }
  if (w.experts() > 0 && !w) {
    return status::fail(error::null_pointer,
                        "%s: the pointer is null; it must point to %lld experts", name,
                        static_cast<long long>(w.experts()));
  }
  if (w.halves_apart()) {
    if (w.second_halves() != w.experts()) {
      return status::fail(
          error::bad_shape,
          "%s: it has pointers to %lld gate halves and to %lld up halves; they must "
          "be as many",
          name, static_cast<long long>(w.experts()), static_cast<long long>(w.second_halves()));
    }
    if (w.experts() > 0 && w.second_pointers() == nullptr) {
      return status::fail(error::null_pointer,
                          "%s: the pointer to the up halves is null; it must point to %lld of them",
                          name, static_cast<long long>(w.experts()));
    }
  }
  if (reinterpret_cast<std::uintptr_t>(w.data()) % alignof(Element) != 0) {
    return status::fail(error::bad_argument,
                        "%s: the address %p is not aligned; it must be a multiple of %zu", name,
                        static_cast<void const*>(w.data()), alignof(Element));
  }
  if (w.has_pairs() && w.rows() % 2 != 0) {
    return status::fail(error::bad_shape,
                        "%s: it has %lld rows in pairs; they must be even in number", name,
                        static_cast<long long>(w.rows()));
  }
  if (w.has_pairs() && w.pairs().block < 0) {
    return status::fail(error::bad_argument, "%s: the pairs' block is %d; it must be 0 or more",
                        name, w.pairs().block);
  }
  return {};
}

/// Rows read through slots fit the rows of the product.
template <space S>
[[nodiscard]] status gather(char const* name, row_gather<S> const& g, offset_t rows) noexcept {
  if (!g.slot) return {};
  if (status bad = first_of(between(name, g.top_k, 1, std::numeric_limits<index_t>::max()),
                            check::rows(name, g.slot));
      !bad.ok()) {
    return bad;
  }
  if (g.slot.extent(0) >= rows) return {};
  return status::fail(error::bad_shape, "%s: it has %lld slots; it must have %lld (rows)", name,
                      static_cast<long long>(g.slot.extent(0)), static_cast<long long>(rows));
}

template <space S>
[[nodiscard]] status scale(char const* name, row_factors<S> const& s, offset_t rows) noexcept {
  if (!s.factor) {
    if (!s.slot) return {};
    return status::fail(error::null_pointer, "%s: it has slots and no factors; it must have both",
                        name);
  }
  if (status bad = first_of(check::rows(name, s.factor), check::rows(name, s.slot)); !bad.ok()) {
    return bad;
  }
  offset_t const has = s.slot ? s.slot.extent(0) : s.factor.extent(0);
  if (has >= rows) return {};
  return status::fail(error::bad_shape, "%s: it has %lld entries; it must have %lld (rows)", name,
                      static_cast<long long>(has), static_cast<long long>(rows));
}

/// An optional output of rows.
template <space S>
[[nodiscard]] status extra(char const* name, matrix_out<S> const& x, offset_t rows,
                           offset_t columns) noexcept {
  if (!x) return {};
  if (status bad = first_of(extent(name, 0, x.extent(0), rows, "rows"),
                            extent(name, 1, x.extent(1), columns, "columns"));
      !bad.ok()) {
    return bad;
  }
  if (x.stride(1) == 1 || columns <= 1) return {};
  return status::fail(error::bad_shape,
                      "%s: the last axis has stride %lld; it must be 1 (contiguous)", name,
                      static_cast<long long>(x.stride(1)));
}

template <space S>
[[nodiscard]] status bias(char const* name, expert_vector<S> const& b, offset_t experts,
                          offset_t rows) noexcept {
  if (!b) return {};
  return first_of(extent(name, 0, b.experts(), experts, "experts of the segments"),
                  extent(name, 1, b.rows(), rows, "rows of w"));
}

/// A gated activation finds its two halves in w.
template <class T, space S>
[[nodiscard]] status halves(char const* name, basic_expert_matrix<T, S> const& w,
                            bool gated) noexcept {
  if (!gated) return {};
  if (w.rows() % 2 != 0) {
    return status::fail(error::bad_shape,
                        "%s: it has %lld rows; a gated activation takes an even number", name,
                        static_cast<long long>(w.rows()));
  }
  if (!w.is_packed() || w.has_pairs()) return {};
  return status::fail(error::bad_argument,
                      "%s: it was packed without pairs; a gated activation takes pairs", name);
}

/// Rows are rounded to int8 for weights whose products with them are sums of integers, of 32 bits: at most
/// 255 * 127 each (see pack_int8: a published number may be -128).
template <class T, space S>
[[nodiscard]] status int8_rows(char const* name, basic_expert_matrix<T, S> const& w,
                               bool asked) noexcept {
  using format = std::remove_const_t<T>;
  constexpr offset_t most = 65536;
  if (!asked) return {};
  if constexpr (!std::same_as<format, int8_channel> && !std::same_as<format, mxfp4>) {
    return status::fail(error::bad_argument,
                        "%s: it is set; rows are rounded for weights in int8_channel or mxfp4 only",
                        name);
  } else if (w.columns() > most) {
    return status::fail(error::bad_shape,
                        "%s: it is set, and the rows have %lld columns; they must be at most %lld",
                        name, static_cast<long long>(w.columns()), static_cast<long long>(most));
  }
  return {};
}

/// Where weight gradients and bias gradients go.
template <space S>
[[nodiscard]] status gradients(char const* who, expert_gradient<S> const& dw,
                               wgrad_options<S> const& options) noexcept {
  if (dw.is_packed()) {
    return status::fail(error::bad_argument, "%s.dw: it is packed; gradients go to plain matrices",
                        who);
  }
  if (options.d_bias) {
    if (status bad = first_of(
            memory("grouped_wgrad.d_bias", options.d_bias),
            extent("grouped_wgrad.d_bias", 0, options.d_bias.extent(0), dw.experts(), "experts"),
            extent("grouped_wgrad.d_bias", 1, options.d_bias.extent(1), dw.rows(), "rows of dw"));
        !bad.ok()) {
      return bad;
    }
  }
  if (!options.frozen) return {};
  return first_of(
      rows("grouped_wgrad.frozen", options.frozen),
      extent("grouped_wgrad.frozen", 0, options.frozen.extent(0), dw.experts(), "experts"));
}

template <class T, space S>
[[nodiscard]] status not_packed(char const* name, basic_expert_matrix<T, S> const& w) noexcept {
  if (!w.is_packed()) return {};
  return status::fail(error::bad_argument, "%s: it is packed already", name);
}

/// Memory for the packed form of `shape`.
template <class T, space S, class E>
[[nodiscard]] status packed_into(char const* name, basic_expert_matrix<T, S> const& shape,
                                 view<E, 1, S> packed) noexcept {
  if (shape.experts() > 0 && (shape.rows() < 1 || shape.columns() < 1)) {
    return status::fail(error::bad_shape, "%s: it is for %lld rows of %lld; both must be 1 or more",
                        name, static_cast<long long>(shape.rows()),
                        static_cast<long long>(shape.columns()));
  }
  if (shape.has_pairs() && (shape.rows() % 2 != 0 || shape.pairs().block < 0)) {
    return status::fail(error::bad_shape,
                        "%s: %lld rows in pairs, in blocks of %d; they must be even in number, and "
                        "the blocks 0 or more",
                        name, static_cast<long long>(shape.rows()), shape.pairs().block);
  }
  if (status bad = rows(name, packed); !bad.ok()) return bad;
  if (packed.extent(0) >= shape.packed_elements()) return {};
  return status::fail(error::bad_shape, "%s: it has %lld elements; it must have %lld", name,
                      static_cast<long long>(packed.extent(0)),
                      static_cast<long long>(shape.packed_elements()));
}

/// Optional segments that say which rows are in use.
template <space S>
[[nodiscard]] status in_use(char const* name, segments<S> s, offset_t rows) noexcept {
  return s.offset ? segments_content(name, s, rows) : status{};
}

}  // namespace SHUNT_ABI
}  // namespace shunt::check
