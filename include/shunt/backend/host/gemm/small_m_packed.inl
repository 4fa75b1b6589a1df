// No include guard: a few rows times packed weights, each number used in registers as it is read.
// Decoding one token is this: bytes from memory, once.

/// The most rows that are computed so. Ten where there are 32 registers; of bf16 on AVX2 a tile of two or three is
/// faster: it widens neighbors together. Of formats with more rows the decoding decides, which a tile does once.
template <class F> constexpr int most_few_rows() noexcept {
  constexpr bool wide = SHUNT_REGION == 512;
  if (!storage<F>) return wide && !::shunt::detail::is_four_bits<F> ? 6 : 4;
  return wide ? 10 : widened_in_pairs<F> ? 1 : 3;
}

/// Bytes ahead of what is read, that are asked for: the next page, where the processor's own prefetcher, which
/// stops at the end of this one, has not been yet. 0: left to it.
inline constexpr int few_ahead = SHUNT_REGION == 512 ? 4096 : 0;

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

/// A line for each fused multiply-add: the processor's own prefetcher keeps up, with four streams best.
template <class F, int Rows>
inline constexpr bool lines_alone = Rows == 1 && std::same_as<F, float>;

/// Panels whose sums are computed side by side: the chain of one sum would wait for itself. A core reads several
/// streams of memory faster than one; those with 512-bit registers (Zen 5) read two fastest.
template <class F, int Rows> constexpr int few_group() noexcept {
  if constexpr (::shunt::detail::is_four_bits<F>) {  // decoding decides, and wants registers
    return SHUNT_REGION == 512 ? 4 : Rows <= 2 ? 2 : 1;
  }
  if constexpr (SHUNT_REGION == 512) return lines_alone<F, Rows> ? 4 : 2;
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
  using format = F;
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

/// Bytes of a panel's numbers of one k.
template <class F> constexpr int few_bytes() noexcept {
  if constexpr (storage<F>) return panel_columns * static_cast<int>(sizeof(F));
  return ::shunt::detail::is_four_bits<F> ? panel_columns / 2 : panel_columns;
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
  if constexpr (few_ahead > 0 && !lines_alone<typename Sums::format, rows>) {
    constexpr int bytes = few_bytes<typename Sums::format>();
    unroll<panels>([&](auto p) __attribute__((always_inline)) {
      __builtin_prefetch(reinterpret_cast<char const*>(to.from[p.value].number) + j * bytes +
                         few_ahead);
    });
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

/// The first `end` k of a piece.
template <bool Scaled, class Sums>
SHUNT_INLINE void few_steps(Sums& to, float const* a, std::int64_t a_stride,
                            std::int64_t end) noexcept {
  constexpr int step = std::remove_reference_t<decltype(to.from[0])>::step;
  std::int64_t j = 0;
  for (; j + step <= end; j += step) few_step<Scaled, true>(to, a, a_stride, j, step);
  if constexpr (step > 1) {  // behind the last k there are no columns of a
    if (j < end) few_step<Scaled, false>(to, a, a_stride, j, end - j);
  }
}
template <class Sums> SHUNT_INLINE void keep_sums(Sums const& from, Sums& to) noexcept {
  for_sums<Sums::rows, Sums::panels>([&](auto r, auto p, auto v) __attribute__((always_inline)) {
    to.sum[r.value][p.value][v.value] = from.sum[r.value][p.value][v.value];
  });
}
/// A piece; and all of them. Functions by themselves: among others' g++ finds no registers for all sums, and
/// each waits for its way through memory. Aligned: a short loop across one line of code more is a tenth slower.
template <bool Scaled, class Sums>
__attribute__((noinline, aligned(64))) void few_piece(Sums& sums, float const* a,
                                                      std::int64_t a_stride,
                                                      std::int64_t end) noexcept {
  Sums to = sums;
  few_steps<Scaled>(to, a, a_stride, end);
  keep_sums(to, sums);
}
template <class Sums>
__attribute__((noinline, aligned(64))) void few_pieces(Sums& sums, few_at const& at,
                                                       int first) noexcept {
  using from_panel = std::remove_reference_t<decltype(sums.from[0])>;
  constexpr std::int64_t block = from_panel::block;
  Sums to = sums;
  float const* a = at.a;
  for (std::int64_t i = 0; i < at.depth; i += block, a += block) {
    unroll<Sums::panels>([&](auto p) __attribute__((always_inline)) {
      to.from[p.value].begin(at.panel[first + p.value], (at.k + i) / block);
      if constexpr (from_panel::powers) to.from[p.value].take_scales();
    });
    few_steps<true>(to, a, at.a_stride, at.depth - i < block ? at.depth - i : block);
  }
  keep_sums(to, sums);
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

/// All pieces of rows that are plain_row: their sums in units of the scales, where these are in range.
template <class F, int Rows, int Panels>
void few_plain_pieces(few_sums<F, Rows, Panels>& to, few_at const& at, int first) noexcept {
  constexpr std::int64_t block = decoder<F>::block;
  float const* a = at.a;
  for (std::int64_t i = 0; i < at.depth; i += block, a += block) {
    std::int64_t const end = at.depth - i < block ? at.depth - i : block;
    vu odd = {};
    for_sums<1, Panels>([&](auto, auto p, auto v) __attribute__((always_inline)) {
      if constexpr (v.value == 0) {
        to.from[p.value].begin(at.panel[first + p.value], (at.k + i) / block);
      }
      vu const x = to.from[p.value].exponent[v.value];
      odd |= (vu)(x - plain_low > plain_high - plain_low);
    });
    if (any_lane(odd)) {
      change_unit<true>(to);
      for (auto& from : to.from) from.take_scales();
      few_piece<true>(to, a, at.a_stride, end);
    } else {
      change_unit<false>(to);
      few_piece<false>(to, a, at.a_stride, end);
    }
  }
  change_unit<true>(to);
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
  if constexpr (Plain) {
    few_plain_pieces(to, at, first);
  } else {
    few_pieces(to, at, first);
  }
  for_sums<Rows, Panels>([&](auto r, auto p, auto v) __attribute__((always_inline)) {
    store(at.c[first + p.value] + r.value * at.c_row + v.value * lanes,
          to.sum[r.value][p.value][v.value]);
  });
}
