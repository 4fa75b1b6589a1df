// No include guard: a few rows times packed panels of quantised weights, each number decoded in
// registers where it is used. Decoding one token is this: bytes from memory, once.
inline constexpr int few_rows = 4;

/// a(r, k) at a + r * a_stride + k, for the k of [k, k + depth); panel p at panel + p * panel_stride;
/// its sums of row r at c + r * c_row + p * c_panel.
struct few_at {
  float const* a;
  std::int64_t a_stride;
  unsigned char const* panel;
  std::int64_t panel_stride;
  std::int64_t k, depth;
  float* c;
  std::int64_t c_row, c_panel;
};

/// A row of a whose products with mxfp4 can be summed without their scale, which is applied to the sums
/// instead, by each piece for the one before: a power of two commutes with every rounding as long as
/// nothing leaves the normal numbers. With |a| 0 or in [2^-60, 2^40) and scales of 2^-24 to 2^24 nothing
/// can: sums are multiples of 2^(-60-24-24), and below 2^(40+24+3) times at most 2^24 terms.
inline constexpr unsigned plain_low = 127 - 24, plain_high = 127 + 24;
SHUNT_LANES bool any_lane(vu x) noexcept {
  unsigned any = 0;
  for (int i = 0; i < lanes; ++i) any |= x[i];
  return any != 0;
}
SHUNT_LANES bool plain_row(float const* a, std::int64_t depth) noexcept {
  constexpr unsigned low = (127u - 60) << 23, high = (127u + 40) << 23;
  vu odd = {};
  for (std::int64_t k = 0; k < depth; k += lanes) {
    std::int64_t const left = depth - k;
    vu const x = as_bits(left < lanes ? load_first(a + k, left) : load(a + k)) & 0x7fffffffu;
    odd |= (vu)(x - low >= high - low) & (vu)(x != 0);
  }
  return !any_lane(odd) && depth <= (1 << 24);
}

/// Sums under way: of Rows rows with Panels panels, whose decoders stand at a piece.
template <class F, int Rows, int Panels> struct few_sums {
  vf sum[Rows][Panels][panel_vectors];
  vu unit[Panels][panel_vectors];  ///< the sums of panel p are in units of 2^(unit - 127)
  decoder<F> from[Panels];
};

/// body(r, p, v) for every sum, with constants.
template <int Rows, int Panels, class Body> SHUNT_LANES void for_sums(Body&& body) noexcept {
  unroll<Rows * Panels * panel_vectors>([&](auto i) __attribute__((always_inline)) {
    constexpr int at = decltype(i)::value;
    body(std::integral_constant<int, at / (Panels * panel_vectors)>{},
         std::integral_constant<int, at / panel_vectors % Panels>{},
         std::integral_constant<int, at % panel_vectors>{});
  });
}

/// `Count` k of a piece from j on.
template <int Count, bool Scaled, class Sums>
SHUNT_LANES void few_step(Sums& to, float const* a, std::int64_t a_stride,
                          std::int64_t j) noexcept {
  constexpr int rows = sizeof(to.sum) / sizeof(to.sum[0]);
  constexpr int panels = sizeof(to.from) / sizeof(to.from[0]);
  unroll<panels>([&](auto p) __attribute__((always_inline)) {
    to.from[p.value].template each<Scaled>(
        j, [&](auto s, vf const(&w)[panel_vectors]) __attribute__((always_inline)) {
          constexpr int at = decltype(s)::value;  // nvcc cannot read it in front of a <
          if constexpr (at < Count) {
            unroll<rows>([&](auto r) __attribute__((always_inline)) {
              vf const left = fill(a[r.value * a_stride + j + at]);
              unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
                vf& x = to.sum[r.value][p.value][v.value];
                x = fma(left, w[v.value], x);
              });
            });
          }
        });
  });
}

/// The first `end` k of a piece. A function by itself: among others' g++ finds no registers for all
/// sums, and each waits for its way through memory.
template <bool Scaled, class Sums>
__attribute__((noinline)) void few_piece(Sums& sums, float const* a, std::int64_t a_stride,
                                         std::int64_t end) noexcept {
  using from_panel = std::remove_reference_t<decltype(sums.from[0])>;
  constexpr int step = from_panel::step;
  Sums to = sums;
  std::int64_t j = 0;
  for (; j + step <= end; j += step) few_step<step, Scaled>(to, a, a_stride, j);
  for_sums<sizeof(to.sum) / sizeof(to.sum[0]), sizeof(to.from) / sizeof(to.from[0])>([&](
      auto r, auto p, auto v) __attribute__((always_inline)) {
    sums.sum[r.value][p.value][v.value] = to.sum[r.value][p.value][v.value];
  });
  if constexpr (step == 4) {  // behind the last k there are no columns of a
    if (end - j == 3) few_step<3, Scaled>(sums, a, a_stride, j);
    if (end - j == 2) few_step<2, Scaled>(sums, a, a_stride, j);
    if (end - j == 1) few_step<1, Scaled>(sums, a, a_stride, j);
  }
}

/// The sums in units of the scales of the pieces at hand, or of 1.
template <bool One, class F, int Rows, int Panels>
SHUNT_LANES void change_unit(few_sums<F, Rows, Panels>& to) noexcept {
  for_sums<1, Panels>([&](auto, auto p, auto v) __attribute__((always_inline)) {
    vu const was = to.unit[p.value][v.value];
    vu unit = vu{} + 127u;
    if constexpr (!One) unit = to.from[p.value].exponent[v.value];
    vf const factor = as_float((was - unit + 127u) << 23);
    to.unit[p.value][v.value] = unit;
    unroll<Rows>([&](auto r) __attribute__((always_inline)) {
      vf& x = to.sum[r.value][p.value][v.value];
      x = x * factor;
    });
  });
}

