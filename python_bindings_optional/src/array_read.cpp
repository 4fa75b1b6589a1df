/// The protocols that arrays are read through.
#include <nanobind/stl/string.h>

#include <algorithm>
#include <string>
#include <utility>

#include "array.hpp"
#include "device_call.hpp"

namespace bindings {
namespace {

/// Of an element in one of the buffer protocol's format strings.
element element_of_format(char const* format, Py_ssize_t size) noexcept {
  if (format == nullptr) return size == 1 ? element::u8 : element::other;
  if (*format == '@' || *format == '=' || *format == '<') ++format;
  if (format[0] == '\0' || format[1] != '\0') return element::other;
  switch (*format) {
    case 'f': return element::f32;
    case 'e': return element::f16;
    case 'H': return element::bf16;
    case 'B':
    case '?': return element::u8;
    case 'h':
    case 'i':
    case 'l':
    case 'q':
      return size == 2   ? element::i16
             : size == 4 ? element::i32
             : size == 8 ? element::i64
                         : element::other;
    default: return element::other;
  }
}

/// Of one in the CUDA array interface: "<f4" and the like.
element element_of_interface(std::string const& type) noexcept {
  static constexpr std::pair<char const*, element> known[] = {
      {"f4", element::f32}, {"f2", element::f16}, {"u2", element::bf16}, {"i2", element::i16},
      {"i4", element::i32}, {"i8", element::i64}, {"u1", element::u8},   {"b1", element::u8}};
  if (type.size() != 3 || type[0] == '>') return element::other;
  for (auto const& [name, is] : known) {
    if (type.compare(1, 2, name) == 0) return is;
  }
  return element::other;
}

element element_of_dlpack(nb::dlpack::dtype type) noexcept {
  using nb::dlpack::dtype_code;
  if (type.lanes != 1) return element::other;
  auto const is = [&](dtype_code code, int bits) {
    return type.code == static_cast<std::uint8_t>(code) && type.bits == bits;
  };
  if (is(dtype_code::Float, 32)) return element::f32;
  if (is(dtype_code::Float, 16)) return element::f16;
  if (is(dtype_code::Bfloat, 16) || is(dtype_code::UInt, 16)) return element::bf16;
  if (is(dtype_code::Int, 16)) return element::i16;
  if (is(dtype_code::Int, 32)) return element::i32;
  if (is(dtype_code::Int, 64)) return element::i64;
  if (is(dtype_code::UInt, 8) || is(dtype_code::Bool, 8)) return element::u8;
  return element::other;
}

/// What an array in CUDA memory exports, ready for the stream of this call (DLPack names the legacy
/// default stream 1); nothing where it lies elsewhere.
nb::object export_on_stream(nb::handle object) {
  if (!nb::hasattr(object, "__dlpack_device__")) return {};
  int const kind = nb::cast<int>(nb::object(object.attr("__dlpack_device__")()[0]));
  if (kind != nb::device::cuda::value && kind != nb::device::cuda_managed::value) return {};
  auto const stream = called().stream == 0 ? std::uintptr_t{1} : called().stream;
  return object.attr("__dlpack__")(nb::arg("stream") = stream);
}

}  // namespace

bool array::read_buffer(nb::handle object) {
  if (PyObject_CheckBuffer(object.ptr()) == 0) return false;
  auto view = std::make_unique<Py_buffer>();
  if (PyObject_GetBuffer(object.ptr(), view.get(), PyBUF_RECORDS_RO) != 0) {
    PyErr_Clear();
    return false;
  }
  buffer_.reset(view.release());
  Py_buffer const& b = *buffer_;
  data_ = b.buf;
  rank_ = b.ndim;
  type_ = element_of_format(b.format, b.itemsize);
  read_only_ = b.readonly != 0;
  where_ = place::host;
  if (rank_ > most_axes || b.itemsize <= 0) return true;
  offset_t dense = 1;
  for (int d = rank_ - 1; d >= 0; --d) {
    auto const at = static_cast<std::size_t>(d);
    extents_[at] = b.shape == nullptr ? b.len / b.itemsize : b.shape[d];
    if (b.strides == nullptr) {
      strides_[at] = dense;
      dense *= extents_[at];
    } else {
      whole_elements_ = whole_elements_ && (b.strides[d] % b.itemsize == 0 || extents_[at] <= 1);
      strides_[at] = b.strides[d] / b.itemsize;
    }
  }
  return true;
}

void array::place_on(int device_type, int device) {
  bool const host = device_type == nb::device::cpu::value;
  where_ = host ? place::host : place::cuda;
  device_ = host ? -1 : device;
  if (!host && device_type != nb::device::cuda::value &&
      device_type != nb::device::cuda_managed::value) {
    value_error(std::string(name_) +
                " lies on a device that is neither host nor CUDA; it must lie on one of these");
  }
}

bool array::read_exchange(nb::handle object, access how) {
  nb::dlpack::dltensor borrowed;
  bool const is_borrowed = how == access::read && borrow_fast(object, borrowed);
  if (!is_borrowed) exported_ = export_fast(object);
  if (!is_borrowed && !exported_) return false;
  auto const& t = is_borrowed ? borrowed : exported_->tensor;
  place_on(t.device.device_type, t.device.device_id);
  data_ = t.data == nullptr ? nullptr : static_cast<std::byte*>(t.data) + t.byte_offset;
  rank_ = t.ndim;
  type_ = element_of_dlpack(t.dtype);
  read_only_ = is_borrowed || (exported_->flags & exported_tensor::read_only) != 0;
  offset_t dense = 1;
  for (int d = std::min(rank_, most_axes) - 1; d >= 0; --d) {
    auto const at = static_cast<std::size_t>(d);
    extents_[at] = t.shape[d];
    strides_[at] = t.strides == nullptr ? dense : t.strides[d];
    dense *= extents_[at];
  }
  return true;
}

bool array::read_dlpack(nb::handle object, access how) {
  bool read = false;
  nb::object ready;
  try {
    ready = export_on_stream(object);
  } catch (nb::python_error&) { return false; }
  if (ready.is_valid()) object = ready;
  if (how == access::write) {
    nb::ndarray<> writable;
    read = nb::try_cast(object, writable, false);
    if (read) array_ = nb::ndarray<nb::ro>(writable);
  } else {
    read = nb::try_cast(object, array_, false);
  }
  if (!read) {
    PyErr_Clear();
    return false;
  }
  place_on(array_.device_type(), array_.device_id());
  rank_ = static_cast<int>(array_.ndim());
  type_ = element_of_dlpack(array_.dtype());
  data_ = const_cast<void*>(static_cast<void const*>(array_.data()));
  for (int d = 0; d < rank_ && d < most_axes; ++d) {
    auto const at = static_cast<std::size_t>(d);
    extents_[at] = static_cast<offset_t>(array_.shape(at));
    strides_[at] = array_.stride(at);
  }
  return true;
}

/// Numba's and CuPy's protocol. The stream that it may name is the call's already
/// (shunt/_backend.py).
bool array::read_cuda_interface(nb::handle object) {
  nb::object const found = nb::getattr(object, "__cuda_array_interface__", nb::none());
  if (!nb::isinstance<nb::dict>(found)) return false;
  nb::dict const d = nb::borrow<nb::dict>(found);
  auto const shape = nb::cast<nb::tuple>(d["shape"]), data = nb::cast<nb::tuple>(d["data"]);
  auto const type = nb::cast<std::string>(d["typestr"]);
  data_ = reinterpret_cast<void*>(nb::cast<std::uintptr_t>(data[0]));
  read_only_ = nb::cast<bool>(data[1]);
  rank_ = static_cast<int>(nb::len(shape));
  where_ = place::cuda;
  type_ = element_of_interface(type);
  auto const size = static_cast<offset_t>(size_of(type_));
  nb::object const steps = d.contains("strides") ? nb::object(d["strides"]) : nb::none();
  offset_t dense = 1;
  for (int axis = std::min(rank_, most_axes) - 1; axis >= 0; --axis) {
    auto const at = static_cast<std::size_t>(axis);
    extents_[at] = nb::cast<offset_t>(nb::object(shape[at]));
    auto const step = steps.is_none() ? dense * size : nb::cast<offset_t>(nb::object(steps[at]));
    whole_elements_ = whole_elements_ && (step % size == 0 || extents_[at] <= 1);
    strides_[at] = step / size;
    dense *= extents_[at];
  }
  return true;
}

}  // namespace bindings
