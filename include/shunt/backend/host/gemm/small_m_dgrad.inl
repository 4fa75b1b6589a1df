// No include guard: the gradient to a few rows. The weights' rows are read as they lie, a few at a time over all
// columns of a task, as memory is read fastest in long runs; the sums stay in the first cache.
inline constexpr int few_beside = 8;  ///< rows of weights read side by side

/// Rows [0, depth) of the right operand, and those that follow; the sums of row r at c + r * c_row.
template <class T> struct rows_at {
  T const* row[few_beside];
  T const* next[few_beside];
  float const* a;
  std::int64_t a_stride, depth, columns;
  float* c;
  std::int64_t c_row;
  bool resume;
};

/// Sums of `Vectors` vectors of columns from j on, continued by fma over k ascending.
template <int Rows, int Vectors, class T>
SHUNT_INLINE void add_rows_to(rows_at<T> const& at, std::int64_t j) noexcept {
  vf sum[Rows * Vectors];
  float* const c = at.c + j;
  unroll<Rows * Vectors>([&](auto i) __attribute__((always_inline)) {
    constexpr int r = i.value / Vectors, v = i.value % Vectors;
    sum[i.value] = at.resume ? load(c + r * at.c_row + v * lanes) : vf{};
  });
  for (std::int64_t k = 0; k < at.depth; ++k) {
    constexpr int lines = (Vectors * lanes * static_cast<int>(sizeof(T)) + 63) / 64;
    unroll<lines>([&](auto i) __attribute__((always_inline)) {
      __builtin_prefetch(reinterpret_cast<char const*>(at.next[k] + j) + i.value * 64, 0, 2);
    });
    vf w[Vectors];
    unroll<Vectors>([&](auto v) __attribute__((always_inline)) {
      w[v.value] = load(at.row[k] + j + v.value * lanes);
    });
    unroll<Rows>([&](auto r) __attribute__((always_inline)) {
      vf const left = fill(at.a[r.value * at.a_stride + k]);
      unroll<Vectors>([&](auto v) __attribute__((always_inline)) {
        vf& to = sum[r.value * Vectors + v.value];
        to = fma(left, w[v.value], to);
      });
    });
  }
  unroll<Rows * Vectors>([&](auto i) __attribute__((always_inline)) {
    constexpr int r = i.value / Vectors, v = i.value % Vectors;
    store(c + r * at.c_row + v * lanes, sum[i.value]);
  });
}
template <int Rows, int Vectors, class T> void add_rows(rows_at<T> const& at) noexcept {
  std::int64_t j = 0;
  for (; j + Vectors * lanes <= at.columns; j += Vectors * lanes) {
    add_rows_to<Rows, Vectors>(at, j);
  }
  for (; j < at.columns; j += lanes) add_rows_to<Rows, 1>(at, j);
}
/// A cache line of each row at a time is what memory is fastest in, but for one or two rows of floats; more where
/// the rows are read twice. Rows between are computed with one more, of zeros.
template <class T> void add_few_rows(rows_at<T> at, std::int64_t rows) noexcept {
  constexpr int line = 64 / (lanes * static_cast<int>(sizeof(T)));
  constexpr int most = line < 2 ? line : 2;  // vectors of six rows that registers hold
  constexpr int one = line < 2 ? 4 : line;
  bool const twice = rows > 6;
  if (twice) {
    add_rows<6, 2>(at);
    rows -= 6;
    at.a += 6 * at.a_stride;
    at.c += 6 * at.c_row;
  }
  if (rows == 1) return add_rows<1, one>(at);
  if (rows == 2) return add_rows<2, one>(at);
  if (rows <= 4) return add_rows<4, most>(at);
  if (twice) return add_rows<6, 2>(at);
  add_rows<6, most>(at);
}

/// All sums of a task of few rows; or false: see gemm_few_along, or the columns are no whole vectors.
template <class Job>
bool sums_along(Job const& job, gemm_segment const& segment, std::int64_t row, std::int64_t rows,
                std::int64_t column, std::int64_t columns, float* left, float* sums,
                std::int64_t c_row) noexcept {
  if (!gemm_few_along(job, rows) || columns % panel_columns != 0 || job.n == 0) return false;
  with_right(job, [&](auto* tag) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    rows_at<T> at{};
    at.c_row = c_row;
    at.c = sums;
    at.columns = columns;
    auto const begin_at = [&](std::int64_t n, T const** to) {
      for (int i = 0; i < few_beside && n + i < job.n; ++i) {
        to[i] = row_of<T const>(job.w, segment.expert, n + i) + column;
      }
    };
    begin_at(0, at.row);
    for_each_a_piece(job, segment, row, rows, job.n, left,
                     [&](tile_at const& piece, std::int64_t k) {
                       at.a_stride = piece.a_stride;
                       for (std::int64_t i = 0; i < piece.depth; i += few_beside) {
                         at.a = piece.a + i;
                         at.depth = piece.depth - i < few_beside ? piece.depth - i : few_beside;
                         at.resume = k + i > 0;
                         for (int m = 0; m < few_beside; ++m) at.next[m] = at.row[m];
                         begin_at(k + i + at.depth, at.next);
                         add_few_rows(at, rows);
                         for (int m = 0; m < few_beside; ++m) at.row[m] = at.next[m];
                       }
                     });
  });
  return true;
}
