// No include guard: the right operand, a few panels at a time.

/// The rows [first, first + rows) of one expert.
struct gemm_segment {
  std::int64_t expert, first, rows;
};

/// Panels ready for the tile: `panels` of them, `stride` floats apart.
struct gemm_panels {
  float const* data;
  std::int64_t panels, stride;
};

/// Columns [column, column + 16) of the forward product: weight rows, transposed in registers.
template <class T>
SHUNT_LANES gemm_panels panel_of_rows(gemm_job const& job, std::int64_t e, std::int64_t n,
                                      std::int64_t columns, std::int64_t k, std::int64_t depth,
                                      float* to) noexcept {
  T const* const w = expert_of<T const>(job.w, e);
  T const* row[panel_columns];
  for (int j = 0; j < panel_columns; ++j) {
    std::int64_t const within = j < columns ? j : columns - 1;  // behind the last: computed, unused
    row[j] = w + physical_row(job.w.pairs, n + within) * job.w.row_stride + k;
  }
  pack_across(row, depth, to);
  return {to, 1, 0};
}

/// The same from [E,K,N] or any other strides, element by element.
template <class T>
SHUNT_LANES gemm_panels panel_of_elements(gemm_job const& job, std::int64_t e, std::int64_t n,
                                          std::int64_t columns, std::int64_t k, std::int64_t depth,
                                          float* to) noexcept {
  T const* const w = expert_of<T const>(job.w, e);
  for (int j = 0; j < panel_columns; ++j) {
    std::int64_t const within = j < columns ? j : columns - 1;
    T const* const row = w + physical_row(job.w.pairs, n + within) * job.w.row_stride;
    for (std::int64_t i = 0; i < depth; ++i) {
      vf const x = load_first(row + (k + i) * job.w.column_stride, 1);
      to[i * panel_columns + j] = x[0];
    }
  }
  return {to, 1, 0};
}

/// Panels of a packed matrix: used where they lie when they are floats, else widened.
template <class T>
SHUNT_LANES gemm_panels panels_packed(gemm_job const& job, std::int64_t e, std::int64_t n,
                                      std::int64_t columns, std::int64_t k, std::int64_t depth,
                                      float* to) noexcept {
  std::int64_t const stride = job.ins * panel_columns;
  T const* const from =
      expert_of<T const>(job.w, e) + packed_panel(job.w.pairs, n) * stride + k * panel_columns;
  if constexpr (sizeof(T) == sizeof(float)) {
    return {from, (columns + panel_columns - 1) / panel_columns, stride};
  } else {
    for (std::int64_t i = 0; i < depth * panel_columns; i += lanes) store(to + i, load(from + i));
    return {to, 1, 0};
  }
}

/// dgrad: columns [column, column + columns) of the weight rows [n, n + depth).
template <class T>
SHUNT_LANES gemm_panels panels_of_weights(gemm_job const& job, std::int64_t e, std::int64_t column,
                                          std::int64_t columns, std::int64_t n, std::int64_t depth,
                                          float* to) noexcept {
  constexpr std::int64_t most = gemm_group_panels * panel_columns;
  std::int64_t const count = columns < most ? columns : most;
  constexpr std::int64_t stride = gemm_depth * panel_columns;
  T const* const w = expert_of<T const>(job.w, e);
  for (std::int64_t i = 0; i < depth; ++i) {
    if (job.w.packed) {
      T const* const from = w +
                            (packed_panel(job.w.pairs, n + i) * job.ins + column) * panel_columns +
                            packed_lane(job.w.pairs, n + i);
      for (std::int64_t j = 0; j < count; ++j) {
        vf const x = load_first(from + j * panel_columns, 1);
        to[j / panel_columns * stride + i * panel_columns + j % panel_columns] = x[0];
      }
    } else {
      T const* const row = w + physical_row(job.w.pairs, n + i) * job.w.row_stride;
      if (job.w.column_stride == 1) {
        pack_along(row + column, count, to + i * panel_columns, stride);
      } else {
        for (std::int64_t j = 0; j < count; ++j) {
          vf const x = load_first(row + (column + j) * job.w.column_stride, 1);
          to[j / panel_columns * stride + i * panel_columns + j % panel_columns] = x[0];
        }
      }
    }
  }
  return {to, (count + panel_columns - 1) / panel_columns, stride};
}

