// No include guard: where the elements of a product's operands lie. Compiled once in each instruction-set
// region and once for devices: SHUNT_ADDRESSING says what these functions are.

/// Calls body with a null T const* whose T is what `type` says, of the storage types.
template <class Body>
SHUNT_ADDRESSING void with_element_type(element_type type, Body&& body) noexcept {
  switch (type) {
    case element_type::f32: body(static_cast<float const*>(nullptr)); break;
    case element_type::bf16: body(static_cast<bf16 const*>(nullptr)); break;
    case element_type::fp16: body(static_cast<fp16 const*>(nullptr)); break;
    default: break;
  }
}
/// The same of the formats of quantized weights.
template <class Body> SHUNT_ADDRESSING void with_format(element_type type, Body&& body) noexcept {
  switch (type) {
    case element_type::int8_channel: body(static_cast<int8_channel const*>(nullptr)); break;
    case element_type::fp8_block: body(static_cast<fp8_block const*>(nullptr)); break;
    case element_type::mxfp4: body(static_cast<mxfp4 const*>(nullptr)); break;
    case element_type::nvfp4: body(static_cast<nvfp4 const*>(nullptr)); break;
    case element_type::int4_32: body(static_cast<int4_group<32> const*>(nullptr)); break;
    case element_type::int4_128: body(static_cast<int4_group<128> const*>(nullptr)); break;
    case element_type::int8_32: body(static_cast<int8_group<32> const*>(nullptr)); break;
    case element_type::int8_128: body(static_cast<int8_group<128> const*>(nullptr)); break;
    default: break;
  }
}
SHUNT_ADDRESSING bool is_format(element_type type) noexcept { return type > element_type::fp16; }

/// The place of row r, or null where it reads as zeros.
template <class T>
SHUNT_ADDRESSING T const* row_of(gemm_rows const& rows, std::int64_t r) noexcept {
  T const* const data = static_cast<T const*>(rows.data);
  if (rows.slot == nullptr) return data + r * rows.stride;
  index_t const slot = rows.slot[r];
  return slot < 0 ? nullptr : data + static_cast<std::int64_t>(slot / rows.top_k) * rows.stride;
}
SHUNT_ADDRESSING float scale_of(gemm_scale const& scale, std::int64_t r) noexcept {
  if (scale.factor == nullptr) return 1.0f;
  std::int64_t const at = scale.slot == nullptr ? r : scale.slot[r];
  return at < 0 ? 0.0f : scale.factor[at];
}

/// Where logical row n of a gated matrix lies among the caller's rows.
SHUNT_ADDRESSING std::int64_t physical_row(gemm_pairs const& pairs, std::int64_t n) noexcept {
  std::int64_t const half = pairs.half_rows;
  if (half == 0) return n;
  bool const up = n >= half;
  bool const second = up != pairs.up_first;
  std::int64_t const j = up ? n - half : n;
  if (pairs.block == 0) return second ? half + j : j;
  std::int64_t const start = j / pairs.block * pairs.block;
  std::int64_t const width = half - start < pairs.block ? half - start : pairs.block;
  return 2 * start + (second ? width : 0) + (j - start);
}

/// The first element of expert e. `size`: how many T an element is, where T is a byte.
template <class T, class Void>
SHUNT_ADDRESSING T* expert_of(gemm_experts<Void> const& w, std::int64_t e,
                              std::int64_t size = 1) noexcept {
  return w.each != nullptr ? static_cast<T*>(w.each[e])
                           : static_cast<T*>(w.data) + e * w.expert_stride * size;
}

/// Where logical row n of expert e begins, in every layout but the packed one.
template <class T, class Void>
SHUNT_ADDRESSING T* row_of(gemm_experts<Void> const& w, std::int64_t e, std::int64_t n,
                           std::int64_t size = 1) noexcept {
  std::int64_t const row = physical_row(w.pairs, n), half = w.pairs.half_rows;
  bool const apart = w.second != nullptr && row >= half;
  Void* const* const each = apart ? w.second : w.each;
  T* const first = each != nullptr ? static_cast<T*>(each[e])
                                   : static_cast<T*>(w.data) + e * w.expert_stride * size;
  return first + (apart ? row - half : row) * w.row_stride * size;
}

/// Panels of a packed matrix: each half of a gated one starts a panel of its own.
SHUNT_ADDRESSING std::int64_t packed_panel(gemm_pairs const& pairs, std::int64_t n) noexcept {
  std::int64_t const half = pairs.half_rows;
  if (half == 0 || n < half) return n / gemm_panel;
  return (half + gemm_panel - 1) / gemm_panel + (n - half) / gemm_panel;
}
SHUNT_ADDRESSING std::int64_t packed_lane(gemm_pairs const& pairs, std::int64_t n) noexcept {
  return (pairs.half_rows == 0 || n < pairs.half_rows ? n : n - pairs.half_rows) % gemm_panel;
}

/// Where pieces and panels of quantized weights lie.
template <class F> struct format_place {
  using packing = ::shunt::detail::packing<F>;
  static constexpr std::int64_t block = packing::block;
  /// Of the piece of k, in its panel.
  static SHUNT_ADDRESSING std::int64_t place(std::int64_t k) noexcept {
    return packing::head + k / block * packing::piece_bytes;
  }
  static SHUNT_ADDRESSING std::int64_t panel_bytes(std::int64_t K) noexcept {
    return place(K + block - 1);
  }
};
