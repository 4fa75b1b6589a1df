#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>

#include "shunt/core/shape.hpp"
#include "shunt/core/status.hpp"

namespace shunt {

/// Scratch bytes of the caller, carved by the callee. The same code carves and measures: an
/// arena without memory (`arena<S>::measuring()`) hands out null pointers and counts, so the size
/// asked for and the size used cannot disagree. Each piece starts on 64 bytes of the address.
///   auto work = shunt::arena<>::measuring();  carve(work);  std::vector<std::byte> bytes(work.needed());
template <space S = space::host> class arena {
 public:
  static constexpr space memory = S;  ///< which memory its pieces are in
  /// Bytes that the address of each piece is a multiple of.
  static constexpr std::size_t alignment = 64;

  constexpr arena() noexcept = default;  ///< no memory: every take fails
  /// `size` bytes, of any alignment.
  constexpr arena(void* bytes, std::size_t size) noexcept
      : base_(static_cast<std::byte*>(bytes)), size_(size) {}
  /// From any contiguous container of bytes.
  template <class C>
    requires requires(C& c) {
      c.data();
      sizeof(typename C::value_type) == 1;
    }
  constexpr arena(C& bytes) noexcept : arena(bytes.data(), bytes.size()) {}

  /// An arena that only counts.
  [[nodiscard]] static constexpr arena measuring() noexcept {
    arena a;
    a.measuring_ = true;
    return a;
  }

  /// `count` elements of T, or null when measuring, when the memory does not suffice (`fits()` then
  /// turns false) and when count is 0. The elements are not initialized.
  template <class T> T* take(offset_t count) noexcept {
    if (count <= 0) return nullptr;
    std::size_t const most = std::numeric_limits<std::size_t>::max() / 4 / sizeof(T);
    std::size_t const bytes = static_cast<std::size_t>(count) > most
                                  ? most * sizeof(T)
                                  : static_cast<std::size_t>(count) * sizeof(T);
    // Counted as if the memory began just after an aligned address: enough for any start.
    needed_ += (bytes + alignment - 1) / alignment * alignment;
    if (measuring_ || base_ == nullptr) return nullptr;
    std::size_t const start =
        (reinterpret_cast<std::uintptr_t>(base_ + used_) + alignment - 1) / alignment * alignment -
        reinterpret_cast<std::uintptr_t>(base_);
    if (start > size_ || bytes > size_ - start) {
      overflow_ = true;
      return nullptr;
    }
    used_ = start + bytes;
    return reinterpret_cast<T*>(base_ + start);
  }

  /// Bytes that everything taken so far needs, wherever the memory starts.
  [[nodiscard]] constexpr std::size_t needed() const noexcept {
    return needed_ == 0 ? 0 : needed_ + alignment;
  }
  [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }  ///< bytes given
  /// Whether it only counts.
  [[nodiscard]] constexpr bool is_measuring() const noexcept { return measuring_; }
  /// Whether all that was taken fitted.
  [[nodiscard]] constexpr bool fits() const noexcept {
    return measuring_ || (!overflow_ && (base_ != nullptr || needed_ == 0));
  }

  /// Ok, or a sentence with both sizes: ask after carving, before the first write.
  [[nodiscard]] status check(char const* who) const noexcept {
    if (fits()) return {};
    return status::fail(error::arena_too_small,
                        "%s: the arena has %zu bytes; it must have %zu (ask an arena that is "
                        "measuring)",
                        who, size_, needed());
  }

 private:
  std::byte* base_ = nullptr;
  std::size_t size_ = 0, used_ = 0, needed_ = 0;
  bool measuring_ = false, overflow_ = false;
};

}  // namespace shunt
