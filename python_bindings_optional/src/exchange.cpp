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
  void* allocate;
  int (*from_object)(void* object, exported_tensor** out);
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

}  // namespace bindings
