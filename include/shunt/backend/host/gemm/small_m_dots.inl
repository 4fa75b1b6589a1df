// No include guard: a few rows times packed bf16 weights by dot products of pairs (bf16_dot.inl), for processors of
// isa::avx512_bf16. Decoding: each line of weights is used in registers as it arrives, from two streams of memory;
// their order of sums is the tile's.

/// Sums of Rows rows with two panels side by side: two chains of the dot product's latency per row, and no more
/// streams than the hardware follows best.
template <int Rows> struct few_dots {
  static constexpr int group = 2;

  __attribute__((noinline)) static void sum(few_at const& at, int first) noexcept {
    vf sums[Rows][group] = {};
    bf16 const* from[group];
    for (int p = 0; p < group; ++p) {
      from[p] = reinterpret_cast<bf16 const*>(at.panel[first + p]) + 2 * at.k * panel_columns;
    }
    // With constants: an array that a loop indexes would stay in memory.
    auto const each = [&](auto&& body) __attribute__((always_inline)) {
      unroll<Rows * group>([&](auto i) __attribute__((always_inline)) {
        constexpr int r = decltype(i)::value / group, p = decltype(i)::value % group;
        body(sums[r][p], at.c[first + p] + r * at.c_row);
      });
    };
    if (at.k > 0) each([](vf& sum, float const* c) { sum = load(c); });
    float const* pair = at.a;
    for (float const* const end = pair + at.depth; pair < end; ++pair) {
      vf const w0 = pair_rows(from[0]), w1 = pair_rows(from[1]);
      unroll<Rows>([&](auto r) __attribute__((always_inline)) {
        add_dots(pair + r.value * at.a_stride, w0, w1, sums[r.value][0], sums[r.value][1]);
      });
      if constexpr (Rows > 2) {  // two rows leave the processor's own prefetcher time enough
        __builtin_prefetch(reinterpret_cast<char const*>(from[0]) + few_ahead);
        __builtin_prefetch(reinterpret_cast<char const*>(from[1]) + few_ahead);
      }
      from[0] += 2 * panel_columns;
      from[1] += 2 * panel_columns;
    }
    each([](vf const& sum, float* c) { store(c, sum); });
  }
};

/// Rows that are computed so, of packed weights and of columns.
inline constexpr int few_dot_rows = 12, few_dot_columns = 4;

template <int Rows>
SHUNT_INLINE void few_dots_of(std::int64_t rows, few_at const& at, few_strip const& of) noexcept {
  if constexpr (Rows > 0) {
    if (rows < Rows) {
      few_dots_of<Rows - 1>(rows, at, of);
    } else {
      few_panels<few_dots<Rows>>(at, of);
    }
  }
}

template <> struct across_sum<element_pair> {
  static SHUNT_INLINE void add(float const* left, vf w, vf& sum) noexcept { add_dot(left, w, sum); }
};

/// body(pairs, k) for pairs [k, k + depth) of the left operand, as many as there is room for at a time.
template <class Job, class Body>
SHUNT_INLINE void for_each_pairs(Job const& job, gemm_segment const& segment, std::int64_t row,
                                 std::int64_t rows, float* left, Body&& body) noexcept {
  std::int64_t const depth = job.k / 2;
  constexpr std::int64_t room = gemm_block_rows * gemm_depth / few_dot_rows;
  for (std::int64_t k = 0; k < depth; k += room) {
    tile_at at{};
    at.depth = depth - k < room ? depth - k : room;
    pack_a_bf16_dot(job, segment, row, rows, k, at.depth, left, at);
    body(at, k);
  }
}

/// All sums of a task whose rows are few and whose pairs are whole, of packed weights or of such as lie along k:
/// else false.
template <class Job>
bool sums_of_few_dots(Job const& job, gemm_segment const& segment, std::int64_t row,
                      std::int64_t rows, std::int64_t column, std::int64_t columns, float* left,
                      float* sums, std::int64_t half_stride) noexcept {
  bool const packed = job.w.packed;
  if (job.k % 2 != 0 || rows > (packed ? few_dot_rows : few_dot_columns) ||
      (!packed && job.w.column_stride != 1)) {
    return false;
  }
  across_at<element_pair> across{};
  few_at at{};
  at.c_row = (job.paired ? 2 : 1) * half_stride;
  for_each_pairs(job, segment, row, rows, left, [&](tile_at const& pairs, std::int64_t k) {
    if (packed) {
      at.a = pairs.a;
      at.a_stride = pairs.a_stride;
      at.k = k;
      at.depth = pairs.depth;
      few_dots_of<few_dot_rows>(
          rows, at, few_strip_of<bf16>(job, segment, column, columns, sums, half_stride));
    } else {
      across.a = pairs.a;
      across.a_stride = pairs.a_stride;
      across.depth = pairs.depth;
      sums_across_columns(job, segment, rows, column, columns, k, across, sums, half_stride);
    }
  });
  return true;
}
