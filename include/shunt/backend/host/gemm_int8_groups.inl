// No include guard: products of rows rounded to int8 with mxfp4 weights: both in groups of 32, whose sums are
// integers, brought to floats group by group.

/// A group of a row. The numbers of k, k + 2 and of k + 1, k + 3 stand side by side, for each four k, and each
/// pair twice, as a vector is filled with them. `offset`: what the sum is too large by, as weights are
/// taken 12 halves too large.
struct row_group {
  signed char number[2 * int8_group];
  float half_scale, offset;
};
inline constexpr int group_bytes = panel_columns * int8_group * (SHUNT_REGION >= 256 ? 1 : 4);

#if SHUNT_REGION >= 256
/// A group's numbers into the order of row_group, and their sum.
SHUNT_LANES int place_numbers(signed char const* number, signed char* to) noexcept {
  __m256i const in_fours = _mm256_setr_epi8(0, 2, 0, 2, 1, 3, 1, 3, 4, 6, 4, 6, 5, 7, 5, 7, 8, 10,
                                            8, 10, 9, 11, 9, 11, 12, 14, 12, 14, 13, 15, 13, 15);
  __m256i sums = _mm256_setzero_si256();
  for (int i = 0; i < 2; ++i) {
    __m128i const half = _mm_loadu_si128((__m128i const*)(number + 16 * i));
    _mm256_storeu_si256((__m256i*)(to + 32 * i),
                        _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(half), in_fours));
    sums = _mm256_add_epi16(sums, _mm256_cvtepi8_epi16(half));
  }
  __m256i const wide = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
  __m128i x = _mm_add_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 0xb1)));
}
/// The numbers of a group's weights, in halves of them and 12 too large, in the order of row_group: of each four
/// k 32 bytes for k and k + 2, then 32 for the others. Of rows r and
/// r + 8 two bytes each, side by side, in the order in which they lie packed.
struct four_k {
  __m256i even, odd;
};
SHUNT_LANES four_k decode_four(unsigned char const* packed) noexcept {
  __m256i const halves = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
  __m256i const low = _mm256_set1_epi8(15), both = _mm256_loadu_si256((__m256i const*)packed);
  __m256i const first = _mm256_shuffle_epi8(halves, _mm256_and_si256(both, low));
  __m256i const last =
      _mm256_shuffle_epi8(halves, _mm256_and_si256(_mm256_srli_epi16(both, 4), low));
  return {_mm256_unpacklo_epi8(first, last), _mm256_unpackhi_epi8(first, last)};
}
/// Weights of a group as they lie packed, and decoded before.
struct group_packed {
  unsigned char const* at;
  SHUNT_LANES explicit group_packed(decoder<mxfp4> const& weights) noexcept : at(weights.number) {}
  SHUNT_LANES four_k get(int i) const noexcept { return decode_four(at + 32 * i); }
};
struct group_decoded {
  unsigned char const* at;
  SHUNT_LANES four_k get(int i) const noexcept {
    auto const* const from = (__m256i const*)(at + 64 * i);
    return {_mm256_load_si256(from), _mm256_load_si256(from + 1)};
  }
};

/// Two vectors of 8 integers as vectors of columns.
SHUNT_LANES void join_columns(__m256i low, __m256i high, vf (&to)[panel_vectors]) noexcept {
#if SHUNT_REGION == 512
  __m512i const both = _mm512_maskz_inserti64x4(0xff, _mm512_castsi256_si512(low), high, 1);
  to[0] = to_float_lanes((vu)both);
#else
  to[0] = to_float_lanes((vu)low);
  to[1] = to_float_lanes((vu)high);
#endif
}

