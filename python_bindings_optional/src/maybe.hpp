#pragma once
#include <nanobind/nanobind.h>

#include <type_traits>

namespace bindings {

/// A parameter that takes any Python object, None as well: a handle says the latter for each
/// parameter anew.
struct maybe : nanobind::handle {
  maybe() = default;
  maybe(nanobind::handle object) noexcept : nanobind::handle(object) {}
};

}  // namespace bindings

namespace nanobind::detail {

template <> struct type_caster<bindings::maybe> {
  NB_TYPE_CASTER(bindings::maybe, const_name("object | None"))
  template <class Flags, class Cleanup> bool from_python(handle source, Flags, Cleanup*) noexcept {
    value = source;
    return true;
  }
};
template <> struct has_arg_defaults<bindings::maybe> : std::true_type {};

}  // namespace nanobind::detail
