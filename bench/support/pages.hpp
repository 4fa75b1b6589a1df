#pragma once
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <shunt/backend/host/pages.hpp>
#include <vector>

namespace bench {

/// Memory for gigabytes: huge pages where the system gives them, whoever computes with it.
template <class T> struct huge_pages : std::allocator<T> {
  template <class U> struct rebind {
    using other = huge_pages<U>;
  };
  T* allocate(std::size_t count) {
    constexpr std::size_t page = std::size_t{2} << 20;
    std::size_t const bytes = (count * sizeof(T) + page - 1) / page * page;
    void* const data = std::aligned_alloc(page, bytes);
    if (data == nullptr) throw std::bad_alloc();
    shunt::advise_huge_pages(data, bytes);
    return static_cast<T*>(data);
  }
  void deallocate(T* data, std::size_t) noexcept { std::free(data); }
};
template <class T> using paged = std::vector<T, huge_pages<T>>;

}  // namespace bench
