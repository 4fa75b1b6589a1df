#pragma once
/// Arrays of the caller's, whoever made them: memory, extents and strides, read through the buffer
/// protocol or DLPack, and kept alive. Nothing is copied.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "exchange.hpp"
#include "shunt/core/numeric.hpp"
#include "shunt/core/view.hpp"

namespace bindings {
namespace nb = nanobind;
using shunt::index_t;
using shunt::offset_t;

/// Element types that Shunt knows. uint16 is taken for the bits of bfloat16: NumPy has no such
/// type, and no primitive takes 16-bit counts.
enum class element : std::uint8_t { f32, f16, bf16, i16, i32, i64, u8, other };

[[nodiscard]] char const* to_string(element type) noexcept;

[[noreturn]] inline void value_error(std::string const& sentence) {
  throw nb::value_error(sentence.c_str());
}

template <class T>
inline constexpr element element_of = std::is_same_v<T, float>          ? element::f32
                                      : std::is_same_v<T, shunt::fp16>  ? element::f16
                                      : std::is_same_v<T, shunt::bf16>  ? element::bf16
                                      : std::is_same_v<T, std::int16_t> ? element::i16
                                      : std::is_same_v<T, index_t>      ? element::i32
                                      : std::is_same_v<T, std::int64_t> ? element::i64
                                      : std::is_same_v<T, std::uint8_t> ? element::u8
                                                                        : element::other;

/// keep: read by later calls too.
enum class access { read, keep, write };
enum class place { host, cuda, any };

class array {
 public:
  static constexpr int most_axes = 5;

  array() noexcept = default;

  /// Reads `object`. `name` is "primitive.argument", for sentences; it must outlive the array.
  /// `types` are those allowed. Raises TypeError or ValueError with a sentence.
  array(nb::handle object, char const* name, int rank, std::initializer_list<element> types,
        access how, place where);

  /// A dense one in host memory that was just made, and is kept alive by `object`.
  array(nb::object object, char const* name, element type, void* data,
        std::initializer_list<offset_t> extents) noexcept;

  [[nodiscard]] explicit operator bool() const noexcept { return data_ != nullptr; }
  [[nodiscard]] char const* name() const noexcept { return name_; }
  [[nodiscard]] void* data() const noexcept { return data_; }
  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] element type() const noexcept { return type_; }
  [[nodiscard]] place where() const noexcept { return where_; }
  /// The CUDA device that it lies on; -1: on the host, or its maker does not say.
  [[nodiscard]] int device() const noexcept { return device_; }
  [[nodiscard]] nb::handle object() const noexcept { return object_; }
  [[nodiscard]] offset_t extent(int d) const noexcept {
    return extents_[static_cast<std::size_t>(d)];
  }
  [[nodiscard]] offset_t stride(int d) const noexcept {
    return strides_[static_cast<std::size_t>(d)];
  }

  /// What Shunt takes; a view without memory where no array was given.
  template <class T, int Rank, shunt::space S>
  [[nodiscard]] shunt::view<T, Rank, S> as() const noexcept {
    shunt::axes<Rank> extents{}, strides{};
    for (int d = 0; d < Rank; ++d) {
      extents[static_cast<std::size_t>(d)] = extent(d);
      strides[static_cast<std::size_t>(d)] = stride(d);
    }
    return data_ == nullptr ? shunt::view<T, Rank, S>()
                            : shunt::view<T, Rank, S>(static_cast<T*>(data_), extents, strides);
  }

  /// First byte and the one behind the last.
  struct bytes {
    std::uintptr_t first = 0, last = 0;
  };
  [[nodiscard]] bytes range() const noexcept;

 private:
  bool read_buffer(nb::handle object);
  bool read_exchange(nb::handle object, access how);
  bool read_dlpack(nb::handle object, access how);
  bool read_cuda_interface(nb::handle object);
  void place_on(int device_type, int device);
  void resolve_tensor(access how);
  void check_memory();
  void check(int rank, std::initializer_list<element> types, access how, place where) const;

  struct release {
    void operator()(Py_buffer* held) const noexcept {
      PyBuffer_Release(held);
      delete held;
    }
  };

  char const* name_ = "";
  void* data_ = nullptr;
  int rank_ = 0;
  element type_ = element::other;
  place where_ = place::host;
  int device_ = -1;
  bool read_only_ = false, whole_elements_ = true;
  offset_t extents_[most_axes] = {}, strides_[most_axes] = {};
  nb::object object_;
  nb::ndarray<nb::ro> array_;
  exported exported_;
  std::unique_ptr<Py_buffer, release> buffer_;
};

[[nodiscard]] std::size_t size_of(element type) noexcept;

/// The given array, or where it is None a new one of the kind (NumPy, torch, ...) and device of
/// `like`: of the first of `types`. A call that was told how to make arrays does that instead.
[[nodiscard]] array output(nb::handle given, nb::handle like, char const* name,
                           std::initializer_list<offset_t> extents,
                           std::initializer_list<element> types, place where);

/// The arrays of one call: what is written shares no byte with what is read nor with anything else
/// that is written. Arrays that were not given are passed over. They must outlive this.
class apart {
 public:
  template <class... Arrays> apart& reads(Arrays const&... arrays) {
    (add(arrays, false), ...);
    return *this;
  }
  template <class... Arrays> apart& writes(Arrays const&... arrays) {
    (add(arrays, true), ...);
    return *this;
  }
  /// A ValueError says which two meet.
  void check();

 private:
  struct entry {
    array::bytes range;
    array const* of;
    bool written;
  };
  void add(array const& a, bool written) {
    if (!a) return;
    if (entries_.empty()) entries_.reserve(32);
    entries_.push_back({a.range(), &a, written});
  }
  std::vector<entry> entries_;
};

/// An argument that may be None.
[[nodiscard]] inline array optional(nb::handle object, char const* name, int rank,
                                    std::initializer_list<element> types, access how, place where) {
  return object.is_none() ? array() : array(object, name, rank, types, how, where);
}

/// The C++ object in a Python one, null for None; raises where it is of another type.
template <class T> T* instance(nb::handle object, char const* name, char const* what) {
  if (object.is_none()) return nullptr;
  if (nb::isinstance<T>(object)) return nb::inst_ptr<T>(object);
  PyErr_Format(PyExc_TypeError, "%s is of type %s; it must be %s", name,
               Py_TYPE(object.ptr())->tp_name, what);
  throw nb::python_error();
}

inline constexpr std::initializer_list<element> storage_types = {element::f32, element::bf16,
                                                                 element::f16};

/// Calls f.template operator()<T>() for the storage type that `type` is.
template <class F> decltype(auto) with_storage(element type, F&& f) {
  switch (type) {
    case element::bf16: return f.template operator()<shunt::bf16>();
    case element::f16: return f.template operator()<shunt::fp16>();
    default: return f.template operator()<float>();
  }
}

/// f.template operator()<T>() or <float>(): what `type` is of the two.
template <class T, class F> decltype(auto) with_type_or_float(element type, F&& f) {
  if constexpr (std::is_same_v<T, float>) {
    return f.template operator()<float>();
  } else {
    return type == element::f32 ? f.template operator()<float>() : f.template operator()<T>();
  }
}

/// The very same elements in the same places.
[[nodiscard]] inline bool same_memory(array const& a, array const& b) noexcept {
  if (!a || !b || a.data() != b.data() || a.type() != b.type() || a.rank() != b.rank())
    return false;
  for (int d = 0; d < a.rank(); ++d) {
    if (a.extent(d) != b.extent(d) || a.stride(d) != b.stride(d)) return false;
  }
  return true;
}

}  // namespace bindings
