#include <array>
#include <cstddef>
#include <utility>

#include "array.hpp"
#include "device_call.hpp"

namespace bindings {
namespace {

nb::dlpack::dtype dlpack_of(element type) noexcept {
  using nb::dlpack::dtype_code;
  auto const code = type == element::f32 || type == element::f16 ? dtype_code::Float
                    : type == element::bf16                      ? dtype_code::Bfloat
                    : type == element::u8                        ? dtype_code::UInt
                                                                 : dtype_code::Int;
  return {static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(8 * size_of(type)), 1};
}

/// numpy.empty of NumPy's own types, without a way through Python.
class numpy_empty {
 public:
  /// Null where `like` is no plain NumPy array, or NumPy has no such type.
  static nb::object make(nb::handle like, nb::handle shape, element type) {
    static auto const& numpy = *new numpy_empty;  // kept for good
    if (Py_TYPE(like.ptr()) != reinterpret_cast<PyTypeObject*>(numpy.array_.ptr())) return {};
    if (type == element::bf16 || type == element::other) return {};
    return numpy.empty_(shape, numpy.types_[static_cast<std::size_t>(type)]);
  }

 private:
  numpy_empty() {
    nb::module_ const numpy = nb::module_::import_("numpy");
    array_ = numpy.attr("ndarray");
    empty_ = numpy.attr("empty");
    for (std::size_t t = 0; t < types_.size(); ++t) {
      auto const type = static_cast<element>(t);
      if (type != element::bf16) types_[t] = numpy.attr("dtype")(to_string(type));
    }
  }
  nb::object array_, empty_;
  std::array<nb::object, static_cast<std::size_t>(element::other)> types_;
};

nb::object tuple_of(std::initializer_list<offset_t> extents) {
  nb::object shape = nb::steal(PyTuple_New(static_cast<Py_ssize_t>(extents.size())));
  Py_ssize_t d = 0;
  for (offset_t const extent : extents) {
    PyTuple_SET_ITEM(shape.ptr(), d++, PyLong_FromLongLong(extent));
  }
  return shape;
}

/// A new array of the kind of `like`.
nb::object make_like(nb::handle like, std::initializer_list<offset_t> extents, element type) {
  if (PyObject_CheckBuffer(like.ptr()) == 0) {
    nb::object made =
        make_fast(like, dlpack_of(type), static_cast<int>(extents.size()), extents.begin());
    if (made.is_valid()) return made;
  }
  nb::object const shape = tuple_of(extents);
  nb::object made = numpy_empty::make(like, shape, type);
  if (made.is_valid()) return made;
  static nb::handle const empty =
      nb::object(nb::module_::import_("shunt._arrays").attr("empty")).release();  // kept for good
  return empty(like, shape, nb::str(to_string(type)));
}

}  // namespace

array output(nb::handle given, nb::handle like, char const* name,
             std::initializer_list<offset_t> extents, std::initializer_list<element> types,
             place where) {
  auto const rank = static_cast<int>(extents.size());
  if (!given.is_none()) return {given, name, rank, types, access::write, where};
  if (where == place::host && PyObject_CheckBuffer(like.ptr()) == 0) {
    host_tensor made = make_on_host(like, dlpack_of(*types.begin()), rank, extents.begin());
    if (made.data != nullptr) {
      return {std::move(made.object), name, *types.begin(), made.data, extents};
    }
  }
  nb::handle const empty = where == place::cuda ? called().empty : nb::handle();
  nb::object const made = empty.is_valid()
                              ? empty(tuple_of(extents), nb::str(to_string(*types.begin())))
                              : make_like(like, extents, *types.begin());
  return {made, name, rank, types, access::write, where};
}

}  // namespace bindings
