// No include guard: products of rows rounded to int8 with mxfp4 weights: both in groups of 32, whose sums are
// integers, brought to floats group by group. Groups: how they are summed, see gemm/int8_sums.inl.

/// `count` groups of a row from `from` on, where `numbers` are left of it, each `apart` from the one before.
template <class Groups, class T>
SHUNT_INLINE void round_groups(T const* from, std::int64_t count, std::int64_t numbers,
                               row_group* to, std::int64_t apart) noexcept {
  for (; count > 0; --count, to += apart, from += int8_group, numbers -= int8_group) {
    std::int64_t const there = numbers < int8_group ? numbers : int8_group;
    int8_scale const scale = int8_scale_of(largest_magnitude(from, there));
    signed char number[int8_group];
    round_group(from, there, scale.inverse, number);
    to->half_scale = 0.5f * scale.scale;
    to->offset = static_cast<float>(12 * Groups::place(number, to->number));
  }
}

/// Panels that are added in turn, each from the piece at hand: a core reads four streams faster than one.
struct group_streams {
  unsigned char const* piece[4];
  float* c[4];
  int count;
};
/// The sums of a group of `rows` rows, at most Most, with one panel that is decoded.
template <class Groups, int Most>
SHUNT_INLINE void add_rest(row_group const* a, std::int64_t rows,
                           typename Groups::decoded const& weights,
                           vf const (&scale)[panel_vectors], float* c,
                           std::int64_t c_row) noexcept {
  if constexpr (Most > 0) {
    if (rows == Most) {
      Groups::template add<Most>(a, weights, scale, c, c_row);
    } else {
      add_rest<Groups, Most - 1>(a, rows, weights, scale, c, c_row);
    }
  }
}

/// `count` groups of the panels with all rows of a block; Rows of them, or (0) more: bytes are decoded as they are
/// used, or once for all.
template <class Groups, int Rows>
void add_groups(group_streams to, row_group const* a, std::int64_t rows, std::int64_t count,
                std::int64_t c_row) noexcept {
  for (; count > 0; --count, a += rows) {
    for (int i = 0; i < to.count; ++i) {
      decoder<mxfp4> weights;
      weights.begin(to.piece[i], 0);
      weights.take_scales();
      constexpr std::int64_t piece = decoder<mxfp4>::packing::piece_bytes, ahead = 4 * piece;
      for (std::int64_t at = 0; at < piece; at += 64) {
        __builtin_prefetch(to.piece[i] + ahead + at, 0, 2);
      }
      to.piece[i] += piece;
      if constexpr (Rows > 0) {
        typename Groups::packed const packed(weights);
        Groups::template add<Rows>(a, packed, weights.scale, to.c[i], c_row);
      } else {
        constexpr int together = Groups::rows;
        alignas(64) unsigned char bytes[Groups::bytes];
        Groups::decode(weights, bytes);
        typename Groups::decoded const decoded{bytes};
        std::int64_t r = 0;
        for (; r + together <= rows; r += together) {
          Groups::template add<together>(a + r, decoded, weights.scale, to.c[i] + r * c_row, c_row);
        }
        add_rest<Groups, together - 1>(a + r, rows - r, decoded, weights.scale, to.c[i] + r * c_row,
                                       c_row);
      }
    }
  }
}

/// All sums of a task.
template <class Groups, std::size_t Floats>
void sums_of_groups(gemm_format_job const& job, gemm_segment const& segment, std::int64_t row,
                    std::int64_t rows, std::int64_t column, std::int64_t columns,
                    float (&block)[Floats], float* sums, std::int64_t half_stride) noexcept {
  using place = format_place<mxfp4>;
  constexpr std::int64_t bytes = sizeof(block), one = sizeof(row_group), room = bytes / one;
  std::int64_t const halves = job.paired ? 2 : 1, stride = halves * half_stride;
  std::int64_t const panels = (columns + panel_columns - 1) / panel_columns, all = halves * panels;
  std::int64_t const groups = (job.k + int8_group - 1) / int8_group;
  auto const* const expert = expert_of<unsigned char const>(job.w, segment.expert);
  auto* const left = reinterpret_cast<row_group*>(block);
  constexpr int two = Groups::rows >= 2 ? 2 : 0;
  auto* const add = rows == 1   ? add_groups<Groups, 1>
                    : rows == 2 ? add_groups<Groups, two>
                                : add_groups<Groups, 0>;
  for (std::int64_t r = 0; r < rows; ++r) zero_row(sums + r * stride, stride);
  for (std::int64_t g = 0, count = 0; g < groups; g += count) {
    count = groups - g < room / rows ? groups - g : room / rows;
    std::int64_t const k = g * int8_group;
    with_element_type(job.a.type, [&](auto* tag) {
      using element = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
      for (std::int64_t r = 0; r < rows; ++r) {
        element const* const from = row_of<element>(job.a, segment.first + row + r);
        if (from != nullptr) {
          round_groups<Groups>(from + k, count, job.k - k, left + r, rows);
        } else {
          for (std::int64_t i = 0; i < count; ++i) left[i * rows + r] = {};
        }
      }
    });
    // Four panels that lie apart, then what is left of them one by one.
    std::int64_t const apart = all / 4;
    for (std::int64_t i = 0; i < apart + all % 4; ++i) {
      bool const four = i < apart;
      group_streams to{};
      to.count = four ? 4 : 1;
      for (int run = 0; run < to.count; ++run) {
        std::int64_t const panel = four ? run * apart + i : all - 1 - (i - apart);
        std::int64_t const half = panel / panels, in_half = panel % panels;
        std::int64_t const first = packed_panel(job.w.pairs, half * (job.n / 2) + column);
        to.piece[run] = expert + (first + in_half) * place::panel_bytes(job.k) + place::place(k);
        to.c[run] = sums + half * half_stride + in_half * panel_columns;
      }
      add(to, left, rows, count, stride);
    }
  }
}

/// body(Groups) of a job's.
template <class Body> void with_groups(gemm_format_job const& job, Body&& body) noexcept {
#if SHUNT_REGION == 512
  if (job.vnni) return body(groups_by_fours{});
#endif
  static_cast<void>(job);
  body(groups_of_region{});
}
