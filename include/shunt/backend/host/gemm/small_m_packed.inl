// No include guard: a few rows times packed weights, each number used in registers as it is read.
// Decoding one token is this: bytes from memory, once.
// Of bf16 on AVX2 a tile of two or three rows is faster: it widens neighbors together.
template <class F> inline constexpr int few_rows = !storage<F> ? 4 : widened_in_pairs<F> ? 1 : 3;
SHUNT_INLINE bool few_of(element_type type, std::int64_t rows) noexcept {
  return rows <= (is_format(type)              ? few_rows<mxfp4>
                  : type == element_type::bf16 ? few_rows<bf16>
                                               : few_rows<float>);
}

/// Packed panels that are floats of some type, as those of quantized weights are decoded.
template <storage T> struct decoder<T> {
  static constexpr bool powers = false;
  static constexpr std::int64_t block = format_pieces;
  static constexpr int step = 1, halves = 0;
  T const* number;

  static SHUNT_INLINE std::int64_t panel_bytes(std::int64_t K) noexcept {
    return K * panel_columns * static_cast<std::int64_t>(sizeof(T));
  }
  SHUNT_INLINE void begin(unsigned char const* panel, std::int64_t piece) noexcept {
    number = reinterpret_cast<T const*>(panel) + piece * block * panel_columns;
  }
  template <bool Scaled, class Body>
  SHUNT_INLINE void each(std::int64_t k, fp16 const*, Body&& body) const noexcept {
    vf w[panel_vectors];
    unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
      w[v.value] = load(number + k * panel_columns + v.value * lanes);
    });
    body(std::integral_constant<int, 0>{}, w);
  }
};

/// Panels whose sums are computed side by side. One core reads several streams of memory faster than one,
/// and the chain of one sum would wait for itself.
template <class F, int Rows> constexpr int few_group() noexcept {
  if (::shunt::detail::is_four_bits<F>)
    return Rows <= 2 ? 2 : 1;                // decoding decides, and wants registers
  constexpr int sums = storage<F> ? 12 : 8;  // vectors in registers, beside scales
  return 4 * Rows * panel_vectors <= sums ? 4 : 2 * Rows * panel_vectors <= sums ? 2 : 1;
}

/// a(r, k) at a + r * a_stride + k, for the k of [k, k + depth); panel i of a group at panel[i], the sums
/// of its row r at c[i] + r * c_row.
struct few_at {
  float const* a;
  std::int64_t a_stride, k, depth;
  unsigned char const* panel[4];
  float* c[4];
  std::int64_t c_row;
};

/// A row of a whose products with mxfp4 can be summed without their scale, which is applied to the sums
/// instead, by each piece for the one before: a power of two commutes with every rounding as long as
/// nothing leaves the normal numbers. With |a| 0 or in [2^-60, 2^40) and scales of 2^-24 to 2^24 nothing
/// can: sums are multiples of 2^(-60-24-24), and below 2^(40+24+3) times at most 2^24 terms.
inline constexpr unsigned plain_low = 127 - 24, plain_high = 127 + 24;
SHUNT_INLINE bool any_lane(vu x) noexcept {
  unsigned any = 0;
  for (int i = 0; i < lanes; ++i) any |= x[i];
  return any != 0;
}
SHUNT_INLINE bool plain_row(float const* a, std::int64_t depth) noexcept {
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
  static constexpr int rows = Rows, panels = Panels;
  vf sum[Rows][Panels][panel_vectors];
  vu unit[Panels][panel_vectors];  ///< the sums of panel p are in units of 2^(unit - 127)
  decoder<F> from[Panels];
};

/// body(r, p, v) for every sum, with constants.
template <int Rows, int Panels, class Body> SHUNT_INLINE void for_sums(Body&& body) noexcept {
  unroll<Rows * Panels * panel_vectors>([&](auto i) __attribute__((always_inline)) {
    constexpr int at = decltype(i)::value;
    body(std::integral_constant<int, at / (Panels * panel_vectors)>{},
         std::integral_constant<int, at / panel_vectors % Panels>{},
         std::integral_constant<int, at % panel_vectors>{});
  });
}

