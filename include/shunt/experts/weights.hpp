#pragma once
#include <concepts>
#include <cstdint>
#include <type_traits>

#include "shunt/core/check.hpp"
#include "shunt/core/concepts.hpp"
#include "shunt/core/view.hpp"
#include "shunt/experts/element_type.hpp"

namespace shunt {

/// Which half of a gated expert's first matrix comes first: gate_up the gate half, up_gate the linear one.
enum class pair_order : std::uint8_t { gate_up, up_gate };

/// How the 2I rows of a gated first matrix lie: the halves one behind the other (block 0), or in
/// turn, `block` rows at a time (1: gate, up, gate, up, ...). I need not be a multiple of the block.
struct pair_layout {
  pair_order order = pair_order::gate_up;  ///< which half comes first
  index_t block = 0;                       ///< rows of one half before the other's turn; 0: all
};

/// E matrices of N rows and K columns, where and how the caller keeps them: W[e][n][k]. A handle,
/// trivially copyable, owns nothing. Element: const for weights (`expert_matrix`), float for weight
/// gradients (`expert_gradient`). Where the rows are pairs, every primitive sees them in the order
/// gate 0..I-1, up 0..I-1, wherever they lie: pre-activations [R, 2I] and their gradients are in that
/// order.
template <class Element, space S = space::host> class basic_expert_matrix {
 public:
  using element_type = Element;                     ///< const for weights
  using value_type = std::remove_const_t<Element>;  ///< without const
  static constexpr space memory = S;                ///< where the pointers lead

  constexpr basic_expert_matrix() noexcept = default;

  /// From [E,N,K] with any strides; [E,K,N] is [E,N,K] with the last two strides exchanged. Quantized
  /// weights are packed always.
  template <class V>
    requires(storage<value_type> && std::constructible_from<view<Element, 3, S>, V&>)
  constexpr basic_expert_matrix(V&& weights) noexcept {
    view<Element, 3, S> const w(weights);
    data_ = w.data();
    extents_ = w.extents();
    strides_ = w.strides();
  }
  /// The same, of rows in pairs.
  template <class V>
    requires(storage<value_type> && std::constructible_from<view<Element, 3, S>, V&>)
  constexpr basic_expert_matrix(V&& weights, pair_layout pairs) noexcept
      : basic_expert_matrix(weights) {
    set_pairs(pairs);
  }

  /// One pointer per expert, each to N rows of K, `row_stride` elements apart (0: K). A null pointer
  /// is legal for an expert without rows.
  static constexpr basic_expert_matrix each(view<Element* const, 1, S> pointers, offset_t rows,
                                            offset_t columns, offset_t row_stride = 0) noexcept
    requires storage<value_type>
  {
    basic_expert_matrix m;
    m.each_ = pointers.data();
    m.extents_ = {{pointers.extent(0), rows, columns}};
    m.strides_ = {{0, row_stride == 0 ? columns : row_stride, 1}};
    return m;
  }
  /// The same, of rows in pairs.
  static constexpr basic_expert_matrix each(view<Element* const, 1, S> pointers, offset_t rows,
                                            offset_t columns, pair_layout pairs,
                                            offset_t row_stride = 0) noexcept
    requires storage<value_type>
  {
    basic_expert_matrix m = each(pointers, rows, columns, row_stride);
    m.set_pairs(pairs);
    return m;
  }
  /// A gated first matrix whose halves lie apart: two pointers per expert, to `half_rows` rows of gate
  /// and as many of up. For all else it is pairs, as if each up half stood behind its gate half.
  static constexpr basic_expert_matrix each(view<Element* const, 1, S> gates,
                                            view<Element* const, 1, S> ups, offset_t half_rows,
                                            offset_t columns, offset_t row_stride = 0) noexcept
    requires storage<value_type>
  {
    basic_expert_matrix m = each(gates, 2 * half_rows, columns, pair_layout{}, row_stride);
    m.each_second_ = ups.data();
    m.missing_ = gates.extent(0) - ups.extent(0);
    m.apart_ = true;
    return m;
  }

  /// What pack_weights (or quantize_weights) made of [E,N,K] without pairs: packed_elements() of
  /// Element. data may be null, to ask for their number.
  static constexpr basic_expert_matrix packed(Element* data, offset_t experts, offset_t rows,
                                              offset_t columns) noexcept {
    basic_expert_matrix m;
    m.data_ = data;
    m.extents_ = {{experts, rows, columns}};
    m.packed_ = true;
    m.strides_ = {{m.packed_panels() * m.panel_elements(), 0, 0}};
    return m;
  }
  /// What pack_weights made of rows in pairs that lay as `pairs` says: biases still lie so.
  static constexpr basic_expert_matrix packed(Element* data, offset_t experts, offset_t rows,
                                              offset_t columns, pair_layout pairs) noexcept {
    basic_expert_matrix m = packed(data, experts, rows, columns);
    m.set_pairs(pairs);
    m.strides_ = {{m.packed_panels() * m.panel_elements(), 0, 0}};
    return m;
  }

  [[nodiscard]] constexpr Element* data() const noexcept { return data_; }  ///< null: pointers()
  [[nodiscard]] constexpr Element* const* pointers() const noexcept { return each_; }  ///< or null
  /// Of the second half of each expert's rows, where the halves lie apart; else null.
  [[nodiscard]] constexpr Element* const* second_pointers() const noexcept { return each_second_; }
  /// Whether each expert has two pointers.
  [[nodiscard]] constexpr bool halves_apart() const noexcept { return apart_; }
  /// How many pointers there are to second halves.
  [[nodiscard]] constexpr offset_t second_halves() const noexcept {
    return apart_ ? extents_[0] - missing_ : 0;
  }
  [[nodiscard]] constexpr offset_t experts() const noexcept { return extents_[0]; }  ///< E
  [[nodiscard]] constexpr offset_t rows() const noexcept { return extents_[1]; }     ///< N
  [[nodiscard]] constexpr offset_t columns() const noexcept { return extents_[2]; }  ///< K
  /// The stride of axis d, in elements.
  [[nodiscard]] constexpr offset_t stride(int d) const noexcept {
    return strides_[static_cast<std::size_t>(d)];
  }
  [[nodiscard]] constexpr bool is_packed() const noexcept { return packed_; }  ///< made by packed()
  [[nodiscard]] constexpr bool has_pairs() const noexcept { return paired_; }  ///< gate and up rows
  /// How the pairs lie.
  [[nodiscard]] constexpr pair_layout pairs() const noexcept { return pairs_; }
  /// Whether there are weights.
  [[nodiscard]] constexpr explicit operator bool() const noexcept {
    return data_ != nullptr || each_ != nullptr;
  }
  /// Where row n of expert e begins, n counted as the caller's rows lie; not of packed weights.
  [[nodiscard]] constexpr Element* row(offset_t e, offset_t n) const noexcept
    requires(S == space::host && storage<value_type>)
  {
    offset_t const half = extents_[1] / 2;
    if (apart_ && n >= half) return each_second_[e] + (n - half) * strides_[1];
    return (each_ != nullptr ? each_[e] : data_ + e * strides_[0]) + n * strides_[1];
  }
  /// The same weights, their rows taken for pairs.
  [[nodiscard]] constexpr basic_expert_matrix in_pairs(pair_layout pairs = {}) const noexcept {
    basic_expert_matrix m = *this;
    m.set_pairs(pairs);
    return m;
  }
  /// Experts [first, first + count).
  [[nodiscard]] constexpr basic_expert_matrix slice(offset_t first, offset_t count) const noexcept {
    basic_expert_matrix m = *this;
    if (each_ != nullptr) m.each_ += first;
    if (each_second_ != nullptr) m.each_second_ += first;
    if (data_ != nullptr) m.data_ += first * strides_[0];
    m.extents_[0] = count;
    return m;
  }

  static constexpr offset_t panel = 16;  ///< rows that a packed panel interleaves
  /// Panels of one expert; the last of each half may be partly zeros.
  [[nodiscard]] constexpr offset_t packed_panels() const noexcept {
    return paired_ ? 2 * ((rows() / 2 + panel - 1) / panel) : (rows() + panel - 1) / panel;
  }
  /// Elements of one panel, and of the whole packed form; bytes where the weights are quantized.
  [[nodiscard]] constexpr offset_t panel_elements() const noexcept {
    if constexpr (quantized<value_type>) {
      return detail::panel_bytes<value_type>(columns());
    } else {
      return panel * columns();
    }
  }
  /// The size of `data` in packed(), all experts together.
  [[nodiscard]] constexpr offset_t packed_elements() const noexcept {
    return experts() * packed_panels() * panel_elements();
  }

 private:
  constexpr void set_pairs(pair_layout pairs) noexcept {
    paired_ = true;
    pairs_ = pairs;
  }

  Element* data_ = nullptr;
  Element* const* each_ = nullptr;
  Element* const* each_second_ = nullptr;
  axes<3> extents_{}, strides_{};
  offset_t missing_ = 0;  ///< pointers to second halves that are fewer than the experts
  pair_layout pairs_{};
  bool paired_ = false, packed_ = false, apart_ = false;
};

/// Weights of type T.
template <weight_format T, space S = space::host>
using expert_matrix = basic_expert_matrix<T const, S>;
/// Where weight gradients go: always float.
template <space S = space::host> using expert_gradient = basic_expert_matrix<float, S>;

/// Whatever names weights: an expert_matrix, or anything a view<T const, 3> can be made from.
template <class W, class P>
concept expert_weights =
    execution<P> &&
    (std::same_as<std::remove_cvref_t<W>,
                  expert_matrix<typename std::remove_cvref_t<W>::value_type, P::memory>> ||
     input<W, P, 3>);

/// The handle of any argument that names weights.
template <class P, class W>
  requires expert_weights<W, P>
[[nodiscard]] constexpr auto as_experts(W const& weights) noexcept {
  return expert_matrix<typename W::value_type, P::memory>(weights);
}

/// E vectors of N numbers of any storage type: biases. From [E,N], or one pointer per expert.
template <space S = space::host> class expert_vector {
 public:
  constexpr expert_vector() noexcept = default;
  /// From [E,N] with any strides.
  template <class V>
    requires(storage<element_t<V>> && std::constructible_from<view<element_t<V> const, 2, S>, V&>)
  constexpr expert_vector(V&& v) noexcept : type_(element_type_of<element_t<V>>) {
    view<element_t<V> const, 2, S> const b(v);
    data_ = b.data();
    extents_ = b.extents();
    strides_ = b.strides();
  }
  /// One pointer per expert, each to `rows` numbers.
  template <storage T>
  static expert_vector each(view<T const* const, 1, S> pointers, offset_t rows) noexcept {
    expert_vector v;
    v.each_ = reinterpret_cast<void const* const*>(pointers.data());
    v.extents_ = {{pointers.extent(0), rows}};
    v.strides_ = {{0, 1}};
    v.type_ = element_type_of<T>;
    return v;
  }

  [[nodiscard]] constexpr void const* data() const noexcept { return data_; }  ///< null: pointers()
  /// One pointer per expert, or null.
  [[nodiscard]] constexpr void const* const* pointers() const noexcept { return each_; }
  [[nodiscard]] constexpr element_type type() const noexcept { return type_; }  ///< of the numbers
  [[nodiscard]] constexpr offset_t experts() const noexcept { return extents_[0]; }  ///< E
  [[nodiscard]] constexpr offset_t rows() const noexcept { return extents_[1]; }     ///< N
  /// Of axis d, in elements.
  [[nodiscard]] constexpr offset_t stride(int d) const noexcept {
    return strides_[static_cast<std::size_t>(d)];
  }
  /// Whether there are numbers.
  [[nodiscard]] constexpr explicit operator bool() const noexcept {
    return data_ != nullptr || each_ != nullptr;
  }

 private:
  void const* data_ = nullptr;
  void const* const* each_ = nullptr;
  axes<2> extents_{}, strides_{};
  element_type type_ = element_type::f32;
};

/// Rows [R,N] of any storage type that a primitive may write in addition to its main output.
template <space S = space::host> class matrix_out {
 public:
  constexpr matrix_out() noexcept = default;
  /// From [R,N] with rows of any stride.
  template <class V>
    requires(storage<element_t<V>> && std::constructible_from<view<element_t<V>, 2, S>, V&>)
  constexpr matrix_out(V&& v) noexcept : type_(element_type_of<element_t<V>>) {
    view<element_t<V>, 2, S> const rows(v);
    data_ = rows.data();
    extents_ = rows.extents();
    strides_ = rows.strides();
  }
  [[nodiscard]] constexpr void* data() const noexcept { return data_; }  ///< the first element
  [[nodiscard]] constexpr element_type type() const noexcept { return type_; }  ///< of the elements
  /// Of axis d.
  [[nodiscard]] constexpr offset_t extent(int d) const noexcept {
    return extents_[static_cast<std::size_t>(d)];
  }
  /// Of axis d, in elements.
  [[nodiscard]] constexpr offset_t stride(int d) const noexcept {
    return strides_[static_cast<std::size_t>(d)];
  }
  /// Whether it is wanted.
  [[nodiscard]] constexpr explicit operator bool() const noexcept { return data_ != nullptr; }

 private:
  void* data_ = nullptr;
  axes<2> extents_{}, strides_{};
  element_type type_ = element_type::f32;
};

}  // namespace shunt
