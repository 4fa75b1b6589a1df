#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <new>

#include "shunt/core/view.hpp"

namespace shunt::test {

/// Address space for `count` elements of which few are ever touched: what lies between costs no
/// memory and reads as zero. For arrays past 2^31 elements and for strides of that size.
template <class T> class sparse {
 public:
  explicit sparse(offset_t count) : bytes_(static_cast<std::size_t>(count) * sizeof(T)) {
    void* const at = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    madvise(at, bytes_, MADV_NOHUGEPAGE);
    data_ = static_cast<T*>(at);
  }
  sparse(sparse const&) = delete;
  ~sparse() { munmap(data_, bytes_); }

  [[nodiscard]] T* data() const noexcept { return data_; }

  /// A matrix whose rows lie `stride` elements apart.
  [[nodiscard]] view<T, 2> rows(offset_t count, offset_t width, offset_t stride) const noexcept {
    return {data_, {{count, width}}, {{stride, 1}}};
  }

 private:
  std::size_t bytes_;
  T* data_ = nullptr;
};

}  // namespace shunt::test
