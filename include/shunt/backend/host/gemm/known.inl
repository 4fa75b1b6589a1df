// No include guard: element types of a product, where its job knows them while it is compiled.

/// with_element_type(type, body), where the type is known to be Known: that one alone.
template <class Known, class Body>
SHUNT_INLINE void with_known(element_type type, Body&& body) noexcept {
  if constexpr (std::is_void_v<Known>) {
    with_element_type(type, body);
  } else {
    body(static_cast<Known const*>(nullptr));
  }
}
/// The same of the formats of quantized weights.
template <class Known, class Body>
SHUNT_INLINE void with_known_format(element_type type, Body&& body) noexcept {
  if constexpr (std::is_void_v<Known>) {
    with_format(type, body);
  } else if constexpr (quantized<Known>) {
    body(static_cast<Known const*>(nullptr));
  }
}
/// What the tiles of a job read their right operand from: weights, or rows.
template <class Job, class Body>
SHUNT_INLINE void with_right(Job const& job, Body&& body) noexcept {
  with_known<typename gemm_known<Job>::right>(is<gemm_kind::wgrad>(job) ? job.b.type : job.w.type,
                                              body);
}
