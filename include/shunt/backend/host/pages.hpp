#pragma once
#include <cstddef>
#include <cstdint>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace shunt {

/// Asks for huge pages under [data, data + bytes): weights that are streamed then miss no page tables.
/// Asked before the memory is first written it costs nothing; of memory in use the kernel moves what it
/// likes, later. Parts of 2 MB pages at both ends are left out. Changes no content; a kernel that says
/// no is not an error. pack_weights asks it for its output.
inline void advise_huge_pages(void* data, std::size_t bytes) noexcept {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t page = std::uintptr_t{2} << 20;
  std::uintptr_t const at = reinterpret_cast<std::uintptr_t>(data);
  std::uintptr_t const first = (at + page - 1) / page * page, last = (at + bytes) / page * page;
  if (first < last) {
    (void)madvise(static_cast<char*>(data) + (first - at), last - first, MADV_HUGEPAGE);
  }
#else
  (void)data;
  (void)bytes;
#endif
}

}  // namespace shunt
