// No include guard: forward products of two bf16 operands by dot products of pairs, for processors of
// isa::avx512_bf16. A pair is what two neighboring k hold: 32 bits, in the place of one float. So panels,
// tiles and the order of pieces are those of floats, half as deep.
struct by_dot {
  static SHUNT_INLINE void add(float const* at, vf b0, vf b1, vf& sum0, vf& sum1) noexcept {
    add_dots(at, b0, b1, sum0, sum1);
  }
};

/// Two rows of 16, k and k + 1, side by side: one behind the other in memory, or each in its place.
SHUNT_INLINE vf pair_rows(bf16 const* both) noexcept {
  constexpr __mmask32 all = 0xffffffff;
  vu const order = {0x100000, 0x110001, 0x120002, 0x130003, 0x140004, 0x150005, 0x160006, 0x170007,
                    0x180008, 0x190009, 0x1a000a, 0x1b000b, 0x1c000c, 0x1d000d, 0x1e000e, 0x1f000f};
  vu x;
  __builtin_memcpy(&x, both, sizeof x);
  return (vf)_mm512_maskz_permutexvar_epi16(all, (__m512i)order, (__m512i)x);
}
SHUNT_INLINE vf pair_rows(bf16 const* first, bf16 const* second) noexcept {
  return (vf)(as_bits(load(first)) >> 16 | as_bits(load(second)));
}

/// A type by name: tests/two_units finds the code of these dot products by it.
struct right_dots : right_ready<by_dot> {};
/// Packed panels as they lie, and a place for their pairs; see right_packed.
struct right_packed_dots {
  using sums = by_dot;
  static constexpr bool runs_across = false;
  static constexpr bool pairs = false;
  bf16 const* b;
  std::int64_t stride;
  float* keep;
  std::int64_t keep_stride, keep_row;
  template <int K, int V> SHUNT_INLINE vf get() const noexcept {
    vf const x = pair_rows(b + 2 * K * panel_columns + vector_at<V>(stride));
    store(keep + K * keep_row + vector_at<V>(keep_stride), x);
    return x;
  }
  SHUNT_INLINE void advance(int k) noexcept {
    b += 2 * k * panel_columns;
    keep += k * keep_row;
  }
};

/// Whether rows of the left operand are pairs where they lie: 32 bits begin at every even k.
SHUNT_INLINE bool pairs_in_place(gemm_rows const& rows, std::int64_t k) noexcept {
  return rows.slot == nullptr && rows.stride % 2 == 0 && k % 2 == 0 &&
         reinterpret_cast<std::uintptr_t>(rows.data) % sizeof(float) == 0;
}

/// Pairs [k, k + depth) of rows [row, row + rows) of the left operand: in place, or copied. Rows may be odd; the last
/// pair then holds a zero.
template <class Job>
void pack_a_bf16_dot(Job const& job, gemm_segment const& segment, std::int64_t row,
                     std::int64_t rows, std::int64_t k, std::int64_t depth, float* block,
                     tile_at& at) noexcept {
  at.across = false;
  if (pairs_in_place(job.a, job.k)) {
    at.a = reinterpret_cast<float const*>(row_of<bf16>(job.a, segment.first + row)) + k;
    at.a_stride = job.a.stride / 2;
    return;
  }
  std::int64_t const there = job.k - 2 * k < 2 * depth ? job.k - 2 * k : 2 * depth;
  for (std::int64_t r = 0; r < rows; ++r) {
    bf16 const* const from = row_of<bf16>(job.a, segment.first + row + r);
    float* const to = block + r * depth;
    if (there < 2 * depth || from == nullptr) zero_row(to, depth);
    if (from == nullptr) continue;
    __builtin_memcpy(to, from + 2 * k, static_cast<std::size_t>(there) * sizeof(bf16));
  }
  at.a = block;
  at.a_stride = depth;
}

