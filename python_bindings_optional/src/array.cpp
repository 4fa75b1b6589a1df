#include "array.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string>
#include <utility>

#include "device_call.hpp"

namespace bindings {
namespace {

[[noreturn]] void type_error(std::string const& sentence) {
  throw nb::type_error(sentence.c_str());
}
std::string names_of(std::initializer_list<element> types) {
  std::string all;
  std::size_t left = types.size();
  for (element const type : types) {
    all += to_string(type);
    --left;
    all += left > 1 ? ", " : left == 1 ? " or " : "";
  }
  return all;
}

std::string kind_of(nb::handle object) {
  nb::object const type = nb::getattr(object, "dtype", nb::none());
  return nb::str(type.is_none()
                     ? nb::getattr(nb::handle(reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()))),
                                   "__name__")
                     : type)
      .c_str();
}

/// torch's: what is made of such a tensor here would be unknown to autograd.
bool requires_gradient(nb::handle object) {
  static nb::handle const name = nb::str("requires_grad").release();  // kept for good
  nb::object const asked = nb::getattr(object, name, nb::none());
  return asked.ptr() == Py_True;
}

}  // namespace

device_call& called() noexcept {
  static thread_local device_call of_thread;
  return of_thread;
}

char const* to_string(element type) noexcept {
  switch (type) {
    case element::f32: return "float32";
    case element::f16: return "float16";
    case element::bf16: return "bfloat16";
    case element::i16: return "int16";
    case element::i32: return "int32";
    case element::i64: return "int64";
    case element::u8: return "uint8";
    case element::other: break;
  }
  return "unknown";
}

std::size_t size_of(element type) noexcept {
  switch (type) {
    case element::f32:
    case element::i32: return 4;
    case element::i64: return 8;
    case element::f16:
    case element::bf16:
    case element::i16: return 2;
    default: return 1;
  }
}

array::array(nb::handle object, char const* name, int rank, std::initializer_list<element> types,
             access how, place where)
    : name_(name), object_(nb::borrow(object)) {
  bool read = read_buffer(object);
  if (!read && PyObject_CheckBuffer(object.ptr()) != 0 && kind_of(object) == "bfloat16") {
    read = read_buffer(object.attr("view")("uint16"));  // ml_dtypes: NumPy exports it as nothing
  }
  if (!read) resolve_tensor(how);
  bool const tracked = !read && requires_gradient(object);
  if (!read && !tracked) {
    read = read_exchange(object_, how) || read_dlpack(object_, how) || read_cuda_interface(object_);
  }
  if (!read) {
    type_error(std::string(name) + " is " + kind_of(object) +
               (tracked ? ", a tensor that requires a gradient; it must be detached"
                        : "; it must be an array that can be read through the buffer protocol, "
                          "DLPack or the CUDA array interface"));
  }
  check(rank, types, how, where);
  check_memory();
}

/// A torch tensor whose memory is not what its values are: a wrapper is refused, a negated view
/// gives way to its values where it is only read, and only now.
void array::resolve_tensor(access how) {
  tensor_kind const kind = tensor_kind_of(object_);
  if (kind == tensor_kind::not_torch) return;
  if (kind == tensor_kind::wrapper) {
    type_error(std::string(name_) + " is a " + Py_TYPE(object_.ptr())->tp_name +
               ", which has no memory of its own; it must be a plain tensor (of a DTensor: "
               "to_local())");
  }
  static nb::handle const is_neg = nb::str("is_neg").release();  // kept for good
  nb::object const negated = nb::steal(PyObject_CallMethodNoArgs(object_.ptr(), is_neg.ptr()));
  if (!negated.is_valid()) throw nb::python_error();
  if (negated.ptr() != Py_True) return;
  if (how != access::read) {
    value_error(std::string(name_) +
                " is a negated view, whose memory holds other values; it must be a tensor of its "
                "own (resolve_neg())");
  }
  object_ = object_.attr("resolve_neg")();
}

/// Elements have memory: a tensor whose storage was freed, or that only stands for another, has an
/// address on the first page, which is never mapped (0, and what a byte offset makes of it).
void array::check_memory() {
  static std::max_align_t empty;
  bool any = true;
  for (int d = 0; d < rank_; ++d) any = any && extent(d) != 0;
  if (!any) {
    // A view without memory means "not given": an empty array is given all the same.
    if (data_ == nullptr) data_ = &empty;
    return;
  }
  if (reinterpret_cast<std::uintptr_t>(data_) >= 4096) return;
  value_error(std::string(name_) +
              " has elements and no memory: it was freed, or is a tensor that stands for another; "
              "it must have memory of its own");
}

