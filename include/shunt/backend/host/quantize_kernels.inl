// No include guard: quantized weights back to rows of floats, by the decoders of the products.

/// Panel `panel` of an expert to the caller's rows of floats, `to_stride` apart.
template <class F>
void decode_rows(gemm_experts<void const> const& from, std::int64_t N, std::int64_t K,
                 std::int64_t expert, std::int64_t panel, float* to,
                 std::int64_t to_stride) noexcept {
  std::int64_t const half = from.pairs.half_rows, most = half != 0 ? half : N;
  std::int64_t const half_panels = (most + panel_columns - 1) / panel_columns;
  bool const up = panel >= half_panels;
  std::int64_t const first = (up ? panel - half_panels : panel) * panel_columns;
  unsigned char const* const at =
      expert_of<unsigned char const>(from, expert) + panel * decoder<F>::panel_bytes(K);
  alignas(64) float block[gemm_depth * panel_columns];
  for (std::int64_t k = 0; k < K; k += gemm_depth) {
    std::int64_t const depth = K - k < gemm_depth ? K - k : gemm_depth;
    decode_panel<F>(at, k, depth, block);
    for (std::int64_t j = 0; j < panel_columns && first + j < most; ++j) {
      std::int64_t const n = physical_row(from.pairs, (up ? half : 0) + first + j);
      for (std::int64_t i = 0; i < depth; ++i) {
        to[n * to_stride + k + i] = block[i * panel_columns + j];
      }
    }
  }
}