/// The step of a piece at j; of its k only the first `count`, where not All.
template <bool Scaled, bool All, class Sums>
SHUNT_INLINE void few_step(Sums& to, float const* a, std::int64_t a_stride, std::int64_t j,
                           std::int64_t count) noexcept {
  using from_panel = std::remove_reference_t<decltype(to.from[0])>;
  constexpr int rows = Sums::rows, panels = Sums::panels, halves = from_panel::halves;
  alignas(64) fp16 half[panels][halves > 0 ? halves : 1];
  if constexpr (halves > 0) {
    unroll<panels>([&](auto p) __attribute__((always_inline)) {
      to.from[p.value].halve(j, half[p.value]);
    });
    __asm__("" : "+m"(half));  // in memory, all before the first is used: see halve
  }
  unroll<panels>([&](auto p) __attribute__((always_inline)) {
    to.from[p.value].template each<Scaled>(
        j, half[p.value], [&](auto s, vf const(&w)[panel_vectors]) __attribute__((always_inline)) {
          if (!All && s.value >= count) return;
          unroll<rows>([&](auto r) __attribute__((always_inline)) {
            vf const left = fill(a[r.value * a_stride + j + s.value]);
            unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
              vf& x = to.sum[r.value][p.value][v.value];
              x = fma(left, w[v.value], x);
            });
          });
        });
  });
}

/// The first `end` k of a piece. A function by itself: among others' g++ finds no registers for all
/// sums, and each waits for its way through memory. Aligned: a short loop across one line of code more
/// is a tenth slower.
template <bool Scaled, class Sums>
__attribute__((noinline, aligned(64))) void few_piece(Sums& sums, float const* a,
                                                      std::int64_t a_stride,
                                                      std::int64_t end) noexcept {
  constexpr int step = std::remove_reference_t<decltype(sums.from[0])>::step;
  Sums to = sums;
  std::int64_t j = 0;
  for (; j + step <= end; j += step) few_step<Scaled, true>(to, a, a_stride, j, step);
  for_sums<Sums::rows, Sums::panels>([&](auto r, auto p, auto v) __attribute__((always_inline)) {
    sums.sum[r.value][p.value][v.value] = to.sum[r.value][p.value][v.value];
  });
  if constexpr (step > 1) {  // behind the last k there are no columns of a
    if (j < end) few_step<Scaled, false>(sums, a, a_stride, j, end - j);
  }
}

