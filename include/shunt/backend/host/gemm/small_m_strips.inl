// No include guard: a task of a few rows and packed weights: its panels in as many runs as are read side by side.

/// The panels of a strip: `panels` of each half, where they begin, their bytes, and their sums.
struct few_strip {
  unsigned char const* panel[2];
  float* c[2];
  int halves;
  std::int64_t panels, bytes;
};

/// Sums of Rows rows with panels of F: `group` of them at once, or one.
template <class F, int Rows, bool Plain> struct few_kernel {
  static constexpr int group = few_group<F, Rows>();
  template <int Panels> static void sum(few_at const& at, int first) noexcept {
    sum_few<F, Rows, Panels, Plain>(at, first);
  }
};

/// `count` groups of `runs` panels; each panel of a group is in a run of its own.
template <class Kernel>
void few_groups(few_at& at, int runs, std::int64_t count, std::int64_t bytes) noexcept {
  constexpr int group = Kernel::group;
  for (std::int64_t i = 0; i < count; ++i) {
    int first = 0;
    for (; first + group <= runs; first += group) Kernel::template sum<group>(at, first);
    if constexpr (group > 1) {
      for (; first < runs; ++first) Kernel::template sum<1>(at, first);
    }
    for (int run = 0; run < runs; ++run) {
      at.panel[run] += bytes;
      at.c[run] += panel_columns;
    }
  }
}
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
  few_groups<Kernel>(at, runs, count, of.bytes);
  for (int half = 0; half < of.halves; ++half) start(half, half, of.panels - rest);
  few_groups<Kernel>(at, of.halves, rest, of.bytes);
}
template <class F, int Rows>
SHUNT_INLINE void few_rows_of(std::int64_t rows, few_at const& at, few_strip const& of) noexcept {
  if constexpr (Rows > 0) {
    if (rows < Rows) {
      few_rows_of<F, Rows - 1>(rows, at, of);
      return;
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
