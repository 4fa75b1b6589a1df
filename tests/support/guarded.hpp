#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <limits>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#include "shunt/core/numeric.hpp"
#include "shunt/core/view.hpp"

namespace shunt::test {

/// A value that shows wherever it was left: NaN in the float types, a wild number in integers.
template <class T> T untouched() noexcept {
  if constexpr (storage<T>) {
    return from_float<T>(std::numeric_limits<float>::quiet_NaN());
  } else if constexpr (std::is_floating_point_v<T>) {
    return std::numeric_limits<T>::quiet_NaN();
  } else {
    T value;
    std::memset(static_cast<void*>(&value), 0x5a, sizeof value);
    return value;
  }
}

/// Host memory that ends exactly at a page nobody may touch: one element too far is a crash, not a
/// silent read. Filled with untouched(). `misalign` elements are left free behind it, so that the
/// start is aligned to the element only.
template <class T> class guarded {
 public:
  using value_type = T;

  explicit guarded(std::size_t count = 0) : count_(count) {
    auto const page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    std::size_t const bytes = count * sizeof(T);
    std::size_t const usable = (bytes + page - 1) / page * page;
    mapped_ = usable + page;
    void* const at = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<std::byte*>(at);
    mprotect(base_ + usable, page, PROT_NONE);
    data_ = reinterpret_cast<T*>(base_ + usable - bytes);
    wipe();
  }
  guarded(std::vector<T> const& values) : guarded(values.size()) {
    if (!values.empty()) std::memcpy(static_cast<void*>(data_), values.data(), count_ * sizeof(T));
  }
  guarded(guarded const& other) : guarded(other.count_) {
    if (count_ != 0) std::memcpy(static_cast<void*>(data_), other.data_, count_ * sizeof(T));
  }
  guarded(guarded&& other) noexcept
      : base_(std::exchange(other.base_, nullptr)),
        mapped_(other.mapped_),
        data_(other.data_),
        count_(std::exchange(other.count_, 0)) {}
  guarded& operator=(guarded other) noexcept {
    std::swap(base_, other.base_);
    std::swap(mapped_, other.mapped_);
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~guarded() {
    if (base_ != nullptr) munmap(base_, mapped_);
  }

  void wipe() noexcept {
    for (std::size_t i = 0; i < count_; ++i) data_[i] = untouched<T>();
  }

  [[nodiscard]] T* data() noexcept { return data_; }
  [[nodiscard]] T const* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return count_; }
  [[nodiscard]] T& operator[](std::size_t i) noexcept { return data_[i]; }
  [[nodiscard]] T const& operator[](std::size_t i) const noexcept { return data_[i]; }
  [[nodiscard]] T* begin() noexcept { return data_; }
  [[nodiscard]] T* end() noexcept { return data_ + count_; }
  [[nodiscard]] T const* begin() const noexcept { return data_; }
  [[nodiscard]] T const* end() const noexcept { return data_ + count_; }

  /// The whole buffer as a row-major array: `x.as(T, H)`.
  template <class... Extent> [[nodiscard]] auto as(Extent... extent) noexcept {
    return view<T, static_cast<int>(sizeof...(Extent))>(data_,
                                                        {{static_cast<offset_t>(extent)...}});
  }
  template <class... Extent> [[nodiscard]] auto as(Extent... extent) const noexcept {
    return view<T const, static_cast<int>(sizeof...(Extent))>(data_,
                                                              {{static_cast<offset_t>(extent)...}});
  }

 private:
  std::byte* base_ = nullptr;
  std::size_t mapped_ = 0;
  T* data_ = nullptr;
  std::size_t count_ = 0;
};

/// True when both hold the same bytes: what "bitwise equal" means in every test.
template <class A, class B> [[nodiscard]] bool same_bits(A const& a, B const& b) noexcept {
  static_assert(std::is_same_v<typename A::value_type, typename B::value_type>);
  return a.size() == b.size() &&
         (a.size() == 0 ||
          std::memcmp(static_cast<void const*>(a.data()), static_cast<void const*>(b.data()),
                      a.size() * sizeof(typename A::value_type)) == 0);
}

}  // namespace shunt::test