/// The sums in units of the scales of these pieces, or of 1.
template <bool One, class F, int Rows, int Panels>
SHUNT_INLINE void change_unit(few_sums<F, Rows, Panels>& to) noexcept {
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

/// The sums of a group's panels from `first` on, continued by fma over k ascending; from 0 where k is 0.
/// Plain: all rows of a are plain_row.
template <class F, int Rows, int Panels, bool Plain>
void sum_few(few_at const& at, int first) noexcept {
  few_sums<F, Rows, Panels> to;
  for_sums<Rows, Panels>([&](auto r, auto p, auto v) __attribute__((always_inline)) {
    float const* const place = at.c[first + p.value] + r.value * at.c_row + v.value * lanes;
    to.sum[r.value][p.value][v.value] = at.k > 0 ? load(place) : vf{};
    to.unit[p.value][v.value] = vu{} + 127u;
  });
  float const* a = at.a;
  constexpr std::int64_t block = decoder<F>::block;
  for (std::int64_t i = 0; i < at.depth; i += block, a += block) {
    std::int64_t const end = at.depth - i < block ? at.depth - i : block;
    unroll<Panels>([&](auto p) __attribute__((always_inline)) {
      to.from[p.value].begin(at.panel[first + p.value], (at.k + i) / block);
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
    if constexpr (decoder<F>::powers) {
      for (auto& from : to.from) from.take_scales();
    }
    few_piece<true>(to, a, at.a_stride, end);
  }
  if constexpr (Plain) change_unit<true>(to);
  for_sums<Rows, Panels>([&](auto r, auto p, auto v) __attribute__((always_inline)) {
    store(at.c[first + p.value] + r.value * at.c_row + v.value * lanes,
          to.sum[r.value][p.value][v.value]);
  });
}

/// The panels of a strip: `panels` of each half, where they begin, their bytes, and their sums.
struct few_strip {
  unsigned char const* panel[2];
  float* c[2];
  int halves;
  std::int64_t panels, bytes;
};

/// `count` groups of `runs` panels; each panel of a group is in a run of its own.
template <class F, int Rows, bool Plain>
void few_groups(few_at& at, int runs, std::int64_t count, std::int64_t bytes) noexcept {
  constexpr int group = few_group<F, Rows>();
  for (std::int64_t i = 0; i < count; ++i) {
    int first = 0;
    for (; first + group <= runs; first += group) sum_few<F, Rows, group, Plain>(at, first);
    if constexpr (group > 1) {
      for (; first < runs; ++first) sum_few<F, Rows, 1, Plain>(at, first);
    }
    for (int run = 0; run < runs; ++run) {
      at.panel[run] += bytes;
      at.c[run] += panel_columns;
    }
  }
}
/// All of a strip: in as many runs as there are panels in a group, then what is left.
template <class F, int Rows, bool Plain> void few_panels(few_at at, few_strip const& of) noexcept {
  constexpr int group = few_group<F, Rows>();
  int const each = group > of.halves ? group / of.halves : 1, runs = each * of.halves;
  std::int64_t const count = of.panels / each, rest = of.panels % each;
  auto const start = [&](int run, int half, std::int64_t panel) {
    at.panel[run] = of.panel[half] + panel * of.bytes;
    at.c[run] = of.c[half] + panel * panel_columns;
  };
  for (int run = 0; run < runs; ++run) start(run, run / each, run % each * count);
  few_groups<F, Rows, Plain>(at, runs, count, of.bytes);
  for (int half = 0; half < of.halves; ++half) start(half, half, of.panels - rest);
  few_groups<F, Rows, Plain>(at, of.halves, rest, of.bytes);
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
        few_panels<F, Rows, true>(at, of);
        return;
      }
    }
    few_panels<F, Rows, false>(at, of);
  }
}

/// All sums of a task of few_of rows and packed weights.
template <class Job>
void sums_of_few(Job const& job, gemm_segment const& segment, std::int64_t row, std::int64_t rows,
                 std::int64_t column, std::int64_t columns, float* left, float* sums,
                 std::int64_t half_stride) noexcept {
  few_strip of{};
  of.halves = job.paired ? 2 : 1;
  of.panels = (columns + panel_columns - 1) / panel_columns;
  few_at at{};
  at.c_row = of.halves * half_stride;
  auto const all = [&](auto* tag) __attribute__((always_inline)) {
    using F = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    using element = std::conditional_t<storage<F>, F, unsigned char>;
    auto const* const start =
        reinterpret_cast<unsigned char const*>(expert_of<element const>(job.w, segment.expert));
    of.bytes = decoder<F>::panel_bytes(job.k);
    for (int half = 0; half < of.halves; ++half) {
      of.panel[half] = start + packed_panel(job.w.pairs, half * (job.n / 2) + column) * of.bytes;
      of.c[half] = sums + half * half_stride;
    }
    for_each_a_piece(job, segment, row, rows, job.k, left,
                     [&](tile_at const& piece, std::int64_t k) {
                       at.a = piece.a;
                       at.a_stride = piece.a_stride;
                       at.k = k;
                       at.depth = piece.depth;
                       few_rows_of<F, few_rows<F>>(rows, at, of);
                     });
  };
  if constexpr (has_formats<Job>) {
    with_known_format<typename gemm_known<Job>::right>(job.w.type, all);
  } else {
    with_known<typename gemm_known<Job>::right>(job.w.type, all);
  }
}
