#include "exchange.hpp"

#include <unordered_map>

namespace bindings {
namespace {

namespace nb = nanobind;

/// DLPackExchangeAPI, up to what is called here.
struct exchange {
  struct {
    std::uint32_t major, minor;
  } version;
  exchange* previous;
  int (*allocate)(nb::dlpack::dltensor* prototype, exported_tensor** out, void* context,
                  void (*set_error)(void* context, char const* kind, char const* message));
  int (*from_object)(void* object, exported_tensor** out);
  int (*to_object)(exported_tensor* tensor, void** out);
  int (*borrow)(void* object, nb::dlpack::dltensor* out);
};

exchange const* find(nb::handle type) {
  nb::object const capsule = nb::getattr(type, "__dlpack_c_exchange_api__", nb::none());
  if (PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api") == 0) return nullptr;
  auto const* found =
      static_cast<exchange const*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  while (found != nullptr && found->version.major != 1) found = found->previous;
  return found;
}

/// Of a type; asked once. The types are kept, so that an address stands for one type only.
exchange const* exchange_of(nb::handle object) {
  static auto& known = *new std::unordered_map<PyTypeObject*, exchange const*>;
  PyTypeObject* const type = Py_TYPE(object.ptr());
  if (auto const at = known.find(type); at != known.end()) return at->second;
  nb::handle const kept(reinterpret_cast<PyObject*>(type));
  kept.inc_ref();
  return known.emplace(type, find(kept)).first->second;
}

}  // namespace

exported export_fast(nb::handle object) {
  exchange const* const api = exchange_of(object);
  if (api == nullptr) return nullptr;
  exported_tensor* out = nullptr;
  if (api->from_object(object.ptr(), &out) != 0) {
    PyErr_Clear();
    return nullptr;
  }
  return exported(out);
}

nb::object make_fast(nb::handle like, nb::dlpack::dtype type, int rank,
                     std::int64_t const* extents) {
  exchange const* const api = exchange_of(like);
  if (api == nullptr || api->borrow == nullptr) return {};
  nb::dlpack::dltensor wanted;
  if (api->borrow(like.ptr(), &wanted) != 0) {
    PyErr_Clear();
    return {};
  }
  wanted.data = nullptr;
  wanted.byte_offset = 0;
  wanted.dtype = type;
  wanted.ndim = rank;
  wanted.shape = const_cast<std::int64_t*>(extents);
  wanted.strides = nullptr;
  exported_tensor* made = nullptr;
  auto const ignore = [](void*, char const*, char const*) {};
  void* object = nullptr;
  if (api->allocate(&wanted, &made, nullptr, ignore) != 0 || made == nullptr ||
      api->to_object(made, &object) != 0) {
    PyErr_Clear();
    return {};
  }
  return nb::steal(static_cast<PyObject*>(object));
}

}  // namespace bindings
