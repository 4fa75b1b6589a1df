#pragma once
#include "shunt/core/compiler.hpp"

#include <concepts>
#include <cstddef>
#include <type_traits>

#include "shunt/core/macros.hpp"
#include "shunt/core/shape.hpp"

namespace shunt {

/// N numbers, one an axis; like std::array, but its members may be called on a device too.
template <int N> struct axes {
  offset_t at[N > 0 ? N : 1];  ///< the numbers, first axis first
  SHUNT_HD constexpr offset_t& operator[](std::size_t d) noexcept { return at[d]; }  ///< of axis d
  /// of axis d
  SHUNT_HD constexpr offset_t operator[](std::size_t d) const noexcept { return at[d]; }
  friend constexpr bool operator==(axes const&, axes const&) = default;
};

/// Pointer, extents and strides (in elements): what every primitive takes. Trivially copyable, owns
/// nothing. Made from a pointer and extents (row-major), with strides, from any
/// mdspan-like object, or, at rank 1, from any contiguous container of host memory.
template <class T, int Rank, space S = space::host> class view {
  static_assert(Rank >= 1 && Rank <= 5, "shunt::view: rank must be 1 to 5");

 public:
  using element_type = T;                  ///< const where the memory is only read
  using value_type = std::remove_cv_t<T>;  ///< without const
  using extents_type = axes<Rank>;         ///< one number an axis
  static constexpr space memory = S;       ///< where the pointer leads
  [[nodiscard]] static constexpr int rank() noexcept { return Rank; }  ///< number of axes

  constexpr view() noexcept = default;

  /// Row-major, without gaps.
  constexpr view(T* data, extents_type extents) noexcept : data_(data), extents_(extents) {
    offset_t stride = 1;
    for (std::size_t d = Rank; d-- > 0;) {
      strides_[d] = stride;
      stride *= extents[d];
    }
  }

  /// The same from one number an axis: view(p, T, H).
  template <std::integral... N>
    requires(sizeof...(N) == static_cast<std::size_t>(Rank))
  constexpr view(T* data, N... extents) noexcept
      : view(data, extents_type{{static_cast<offset_t>(extents)...}}) {}

  /// With strides, in elements.
  constexpr view(T* data, extents_type extents, extents_type strides) noexcept
      : data_(data), extents_(extents), strides_(strides) {}

  /// A view of const elements from one of mutable ones.
  template <class U>
    requires(!std::same_as<U, T> && std::is_convertible_v<U (*)[], T (*)[]>)
  constexpr view(view<U, Rank, S> other) noexcept
      : data_(other.data()), extents_(other.extents()), strides_(other.strides()) {}

  /// From std::mdspan, cuda::std::mdspan, Kokkos' or raft's: data_handle(), extent(d), stride(d).
  template <class M>
    requires(M::rank() == static_cast<std::size_t>(Rank) &&
             requires(M const& m) {
               { m.data_handle() } -> std::convertible_to<T*>;
               m.extent(0);
               m.stride(0);
             })
  constexpr view(M const& m) noexcept : data_(m.data_handle()) {
    for (std::size_t d = 0; d < Rank; ++d) {
      extents_[d] = static_cast<offset_t>(m.extent(d));
      strides_[d] = static_cast<offset_t>(m.stride(d));
    }
  }

  /// From std::vector, std::array, std::span: rank 1 and host memory only.
  template <class C>
    requires(
                Rank == 1 && S == space::host && !requires { C::rank(); } &&
                requires(C& c) {
                  { c.data() } -> std::convertible_to<T*>;
                  { c.size() } -> std::convertible_to<std::size_t>;
                })
  constexpr view(C& c) noexcept
      : data_(c.data()), extents_{{static_cast<offset_t>(c.size())}}, strides_{{1}} {}

  /// The first element.
  [[nodiscard]] SHUNT_HD constexpr T* data() const noexcept { return data_; }
  /// The extents of all axes.
  [[nodiscard]] constexpr extents_type const& extents() const noexcept { return extents_; }
  /// The strides of all axes, in elements.
  [[nodiscard]] constexpr extents_type const& strides() const noexcept { return strides_; }
  /// The extent of axis d.
  [[nodiscard]] SHUNT_HD constexpr offset_t extent(int d) const noexcept {
    return extents_[static_cast<std::size_t>(d)];
  }
  /// The stride of axis d, in elements.
  [[nodiscard]] SHUNT_HD constexpr offset_t stride(int d) const noexcept {
    return strides_[static_cast<std::size_t>(d)];
  }
  /// Elements, gaps not counted.
  [[nodiscard]] constexpr offset_t size() const noexcept {
    offset_t n = 1;
    for (std::size_t d = 0; d < Rank; ++d) n *= extents_[d];
    return n;
  }
  [[nodiscard]] constexpr bool empty() const noexcept { return size() == 0; }  ///< some extent is 0
  /// True where the optional argument was given.
  [[nodiscard]] SHUNT_HD constexpr explicit operator bool() const noexcept {
    return data_ != nullptr;
  }

  /// The element at these indices, one an axis; not checked.
  template <class... Index>
    requires(sizeof...(Index) == static_cast<std::size_t>(Rank))
  [[nodiscard]] SHUNT_HD constexpr T& operator()(Index... index) const noexcept {
    offset_t at = 0;
    int d = 0;
    ((at += static_cast<offset_t>(index) * stride(d++)), ...);
    return data_[at];
  }
  /// The element at index i; not checked.
  [[nodiscard]] SHUNT_HD constexpr T& operator[](offset_t i) const noexcept
    requires(Rank == 1)
  {
    return data_[i * stride(0)];
  }

  /// The view of rank one less at index i of the first axis.
  [[nodiscard]] constexpr auto operator[](offset_t i) const noexcept
    requires(Rank > 1)
  {
    axes<Rank - 1> extents{}, strides{};
    for (std::size_t d = 1; d < Rank; ++d) {
      extents[d - 1] = extents_[d];
      strides[d - 1] = strides_[d];
    }
    return view<T, Rank - 1, S>(data_ + i * strides_[0], extents, strides);
  }

  /// Entries [first, first + count) of the first axis.
  [[nodiscard]] constexpr view slice(offset_t first, offset_t count) const noexcept {
    extents_type extents = extents_;
    extents[0] = count;
    return view(data_ + first * strides_[0], extents, strides_);
  }

  /// True when the last axis is contiguous: what every primitive asks of its rows.
  [[nodiscard]] constexpr bool rows_contiguous() const noexcept {
    return strides_[Rank - 1] == 1 || extents_[Rank - 1] <= 1;
  }

 private:
  T* data_ = nullptr;
  extents_type extents_{};
  extents_type strides_{};
};

/// view(p, T, H): a row-major view<..., 2> of host memory.
template <class T, std::integral... N> view(T*, N...) -> view<T, static_cast<int>(sizeof...(N))>;

/// The same of device memory.
template <class T, std::integral... N>
[[nodiscard]] constexpr auto device_view(T* data, N... extents) noexcept {
  return view<T, static_cast<int>(sizeof...(N)), space::device>(data, extents...);
}

}  // namespace shunt