/// The sums of a group, of Rows rows with one panel, to the rows' sums in floats.
template <int Rows, class Weights>
SHUNT_LANES void add_group(row_group const* a, Weights const& weights,
                           vf const (&scale)[panel_vectors], float* c,
                           std::int64_t c_row) noexcept {
  __m256i low[Rows], high[Rows];
  unroll<Rows>([&](auto r) __attribute__((always_inline)) {
    low[r.value] = high[r.value] = _mm256_setzero_si256();
  });
  __m256i const lower = _mm256_set1_epi32(1);
  for (int i = 0; i < int8_group / 4;
       i += 2) {  // four products of at most 2 * 24 * 127 fit 16 bits
    four_k const w0 = weights.get(i), w1 = weights.get(i + 1);
    unroll<Rows>([&](auto r) __attribute__((always_inline)) {
      auto const times = [&](__m256i w, int at) __attribute__((always_inline)) {
        int pairs;
        __builtin_memcpy(&pairs, a[r.value].number + 4 * at, sizeof pairs);
        return _mm256_maddubs_epi16(w, _mm256_set1_epi32(pairs));
      };
      __m256i const sum =
          _mm256_add_epi16(_mm256_add_epi16(times(w0.even, 2 * i), times(w0.odd, 2 * i + 1)),
                           _mm256_add_epi16(times(w1.even, 2 * i + 2), times(w1.odd, 2 * i + 3)));
      low[r.value] = _mm256_add_epi32(low[r.value], _mm256_madd_epi16(sum, lower));
      high[r.value] = _mm256_add_epi32(high[r.value], _mm256_srai_epi32(sum, 16));
    });
  }
  unroll<Rows>([&](auto r) __attribute__((always_inline)) {
    vf x[panel_vectors];
    join_columns(low[r.value], high[r.value], x);
    vf const half_scale = fill(a[r.value].half_scale), offset = fill(a[r.value].offset);
    unroll<panel_vectors>([&](auto v) __attribute__((always_inline)) {
      float* const at = c + r.value * c_row + v.value * lanes;
      store(at, fma(x[v.value] - offset, half_scale * scale[v.value], load(at)));
    });
  });
}
SHUNT_LANES void decode_group(decoder<mxfp4> const& weights, unsigned char* to) noexcept {
  for (int i = 0; i < int8_group / 4; ++i) {
    four_k const w = decode_four(weights.number + 32 * i);
    _mm256_store_si256((__m256i*)(to + 64 * i), w.even);
    _mm256_store_si256((__m256i*)(to + 64 * i + 32), w.odd);
  }
}
inline constexpr int group_rows = 4;  ///< added together
#else
/// Where the number of k stands first in row_group, and two bytes on.
SHUNT_LANES int number_place(int k) noexcept { return k / 4 * 8 + k % 2 * 4 + k / 2 % 2; }
SHUNT_LANES int place_numbers(signed char const* number, signed char* to) noexcept {
  int sum = 0;
  for (int k = 0; k < int8_group; ++k) {
    sum += number[k];
    to[number_place(k)] = to[number_place(k) + 2] = number[k];
  }
  return sum;
}
/// As floats, 16 for each k, in order: all sums are exact in them too.
SHUNT_LANES void decode_group(decoder<mxfp4> const& weights, unsigned char* to) noexcept {
  for (int k = 0; k < int8_group; ++k) {
    weights.each<false>(
        k, nullptr, [&](auto, vf const(&w)[panel_vectors]) __attribute__((always_inline)) {
          for (vf const& x : w) {
            vf const halves = x * 2.0f + 12.0f;  // exact
            __builtin_memcpy(to, &halves, sizeof halves);
            to += sizeof halves;
          }
        });
  }
}
struct group_decoded {
  unsigned char const* at;
};
struct group_packed {
  unsigned char at[group_bytes];
  explicit group_packed(decoder<mxfp4> const& weights) noexcept { decode_group(weights, at); }
};
template <int Rows, class Weights>
SHUNT_LANES void add_group(row_group const* a, Weights const& weights,
                           vf const (&scale)[panel_vectors], float* c, std::int64_t) noexcept {
  static_assert(Rows == 1);
  vf sum[panel_vectors] = {};
  for (int k = 0; k < int8_group; ++k) {
    vf const number = fill(a->number[number_place(k)]);
    for (int v = 0; v < panel_vectors; ++v) {
      vf w;
      __builtin_memcpy(&w, weights.at + (k * panel_columns + v * lanes) * 4, sizeof w);
      sum[v] = sum[v] + w * number;
    }
  }
  for (int v = 0; v < panel_vectors; ++v) {
    float* const at = c + v * lanes;
    vf const factor = fill(a->half_scale) * scale[v];
    store(at, fma(sum[v] - a->offset, factor, load(at)));
  }
}
inline constexpr int group_rows = 1;
#endif