array::array(nb::object object, char const* name, element type, void* data,
             std::initializer_list<offset_t> extents) noexcept
    : name_(name), data_(data), rank_(static_cast<int>(extents.size())), type_(type) {
  object_ = std::move(object);
  offset_t dense = 1;
  for (std::size_t d = extents.size(); d-- > 0;) {
    extents_[d] = extents.begin()[d];
    strides_[d] = dense;
    dense *= extents_[d];
  }
}

void array::check(int rank, std::initializer_list<element> types, access how, place where) const {
  auto const name = [&] { return std::string(name_); };
  if (where != place::any && where_ != where) {
    auto const memory = [](place of) { return of == place::host ? "host" : "device"; };
    value_error(name() + " lies in " + memory(where_) + " memory; it must lie in " + memory(where) +
                " memory");
  }
  if (where == place::cuda && device_ >= 0 && called().device >= 0 && device_ != called().device) {
    value_error(name() + " lies on CUDA device " + std::to_string(device_) +
                "; it must lie on device " + std::to_string(called().device) +
                ", as the call does");
  }
  if (std::find(types.begin(), types.end(), type_) == types.end()) {
    type_error(
        name() + ": its elements are " +
        (type_ == element::other || type_ == element::bf16 ? kind_of(object_) : to_string(type_)) +
        "; they must be " + names_of(types));
  }
  if (rank_ > most_axes || (rank >= 0 && rank_ != rank)) {
    value_error(name() + " has " + std::to_string(rank_) + " axes; it must have " +
                std::to_string(rank));
  }
  if (!whole_elements_ || reinterpret_cast<std::uintptr_t>(data_) % size_of(type_) != 0) {
    value_error(name() +
                ": its elements are not aligned; address and strides must be multiples of " +
                std::to_string(size_of(type_)));
  }
  if (how != access::write) return;
  if (read_only_) value_error(name() + " is read-only; it is written and must be writable");
  // Elements that lie on each other: sorted by stride, each axis must step over all smaller ones.
  std::array<std::pair<offset_t, offset_t>, most_axes> steps;
  int n = 0;
  for (int d = 0; d < rank_; ++d) {
    if (extent(d) == 0) return;
    if (extent(d) > 1) steps[static_cast<std::size_t>(n++)] = {std::abs(stride(d)), extent(d)};
  }
  // By a heap: of std::sort on so short an array g++ 12 warns at -O2.
  std::partial_sort(steps.begin(), steps.begin() + n, steps.begin() + n);
  offset_t reach = 0;
  for (int d = 0; d < n; ++d) {
    auto const [step, count] = steps[static_cast<std::size_t>(d)];
    if (step <= reach) {
      value_error(name() + ": some of its elements share memory; it is written and they must not");
    }
    reach += step * (count - 1);
  }
}

array::bytes array::range() const noexcept {
  offset_t low = 0, high = 0;
  for (int d = 0; d < rank_; ++d) {
    if (extent(d) == 0) return {};
    offset_t const reach = (extent(d) - 1) * stride(d);
    (reach < 0 ? low : high) += reach;
  }
  auto const base = reinterpret_cast<std::uintptr_t>(data_);
  auto const size = static_cast<offset_t>(size_of(type_));
  return {base + static_cast<std::uintptr_t>(low * size),
          base + static_cast<std::uintptr_t>((high + 1) * size)};
}

void apart::check() {
  std::sort(entries_.begin(), entries_.end(),
            [](entry const& a, entry const& b) { return a.range.first < b.range.first; });
  entry const *any = nullptr, *written = nullptr;  // those that reach furthest so far
  for (entry const& e : entries_) {
    if (e.range.first == e.range.last) continue;
    entry const* const met = e.written ? any : written;
    if (met != nullptr && e.range.first < met->range.last) {
      entry const& out = e.written ? e : *met;
      entry const& other = e.written ? *met : e;
      value_error(std::string(out.of->name()) + " and " + other.of->name() +
                  " share memory; they must not");
    }
    if (any == nullptr || e.range.last > any->range.last) any = &e;
    if (e.written && (written == nullptr || e.range.last > written->range.last)) written = &e;
  }
}

}  // namespace bindings