/// One panel of pairs of weights that lie in any way, from logical row n on; zeros behind the last k.
template <class Job>
void panel_of_pairs(Job const& job, gemm_segment const& segment, gemm_piece const& piece,
                    std::int64_t n, std::int64_t columns, float* to) noexcept {
  std::int64_t const cs = job.w.column_stride, k = 2 * piece.k;
  std::int64_t const whole =
      job.k - k < 2 * piece.depth ? (job.k - k) / 2 : piece.depth;  // the last may be a half
  bf16 const* const packed = expert_of<bf16 const>(job.w, segment.expert) +
                             (packed_panel(job.w.pairs, n) * job.k + k) * panel_columns;
  auto const row = [&](std::int64_t j) {
    return row_of<bf16 const>(job.w, segment.expert, n + (j < columns ? j : columns - 1));
  };
  auto const bits = [&](std::int64_t i, std::int64_t j) -> unsigned {
    return (job.w.packed ? packed + i * panel_columns + j : row(j) + (k + i) * cs)->bits;
  };
  auto const put = [&](std::int64_t i, std::int64_t j, unsigned pair) {
    __builtin_memcpy(to + i * panel_columns + j, &pair, sizeof pair);
  };
  if (job.w.packed) {
    for (std::int64_t i = 0; i < whole; ++i) {
      store(to + i * panel_columns, pair_rows(packed + 2 * i * panel_columns));
    }
  } else if (cs == 1) {
    panel_across([&](std::int64_t j) { return reinterpret_cast<element_pair const*>(row(j) + k); },
                 columns, whole, to);
  } else if (job.w.row_stride == 1 && columns == panel_columns &&
             in_one_run(job.w.pairs, n, columns)) {
    bf16 const* const first = row(0) + k * cs;
    for (std::int64_t i = 0; i < whole; ++i) {
      store(to + i * panel_columns, pair_rows(first + 2 * i * cs, first + (2 * i + 1) * cs));
    }
  } else {
    for (std::int64_t i = 0; i < whole; ++i) {
      for (int j = 0; j < panel_columns; ++j) put(i, j, bits(2 * i, j) | bits(2 * i + 1, j) << 16);
    }
  }
  std::int64_t done = whole;
  if (k + 2 * whole < job.k && done < piece.depth) {  // the last half
    for (int j = 0; j < panel_columns; ++j) put(whole, j, bits(2 * whole, j));
    ++done;
  }
  zero_row(to + done * panel_columns, (piece.depth - done) * panel_columns);
}

/// All rows of a block times a piece of the right operand. Packed weights of whole pairs are read as they
/// lie, for few rows too; of all others a panel is made first.
template <class Job>
void multiply_bf16_dot(Job const& job, gemm_segment const& segment, std::int64_t rows,
                       gemm_piece const& piece, float* keep, tile_at const& at,
                       prefetch_cursor& next) noexcept {
  std::int64_t const n = piece.half * (job.n / 2) + piece.column;
  packed_b right{};
  right.from = packed_b::ready;
  right.panels = (piece.columns + panel_columns - 1) / panel_columns;
  right.data = keep;
  right.stride = piece.depth * panel_columns;
  if (job.w.packed && job.k % 2 == 0) {
    right.from = packed_b::packed;
    std::int64_t const stride = job.k * panel_columns;
    bf16 const* const from = expert_of<bf16 const>(job.w, segment.expert) +
                             packed_panel(job.w.pairs, n) * stride + 2 * piece.k * panel_columns;
    std::int64_t const keep_row = rows > tile_rows ? panel_columns : 0;
    auto const first = [&](std::int64_t p, int, bool last) __attribute__((always_inline)) {
      return right_packed_dots{from + p * stride, last ? 0 : stride, keep, right.stride, keep_row};
    };
    auto const kept = [&](std::int64_t, int, bool) __attribute__((always_inline)) {
      return right_dots{{keep, right.stride}};
    };
    tile_panels_of<1, tile_rows>(rows, right, at, next, first, kept);
    return;
  }
  for (std::int64_t p = 0; p < right.panels; ++p) {
    std::int64_t const j = p * panel_columns, left = piece.columns - j;
    panel_of_pairs(job, segment, piece, n + j, left < panel_columns ? left : panel_columns,
                   keep + p * right.stride);
  }
  auto const ready = [&](std::int64_t p, int, bool last) __attribute__((always_inline)) {
    return right_dots{{keep + p * right.stride, last ? 0 : right.stride}};
  };
  tile_panels_of<1, tile_rows>(rows, right, at, next, ready, ready);
}