/// `count` groups of a row from `from` on, where `numbers` are left of it, each `apart` from the one before.
template <class T>
SHUNT_LANES void round_groups(T const* from, std::int64_t count, std::int64_t numbers,
                              row_group* to, std::int64_t apart) noexcept {
  for (; count > 0; --count, to += apart, from += int8_group, numbers -= int8_group) {
    std::int64_t const there = numbers < int8_group ? numbers : int8_group;
    int8_scale const scale = int8_scale_of(largest_magnitude(from, there));
    signed char number[int8_group];
    round_group(from, there, scale.inverse, number);
    to->half_scale = 0.5f * scale.scale;
    to->offset = static_cast<float>(12 * place_numbers(number, to->number));
  }
}

/// Panels that are added in turn, each from the piece at hand: a core reads four streams faster than one.
struct group_streams {
  unsigned char const* piece[4];
  float* c[4];
  int count;
};
/// `count` groups of the panels with all rows of a block; Rows of them, or (0) more: bytes are decoded as they are
/// used, or once for all.
template <int Rows>
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
        group_packed const packed(weights);
        add_group<Rows>(a, packed, weights.scale, to.c[i], c_row);
      } else {
        alignas(64) unsigned char bytes[group_bytes];
        decode_group(weights, bytes);
        group_decoded const decoded{bytes};
        std::int64_t r = 0;
        for (; r + group_rows <= rows; r += group_rows) {
          add_group<group_rows>(a + r, decoded, weights.scale, to.c[i] + r * c_row, c_row);
        }
        for (; r < rows; ++r) {
          add_group<1>(a + r, decoded, weights.scale, to.c[i] + r * c_row, c_row);
        }
      }
    }
  }
}

/// All sums of a task.
inline void sums_of_groups(gemm_format_job const& job, gemm_segment const& segment,
                           std::int64_t row, std::int64_t rows, std::int64_t column,
                           std::int64_t columns, float (&block)[gemm_block_rows * gemm_depth],
                           float* sums, std::int64_t half_stride) noexcept {
  using place = format_place<mxfp4>;
  constexpr std::int64_t bytes = sizeof(block), one = sizeof(row_group), room = bytes / one;
  std::int64_t const halves = job.paired ? 2 : 1, stride = halves * half_stride;
  std::int64_t const panels = (columns + panel_columns - 1) / panel_columns, all = halves * panels;
  std::int64_t const groups = (job.ins + int8_group - 1) / int8_group;
  auto const* const expert = expert_of<unsigned char const>(job.w, segment.expert);
  auto* const left = reinterpret_cast<row_group*>(block);
  auto* const add = rows == 1                      ? add_groups<1>
                    : rows == 2 && group_rows >= 2 ? add_groups < group_rows >= 2 ? 2 : 1 >
                                                   : add_groups<0>;
  for (std::int64_t r = 0; r < rows; ++r) zero_row(sums + r * stride, stride);
  for (std::int64_t g = 0, count = 0; g < groups; g += count) {
    count = groups - g < room / rows ? groups - g : room / rows;
    std::int64_t const k = g * int8_group;
    with_stored(job.a.type, [&](auto* tag) {
      using element = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
      for (std::int64_t r = 0; r < rows; ++r) {
        element const* const from = row_of<element>(job.a, segment.first + row + r);
        if (from != nullptr) {
          round_groups(from + k, count, job.ins - k, left + r, rows);
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
        std::int64_t const first = packed_panel(job.w.pairs, half * (job.outs / 2) + column);
        to.piece[run] = expert + (first + in_half) * place::panel_bytes(job.ins) + place::place(k);
        to.c[run] = sums + half * half_stride + in_half * panel_columns;
      }
      add(to, left, rows, count, stride);
    }
  }
}
