// No include guard: a task of a few rows and packed weights: its panels in as many runs as are read side by side.

/// The panels of a strip: `panels` of each half, where they begin, their bytes, and their sums.
struct few_strip {
  unsigned char const* panel[2];
  float* c[2];
  int halves;
  std::int64_t panels, bytes;
};

/// Sums of Rows rows with `group` panels of F at once.
template <class F, int Rows, bool Plain> struct few_kernel {
  static constexpr int group = few_group<F, Rows>();
  static void sum(few_at const& at, int first) noexcept {
    sum_few<F, Rows, group, Plain>(at, first);
  }
};

/// All of a strip: in as many runs as there are panels in a group, then what is left.
template <class Kernel> void few_panels(few_at at, few_strip const& of) noexcept {
  constexpr int group = Kernel::group;
  int const each = group > of.halves ? group / of.halves : 1, runs = each * of.halves;
  std::int64_t const count = of.panels / each, rest = of.panels % each;
  auto const start = [&](int run, int half, std::int64_t panel) {
    at.panel[run] = of.panel[half] + panel * of.bytes;
    at.c[run] = of.c[half] + panel * panel_columns;
  };
  for (int run = 0; run < runs; ++run) start(run, run / each, run % each * count);
  for (std::int64_t i = 0; i < count; ++i) {
    for (int first = 0; first < runs; first += group) Kernel::sum(at, first);
    for (int run = 0; run < runs; ++run) {
      at.panel[run] += of.bytes;
      at.c[run] += panel_columns;
    }
  }
  if (rest == 0) return;
  int run =
      0;  // less than a group: its first panel several times, rather than a kernel of their number
  for (int half = 0; half < of.halves; ++half) {
    for (std::int64_t p = of.panels - rest; p < of.panels; ++p) start(run++, half, p);
  }
  for (; run < group; ++run) start(run, 0, of.panels - rest);
  Kernel::sum(at, 0);
}

/// The next lower number of rows that is compiled. With 512-bit registers one more row, of zeros, costs storage types
/// nothing: above two, even numbers; formats, which have less registers left, above four.
template <class F> constexpr int few_rows_below(int rows) noexcept {
  bool const even = SHUNT_REGION == 512 && rows > (storage<F> ? 2 : 4);
  return rows - (even ? 2 : 1);
}
template <class F, int Rows>
SHUNT_INLINE void few_rows_of(std::int64_t rows, few_at const& at, few_strip const& of) noexcept {
  constexpr int below = few_rows_below<F>(Rows);
  if constexpr (below > 0) {
    if (rows <= below) {
      few_rows_of<F, below>(rows, at, of);
      return;
    }
  }
  if constexpr (decoder<F>::powers) {
    bool plain = true;
    for (int r = 0; r < Rows; ++r) plain = plain && plain_row(at.a + r * at.a_stride, at.depth);
    if (plain) {
      few_panels<few_kernel<F, Rows, true>>(at, of);
      return;
    }
  }
  few_panels<few_kernel<F, Rows, false>>(at, of);
}

/// The strip [column, column + columns) of an expert's packed panels of F.
template <class F, class Job>
few_strip few_strip_of(Job const& job, gemm_segment const& segment, std::int64_t column,
                       std::int64_t columns, float* sums, std::int64_t half_stride) noexcept {
  using element = std::conditional_t<storage<F>, F, unsigned char>;
  auto const* const start =
      reinterpret_cast<unsigned char const*>(expert_of<element const>(job.w, segment.expert));
  few_strip of{};
  of.halves = job.paired ? 2 : 1;
  of.panels = (columns + panel_columns - 1) / panel_columns;
  of.bytes = decoder<F>::panel_bytes(job.k);
  for (int half = 0; half < of.halves; ++half) {
    of.panel[half] = start + packed_panel(job.w.pairs, half * (job.n / 2) + column) * of.bytes;
    of.c[half] = sums + half * half_stride;
  }
  return of;
}

/// All sums of a task of packed weights, where its rows are at most most_few_rows: else false.
template <class Job>
bool sums_of_few(Job const& job, gemm_segment const& segment, std::int64_t row, std::int64_t rows,
                 std::int64_t column, std::int64_t columns, float* left, float* sums,
                 std::int64_t half_stride) noexcept {
  few_at at{};
  at.c_row = (job.paired ? 2 : 1) * half_stride;
  bool summed = false;
  auto const all = [&](auto* tag) __attribute__((always_inline)) {
    using F = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    constexpr int most = most_few_rows<F>();
    if (rows > most) return;
    few_strip const of = few_strip_of<F>(job, segment, column, columns, sums, half_stride);
    for_each_a_piece(job, segment, row, rows, job.k, left,
                     [&](tile_at const& piece, std::int64_t k) {
                       at.a = piece.a;
                       at.a_stride = piece.a_stride;
                       at.k = k;
                       at.depth = piece.depth;
                       few_rows_of<F, most>(rows, at, of);
                     });
    summed = true;
  };
  if constexpr (has_formats<Job>) {
    with_known_format<typename gemm_known<Job>::right>(job.w.type, all);
  } else {
    with_known<typename gemm_known<Job>::right>(job.w.type, all);
  }
  return summed;
}
