#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "layer_tensors.hpp"
#include "stored_matrix.hpp"

namespace checkpoint {

/// Whether there is a matrix `base` under any of its names.
[[nodiscard]] inline bool has_matrix(layer_tensors const& t, std::string const& base) {
  return t.has(base + ".weight") || t.has(base + ".qweight") || t.has(base + ".weight_packed");
}

namespace detail {

[[nodiscard]] inline std::string in_quotes(tensor const& t) { return "tensor " + quotable(t.name); }

inline void must_be(layer_tensors const& tensors, tensor const& t, std::string_view kind) {
  if (t.kind == kind) return;
  tensors.refuse(in_quotes(t) + " is " + quotable(t.kind) + "; it must be " + std::string(kind));
}
inline void must_be_scales(layer_tensors const& tensors, tensor const& t) {
  if (layer_tensors::plain(t)) return;
  tensors.refuse(in_quotes(t) + " is " + quotable(t.kind) + "; it must be F32, BF16 or F16");
}
/// Rows and columns must be whole words of eight.
inline void whole_words(layer_tensors const& tensors, tensor const& t, std::uint64_t n,
                        char const* what) {
  if (n % 8 == 0) return;
  tensors.refuse(in_quotes(t) + " has words of eight " + what + ", but there are " +
                 std::to_string(n));
}

/// Columns in order: a group is a run of columns.
inline void in_order(layer_tensors const& tensors, stored_matrix& m, std::string const& name) {
  if (!tensors.has(name)) return;
  tensor const& groups = tensors.need(name, {m.columns});
  must_be(tensors, groups, "I32");
  for (std::uint64_t k = 0; k < m.columns; ++k) {
    auto const is = number_at<std::int32_t>(groups.data, k);
    if (is == static_cast<std::int64_t>(k / m.block_columns)) continue;
    tensors.refuse(in_quotes(groups) + " puts column " + std::to_string(k) + " into group " +
                   std::to_string(is) + "; only columns in order are known here");
  }
  m.also.push_back(&groups);
}

/// The number that a tensor of one element holds.
[[nodiscard]] inline float only_number(layer_tensors const& tensors, tensor const& t) {
  must_be(tensors, t, "F32");
  if (t.bytes != sizeof(float)) {
    tensors.refuse(in_quotes(t) + " has shape " + shape_text(t.shape) + "; it must be one number");
  }
  return number_at<float>(t.data, 0);
}

/// GPTQ's and AWQ's qweight, qzeros, scales.
[[nodiscard]] inline stored_matrix words_of_columns(layer_tensors const& tensors,
                                                    quantization const& q, std::string const& base,
                                                    std::uint64_t rows, std::uint64_t columns) {
  bool const awq = q.by == quantization::kind::awq;
  stored_matrix m{.rows = rows, .columns = columns};
  m.block_columns = q.group == 0 ? columns : q.group;
  m.integers = awq ? stored_matrix::words::awq : stored_matrix::words::gptq;
  m.zero_less = q.zero_less;
  std::uint64_t const groups = blocks_of(columns, m.block_columns);
  tensor const& values = tensors.any(base + ".qweight");
  whole_words(tensors, values, rows, "rows");
  if (!awq) whole_words(tensors, values, columns, "columns");
  m.values = awq ? &tensors.need(base + ".qweight", {columns, rows / 8})
                 : &tensors.need(base + ".qweight", {columns / 8, rows});
  m.zeros = &tensors.need(base + ".qzeros", {groups, rows / 8});
  m.scales = &tensors.need(base + ".scales", {groups, rows});
  must_be(tensors, *m.values, "I32");
  must_be(tensors, *m.zeros, "I32");
  must_be_scales(tensors, *m.scales);
  in_order(tensors, m, base + ".g_idx");
  return m;
}

/// Integers of compressed-tensors: weight_packed, weight_scale, weight_shape, perhaps zero points.
[[nodiscard]] inline stored_matrix words_of_rows(layer_tensors const& tensors,
                                                 quantization const& q, std::string const& base,
                                                 std::uint64_t rows, std::uint64_t columns) {
  stored_matrix m{.rows = rows, .columns = columns};
  m.block_columns = q.group == 0 ? columns : q.group;
  m.integers = stored_matrix::words::rows;
  std::uint64_t const groups = blocks_of(columns, m.block_columns);
  whole_words(tensors, tensors.any(base + ".weight_packed"), columns, "columns");
  m.values = &tensors.need(base + ".weight_packed", {rows, columns / 8});
  m.scales = &tensors.need(base + ".weight_scale", {rows, groups});
  must_be(tensors, *m.values, "I32");
  must_be_scales(tensors, *m.scales);
  if (tensors.has(base + ".weight_zero_point")) {
    m.zeros = &tensors.need(base + ".weight_zero_point", {blocks_of(rows, 8), groups});
    must_be(tensors, *m.zeros, "I32");
  }
  if (tensors.has(base + ".weight_shape")) {
    tensor const& shape = tensors.need(base + ".weight_shape", {2});
    bool const wide = shape.kind == "I64";
    if (!wide) must_be(tensors, shape, "I32");
    for (std::uint64_t i = 0; i < 2; ++i) {
      std::int64_t const is =
          wide ? number_at<std::int64_t>(shape.data, i) : number_at<std::int32_t>(shape.data, i);
      if (is == static_cast<std::int64_t>(i == 0 ? rows : columns)) continue;
      tensors.refuse(in_quotes(shape) + " says " + std::to_string(is) + " " +
                     (i == 0 ? "rows; they must be " : "columns; they must be ") +
                     std::to_string(i == 0 ? rows : columns));
    }
    m.also.push_back(&shape);
  }
  in_order(tensors, m, base + ".weight_g_idx");
  return m;
}

/// Modelopt's weight, weight_scale, weight_scale_2; or compressed-tensors' weight_packed, weight_scale,
/// weight_global_scale, which is what scales are divided by. What rows would be rounded with is not
/// used: they are kept.
[[nodiscard]] inline stored_matrix nvfp4_of(layer_tensors const& tensors, std::string const& base,
                                            std::uint64_t rows, std::uint64_t columns) {
  stored_matrix m{.rows = rows, .columns = columns};
  bool const divides = tensors.has(base + ".weight_packed");
  std::string const name = base + (divides ? ".weight_packed" : ".weight");
  if (columns % 16 != 0) {
    tensors.refuse(in_quotes(tensors.any(name)) + " is in groups of 16, but a row has " +
                   std::to_string(columns) + " numbers");
  }
  m.values = &tensors.need(name, {rows, columns / 2});
  m.scales = &tensors.need(base + ".weight_scale", {rows, columns / 16});
  must_be(tensors, *m.values, "U8");
  must_be(tensors, *m.scales, "F8_E4M3");
  tensor const& all = tensors.any(base + (divides ? ".weight_global_scale" : ".weight_scale_2"));
  float const number = only_number(tensors, all);
  m.of_tensor = divides ? 1.0f / number : number;
  m.also.push_back(&all);
  for (char const* rest : {".input_scale", ".input_global_scale"}) {
    if (tensors.has(base + rest)) m.also.push_back(&tensors.any(base + rest));
  }
  m.block_columns = 16;
  m.packed = true;
  return m;
}

[[nodiscard]] inline bool is_nvfp4(layer_tensors const& tensors, std::string const& base) {
  return tensors.has(base + ".weight_scale_2") || tensors.has(base + ".weight_global_scale");
}

}  // namespace detail

/// The matrix [rows,columns] `base`, in whatever form.
[[nodiscard]] inline stored_matrix matrix_of(layer_tensors const& tensors, quantization const& q,
                                             std::string const& base, std::uint64_t rows,
                                             std::uint64_t columns) {
  using kind = quantization::kind;
  if ((q.by == kind::gptq || q.by == kind::awq) && tensors.has(base + ".qweight")) {
    return detail::words_of_columns(tensors, q, base, rows, columns);
  }
  if ((q.by == kind::modelopt || q.by == kind::compressed_tensors) &&
      detail::is_nvfp4(tensors, base)) {
    return detail::nvfp4_of(tensors, base, rows, columns);
  }
  if (q.by == kind::compressed_tensors && tensors.has(base + ".weight_packed")) {
    return detail::words_of_rows(tensors, q, base, rows, columns);
  }
  return tensors.matrix(base, rows, columns);
}

}  // namespace checkpoint