/// wgrad: columns [column, column + columns) of the rows [row, row + depth) of b.
template <class T>
SHUNT_LANES gemm_panels panels_of_tokens(gemm_job const& job, std::int64_t row, std::int64_t column,
                                         std::int64_t columns, std::int64_t depth,
                                         float* to) noexcept {
  constexpr std::int64_t most = gemm_group_panels * panel_columns;
  std::int64_t const count = columns < most ? columns : most;
  constexpr std::int64_t stride = gemm_depth * panel_columns;
  for (std::int64_t i = 0; i < depth; ++i) {
    T const* const from = row_of<T>(job.b, row + i);
    pack_along(from == nullptr ? from : from + column, count, to + i * panel_columns, stride);
  }
  return {to, (count + panel_columns - 1) / panel_columns, stride};
}

/// At least one panel of the columns from `column` on, for the k of [k, k + depth).
template <class Job>
gemm_panels panels_of(Job const& job, gemm_segment const& segment, int half, std::int64_t column,
                      std::int64_t columns, std::int64_t k, std::int64_t depth,
                      float* to) noexcept {
  gemm_panels result{};
  std::int64_t const e = segment.expert;
  with_stored(job.kind == gemm_kind::wgrad ? job.b.type : job.w.type, [&](auto* tag) {
    using element = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    if (job.kind == gemm_kind::wgrad) {
      result = panels_of_tokens<element>(job, segment.first + k, column, columns, depth, to);
    } else if (job.kind == gemm_kind::dgrad) {
      result = panels_of_weights<element>(job, e, column, columns, k, depth, to);
    } else {
      std::int64_t const n = half * (job.outs / 2) + column;
      if (job.w.packed) {
        result = panels_packed<element>(job, e, n, columns, k, depth, to);
      } else if (job.w.column_stride == 1) {
        result = panel_of_rows<element>(job, e, n, columns, k, depth, to);
      } else {
        result = panel_of_elements<element>(job, e, n, columns, k, depth, to);
      }
    }
  });
  return result;
}

/// Cache lines that the next panels will be made of: `rows` pieces of `lines` lines.
struct gemm_ahead {
  char const* start;
  std::int64_t stride, rows, lines, at;
};

/// Asks for the next `count` of them.
SHUNT_LANES void fetch(gemm_ahead& next, std::int64_t count) noexcept {
  for (; count > 0 && next.rows > 0; --count) {
    __builtin_prefetch(next.start + 64 * next.at, 0, 2);
    if (++next.at < next.lines) continue;
    next.at = 0;
    next.start += next.stride;
    --next.rows;
  }
}

/// What panels_of(...) will read for the same arguments: a guess, where rows lie in blocks. Rows that
/// are gathered are not fetched.
inline gemm_ahead ahead_of(gemm_job const& job, gemm_segment const& segment, int half,
                           std::int64_t column, std::int64_t columns, std::int64_t k,
                           std::int64_t depth) noexcept {
  gemm_ahead next{};
  if (k >= depth) return next;
  std::int64_t const deep = depth - k < gemm_depth ? depth - k : gemm_depth;
  constexpr std::int64_t most = gemm_group_panels * panel_columns;
  std::int64_t const wide = columns < most ? columns : most;
  std::int64_t const narrow = columns < panel_columns ? columns : panel_columns;
  bool const wgrad = job.kind == gemm_kind::wgrad;
  std::int64_t const size = (wgrad ? job.b.type : job.w.type) == stored::f32 ? 4 : 2;
  std::int64_t first = 0, length = 0;  // in elements
  char const* base = nullptr;
  if (wgrad) {
    if (job.b.slot != nullptr) return next;
    base = static_cast<char const*>(job.b.data);
    first = (segment.first + k) * job.b.stride + column;
    next.stride = job.b.stride;
    next.rows = deep;
    length = wide;
  } else {
    base = job.w.each != nullptr
               ? static_cast<char const*>(job.w.each[segment.expert])
               : static_cast<char const*>(job.w.data) + segment.expert * job.w.expert_stride * size;
    bool const forward = job.kind == gemm_kind::forward;
    std::int64_t const n = half * (job.outs / 2) + column;
    if (job.w.packed) {
      first = forward ? (packed_panel(job.w.pairs, n) * job.ins + k) * panel_columns
                      : (packed_panel(job.w.pairs, k) * job.ins + column) * panel_columns;
      next.stride = job.ins * panel_columns;
      next.rows = forward ? 1 : (deep + panel_columns - 1) / panel_columns;
      length = (forward ? deep : wide) * panel_columns;
    } else if (job.w.column_stride != 1) {
      return next;
    } else {
      first = forward ? physical_row(job.w.pairs, n) * job.w.row_stride + k
                      : physical_row(job.w.pairs, k) * job.w.row_stride + column;
      next.stride = (job.w.pairs.block == 1 ? 2 : 1) * job.w.row_stride;
      next.rows = forward ? narrow : deep;
      length = forward ? deep : wide;
    }
  }
  next.start = base + first * size;
  next.stride *= size;
  next.lines = (length * size + 63) / 64;
  return next;
}