/// Sums continued by fma over k ascending; from 0 where k is 0. Several panels at once: the chain of
/// one would wait for itself. Plain: all rows of a are plain_row.
template <class F, int Rows, int Panels, bool Plain> void sum_few(few_at const& at) noexcept {
  few_sums<F, Rows, Panels> to;
  for_sums<Rows, Panels>([&](auto r, auto p, auto v) __attribute__((always_inline)) {
    float const* const place = at.c + r.value * at.c_row + p.value * at.c_panel + v.value * lanes;
    to.sum[r.value][p.value][v.value] = at.k > 0 ? load(place) : vf{};
    to.unit[p.value][v.value] = vu{} + 127u;
  });
  float const* a = at.a;
  constexpr std::int64_t block = decoder<F>::block;
  for (std::int64_t i = 0; i < at.depth; i += block, a += block) {
    std::int64_t const end = at.depth - i < block ? at.depth - i : block;
    unroll<Panels>([&](auto p) __attribute__((always_inline)) {
      to.from[p.value].begin(at.panel + p.value * at.panel_stride, (at.k + i) / block);
    });
    if constexpr (Plain) {
      vu odd = {};
      for_sums<1, Panels>([&](auto, auto p, auto v) __attribute__((always_inline)) {
        vu const x = to.from[p.value].exponent[v.value];
        odd |= (vu)(x - plain_low > plain_high - plain_low);
      });
      if (!any_lane(odd)) {
        change_unit<false>(to);
        few_piece<false>(to, a, at.a_stride, end);
        continue;
      }
      change_unit<true>(to);
    }
    few_piece<true>(to, a, at.a_stride, end);
  }
  if constexpr (Plain) change_unit<true>(to);
  for_sums<Rows, Panels>([&](auto r, auto p, auto v) __attribute__((always_inline)) {
    store(at.c + r.value * at.c_row + p.value * at.c_panel + v.value * lanes,
          to.sum[r.value][p.value][v.value]);
  });
}

/// `count` panels and, if there are two runs, as many `apart` panels further, whose sums are
/// `sums_apart` further.
template <class F, int Rows, bool Plain>
void few_panels(few_at at, std::int64_t count, bool two, std::int64_t apart,
                std::int64_t sums_apart) noexcept {
  std::int64_t const bytes = at.panel_stride;
  at.panel_stride = apart * bytes;
  at.c_panel = sums_apart;
  for (std::int64_t p = 0; p < count; ++p) {
    if (two && Rows <= 2) {
      sum_few<F, Rows, 2, Plain>(at);
    } else {
      sum_few<F, Rows, 1, Plain>(at);
      if (two) {
        few_at second = at;
        second.panel += at.panel_stride;
        second.c += at.c_panel;
        sum_few<F, Rows, 1, Plain>(second);
      }
    }
    at.panel += bytes;
    at.c += panel_columns;
  }
}
template <class F, int Rows>
SHUNT_LANES void few_rows_of(std::int64_t rows, few_at const& at, std::int64_t count, bool two,
                             std::int64_t apart, std::int64_t sums_apart) noexcept {
  if constexpr (Rows > 0) {
    if (rows == Rows) {
      if constexpr (decoder<F>::powers) {
        bool plain = true;
        for (int r = 0; r < Rows; ++r) {
          plain = plain && plain_row(at.a + r * at.a_stride, at.depth);
        }
        if (plain) {
          few_panels<F, Rows, true>(at, count, two, apart, sums_apart);
          return;
        }
      }
      few_panels<F, Rows, false>(at, count, two, apart, sums_apart);
    } else {
      few_rows_of<F, Rows - 1>(rows, at, count, two, apart, sums_apart);
    }
  }
}

/// All sums of a task of at most few_rows rows.
template <class Job>
void sums_of_few(Job const& job, gemm_segment const& segment, std::int64_t row, std::int64_t rows,
                 std::int64_t column, std::int64_t columns, float* left, float* sums,
                 std::int64_t half_stride) noexcept {
  std::int64_t const panels = (columns + panel_columns - 1) / panel_columns;
  std::int64_t const first = packed_panel(job.w.pairs, column);
  std::int64_t const most = gemm_block_rows * gemm_depth / rows / format_pieces * format_pieces;
  few_at at{};
  at.c_row = job.paired ? 2 * half_stride : half_stride;
  for (std::int64_t k = 0; k < job.ins; k += most) {
    at.k = k;
    at.depth = job.ins - k < most ? job.ins - k : most;
    if (in_place(job.a)) {
      at.a = row_of<float>(job.a, segment.first + row) + k;
      at.a_stride = job.a.stride;
    } else {
      copy_rows(job.a, segment.first + row, rows, k, at.depth, left, at.depth);
      at.a = left;
      at.a_stride = at.depth;
    }
    with_format(job.w.type, [&](auto* tag) {
      using F = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
      at.panel_stride = decoder<F>::panel_bytes(job.ins);
      at.panel = expert_of<unsigned char const>(job.w, segment.expert) + first * at.panel_stride;
      at.c = sums;
      if (job.paired) {
        std::int64_t const up = packed_panel(job.w.pairs, job.outs / 2 + column) - first;
        few_rows_of<F, few_rows>(rows, at, panels, true, up, half_stride);
        return;
      }
      std::int64_t const half = panels / 2;
      few_rows_of<F, few_rows>(rows, at, half, true, half, half * panel_columns);
      if (panels % 2 == 0) return;
      at.panel += 2 * half * at.panel_stride;
      at.c += 2 * half * panel_columns;
      few_rows_of<F, few_rows>(rows, at, 1, false, 0, 0);
    });
  }
}
