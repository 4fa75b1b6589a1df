#include "exchange.hpp"

#include <cstddef>
#include <new>
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

/// A type of torch's is known by its base class, and only once torch is imported.
tensor_kind kind_of_type(nb::handle type) {
  nb::dict const modules = nb::borrow<nb::dict>(PyImport_GetModuleDict());
  if (!modules.contains("torch")) return tensor_kind::not_torch;
  nb::object const torch = modules["torch"];
  nb::object const tensor = nb::getattr(torch, "Tensor", nb::none());
  if (!PyType_Check(tensor.ptr()) || PyObject_IsSubclass(type.ptr(), tensor.ptr()) != 1) {
    PyErr_Clear();
    return tensor_kind::not_torch;
  }
  static constexpr char const* dispatch = "__torch_dispatch__";
  bool const own = nb::getattr(type, dispatch, nb::none()).ptr() !=
                   nb::getattr(tensor, dispatch, nb::none()).ptr();
  return own ? tensor_kind::wrapper : tensor_kind::plain;
}

struct type_facts {
  exchange const* api = nullptr;
  tensor_kind kind = tensor_kind::not_torch;
};

/// Of a type; asked once. The types are kept, so that an address stands for one type only.
type_facts const& facts_of(nb::handle object) {
  static auto& known = *new std::unordered_map<PyTypeObject*, type_facts>;
  PyTypeObject* const type = Py_TYPE(object.ptr());
  if (auto const at = known.find(type); at != known.end()) return at->second;
  nb::handle const kept(reinterpret_cast<PyObject*>(type));
  kept.inc_ref();
  return known.emplace(type, type_facts{find(kept), kind_of_type(kept)}).first->second;
}
exchange const* exchange_of(nb::handle object) { return facts_of(object).api; }

/// A tensor and its elements in one allocation.
struct host_block {
  static constexpr int most_axes = 2;
  static constexpr std::align_val_t alignment{64};

  exported_tensor tensor{};
  std::int64_t extents[most_axes] = {}, strides[most_axes] = {};

  static constexpr std::size_t head() noexcept { return (sizeof(host_block) + 63) / 64 * 64; }
  static void free(exported_tensor* self) {
    auto* const block = static_cast<host_block*>(self->context);
    block->~host_block();
    ::operator delete(block, alignment);
  }
};

}  // namespace

tensor_kind tensor_kind_of(nb::handle object) { return facts_of(object).kind; }

bool borrow_fast(nb::handle object, nb::dlpack::dltensor& out) {
  exchange const* const api = exchange_of(object);
  if (api == nullptr || api->borrow == nullptr) return false;
  if (api->borrow(object.ptr(), &out) == 0) return true;
  PyErr_Clear();
  return false;
}

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

host_tensor make_on_host(nb::handle like, nb::dlpack::dtype type, int rank,
                         std::int64_t const* extents) {
  exchange const* const api = exchange_of(like);
  if (api == nullptr || rank > host_block::most_axes) return {};
  std::size_t bytes = type.bits / 8;
  for (int d = 0; d < rank; ++d) {
    if (__builtin_mul_overflow(bytes, extents[d], &bytes)) return {};
  }
  if (__builtin_add_overflow(bytes, host_block::head(), &bytes)) return {};
  void* const memory = ::operator new(bytes, host_block::alignment);
  auto* const block = new (memory) host_block;
  void* const data = static_cast<std::byte*>(memory) + host_block::head();
  for (int d = rank - 1; d >= 0; --d) {
    block->extents[d] = extents[d];
    block->strides[d] = d == rank - 1 ? 1 : block->strides[d + 1] * extents[d + 1];
  }
  block->tensor.version = {1, 0};
  block->tensor.context = block;
  block->tensor.deleter = &host_block::free;
  block->tensor.tensor = {
      data, {nb::device::cpu::value, 0}, rank, type, block->extents, block->strides, 0};
  void* object = nullptr;
  if (api->to_object(&block->tensor, &object) != 0) {
    PyErr_Clear();
    host_block::free(&block->tensor);
    return {};
  }
  return {nb::steal(static_cast<PyObject*>(object)), data};
}

nb::object make_fast(nb::handle like, nb::dlpack::dtype type, int rank,
                     std::int64_t const* extents) {
  exchange const* const api = exchange_of(like);
  nb::dlpack::dltensor wanted;
  if (!borrow_fast(like, wanted)) return {};
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
