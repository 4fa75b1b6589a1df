// No include guard: a few rows times weights that lie along k as the caller has them: transposed in
// registers, used there, and never written.
inline constexpr int few_across = tile_rows < 6 ? tile_rows : 6;

/// `lanes` neighboring columns of the right operand, the k of [0, depth) of each at column[i]; the sums
/// of row r at c + r * c_row. next: the columns behind them.
template <class T> struct across_at {
  T const* column[lanes];
  T const* next[lanes];
  float const* a;
  std::int64_t a_stride, depth;
  float* c;
  std::int64_t c_row;
  bool resume;
};

/// One element, or pair, of a column.
template <class T> SHUNT_INLINE float one_across(T const* from) noexcept {
  if constexpr (std::is_same_v<T, element_pair>) {
    float pair;
    __builtin_memcpy(&pair, from, sizeof pair);
    return pair;
  } else {
    return load_first(from, 1)[0];
  }
}
/// Adds left * w; of pairs, by dot products (small_m_dots.inl).
template <class T> struct across_sum {
  static SHUNT_INLINE void add(float const* left, vf w, vf& sum) noexcept {
    sum = fma(fill(*left), w, sum);
  }
};

/// Sums continued by fma over k ascending. While these columns are computed with, the next ones are asked
/// for, a fourth of them one after another in each of four streams: a core reads four long streams faster
/// than one or many.
template <class T, int Rows> void sum_across(across_at<T> const& at) noexcept {
  constexpr int streams = 4, turns = lanes / streams;
  constexpr std::int64_t line = 64 / sizeof(T);
  vf sum[Rows];
  unroll<Rows>([&](auto r) __attribute__((always_inline)) {
    sum[r.value] = at.resume ? load(at.c + r.value * at.c_row) : vf{};
  });
  float const* const a = at.a;
  std::int64_t const a_stride = at.a_stride;
  auto const add = [&](std::int64_t k, vf w) __attribute__((always_inline)) {
    unroll<Rows>([&](auto r) __attribute__((always_inline)) {
      across_sum<T>::add(a + r.value * a_stride + k, w, sum[r.value]);
    });
  };
  auto const add_quad = [&](std::int64_t k) __attribute__((always_inline)) {
    each_across(
        at.column, k, [&](auto s, vf w) __attribute__((always_inline)) { add(k + s.value, w); });
  };
  std::int64_t k = 0;
  for (int turn = 0; turn < turns; ++turn) {
    std::int64_t const end = turn + 1 == turns ? at.depth : at.depth / turns * (turn + 1);
    char const* ask[streams];
    unroll<streams>([&](auto s) __attribute__((always_inline)) {
      ask[s.value] = reinterpret_cast<char const*>(at.next[turns * s.value + turn]);
    });
    for (; k + line <= end; k += line) {
      unroll<streams * turns>([&](auto i) __attribute__((always_inline)) {
        __builtin_prefetch(ask[i.value % streams] + i.value / streams * 64, 0, 2);
      });
      unroll<streams>([&](auto s) __attribute__((always_inline)) { ask[s.value] += turns * 64; });
      for (std::int64_t q = 0; q < line; q += quad<T>) add_quad(k + q);
    }
  }
  for (; k + quad<T> <= at.depth; k += quad<T>) add_quad(k);
  for (; k < at.depth; ++k) {
    vf w;
    for (int i = 0; i < lanes; ++i) w[i] = one_across(at.column[i] + k);
    add(k, w);
  }
  unroll<Rows>([&](auto r) __attribute__((always_inline)) {
    store(at.c + r.value * at.c_row, sum[r.value]);
  });
}
/// Rows between are computed with some more, whose sums are not read. Of pairs they are as they are: they may
/// lie in place, with nothing behind the last.
template <class T>
SHUNT_INLINE void sum_across_rows(std::int64_t rows, across_at<T> const& at) noexcept {
  constexpr bool exact = std::is_same_v<T, element_pair>;
  if (rows == 1) return sum_across<T, 1>(at);
  if (rows == 2) return sum_across<T, 2>(at);
  if constexpr (exact) {
    if (rows == 3) return sum_across<T, 3>(at);
  }
  if (rows <= 4) return sum_across<T, 4>(at);
  if constexpr (few_across > 4 && !exact) sum_across<T, 6>(at);
}

/// The sums of a strip's columns with the piece of a that `at` holds, which begins at element (pair) k.
template <class T, class Job>
void sums_across_columns(Job const& job, gemm_segment const& segment, std::int64_t rows,
                         std::int64_t column, std::int64_t columns, std::int64_t k,
                         across_at<T>& at, float* sums, std::int64_t half_stride) noexcept {
  int const halves = job.paired ? 2 : 1;
  at.c_row = halves * half_stride;
  at.resume = k > 0;
  auto const columns_from = [&](int half, std::int64_t j) {
    for (int i = 0; i < lanes; ++i) {  // behind the last: computed, unused
      std::int64_t const n = column + (j + i < columns ? j + i : columns - 1);
      using element = std::conditional_t<std::is_same_v<T, element_pair>, bf16, T>;
      auto const* const row = row_of<element const>(job.w, segment.expert, half * (job.n / 2) + n);
      at.next[i] = reinterpret_cast<T const*>(row) + k;
    }
  };
  columns_from(0, 0);
  for (int half = 0; half < halves; ++half) {
    for (std::int64_t j = 0; j < columns; j += lanes) {
      for (int i = 0; i < lanes; ++i) at.column[i] = at.next[i];
      if (j + lanes < columns) {
        columns_from(half, j + lanes);
      } else if (half + 1 < halves) {
        columns_from(half + 1, 0);
      }
      at.c = sums + half * half_stride + j;
      sum_across_rows(rows, at);
    }
  }
}
template <class T, class Job>
void sums_across_of(Job const& job, gemm_segment const& segment, std::int64_t row,
                    std::int64_t rows, std::int64_t column, std::int64_t columns, float* left,
                    float* sums, std::int64_t half_stride) noexcept {
  across_at<T> at{};
  for_each_a_piece(job, segment, row, rows, job.k, left, [&](tile_at const& piece, std::int64_t k) {
    at.a = piece.a;
    at.a_stride = piece.a_stride;
    at.depth = piece.depth;
    sums_across_columns(job, segment, rows, column, columns, k, at, sums, half_stride);
  });
}
/// All sums of a task of at most few_across rows; or false: the weights do not lie so, the rows are more,
/// or (fp16) it is not compiled.
template <class Job>
bool sums_across(Job const& job, gemm_segment const& segment, std::int64_t row, std::int64_t rows,
                 std::int64_t column, std::int64_t columns, float* left, float* sums,
                 std::int64_t half_stride) noexcept {
  if (rows > few_across || !is<gemm_kind::forward>(job) || job.w.packed ||
      job.w.column_stride != 1 || job.w.type == element_type::fp16) {
    return false;
  }
  with_known<typename gemm_known<Job>::right>(job.w.type, [&](auto* tag) {
    using T = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    if constexpr (!std::is_same_v<T, fp16>) {
      sums_across_of<T>(job, segment, row, rows, column, columns, left, sums, half_stride);
    }
  });
  return true;
}
