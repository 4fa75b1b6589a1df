#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "shunt/backend/host/gemm/driver.hpp"
#include "shunt/backend/host/pages.hpp"
#include "shunt/experts/gemm_operands.hpp"
#include "shunt/experts/quantize_types.hpp"

#define SHUNT_REGION_FILE "shunt/backend/host/quantize_kernels.inl"
#include "shunt/backend/host/simd/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_ABI {

/// One row of a packed matrix: its panel, and its place among the panel's sixteen.
template <class F> struct packed_row {
  using packing = shunt::detail::packing<F>;
  unsigned char* panel;
  std::int64_t lane;

  [[nodiscard]] unsigned char* piece(std::int64_t block) const noexcept {
    return panel + packing::head + block * packing::piece_bytes;
  }
  void number(std::int64_t k, unsigned char bits) const noexcept {
    if constexpr (shunt::detail::is_e2m1<F>) {
      constexpr std::int64_t block = packing::block;
      auto const lane_in = static_cast<int>(lane), k_in = static_cast<int>(k & 1);
      unsigned char& two =
          piece(k / block)[16 + k % block / 4 * 32 + shunt::detail::nibble_byte(lane_in, k_in)];
      int const shift = (k & 2) * 2;
      two = static_cast<unsigned char>((two & (0xf0 >> shift)) | (bits & 15) << shift);
    } else if constexpr (std::same_as<F, fp8_block>) {
      piece(k / 128)[64 + k % 128 / 2 * 32 + lane * 2 + k % 2] = bits;
    } else {
      piece(k)[lane] = bits;
    }
  }
  /// Of the piece `block`, or (int8, nvfp4's tensor's) of the row.
  void scale(std::int64_t block, float value) const noexcept {
    if constexpr (std::same_as<F, fp8_block>) value = value * 256.0f;
    // What a decoder cannot hold: 256 times a scale of 2^120 or more.
    bool const held = !std::same_as<F, fp8_block> || std::isfinite(value);
    if (!held) value = std::numeric_limits<float>::quiet_NaN();
    std::memcpy((std::same_as<F, fp8_block> ? piece(block) : panel) + lane * 4, &value, 4);
  }
  /// What scale() put there.
  [[nodiscard]] float row_scale() const noexcept {
    float value;
    std::memcpy(&value, panel + lane * 4, 4);
    return value;
  }
  /// E8m0 or e4m3.
  void scale_bits(std::int64_t block, unsigned char bits) const noexcept {
    piece(block)[lane] = bits;
  }
};

/// Where row `row` of the caller goes among the logical ones.
inline std::int64_t logical_row(gemm_pairs const& pairs, std::int64_t row) noexcept {
  std::int64_t const half = pairs.half_rows, block = pairs.block == 0 ? half : pairs.block;
  if (half == 0) return row;
  std::int64_t const start = row / (2 * block) * block, within = row - 2 * start;
  std::int64_t const width = half - start < block ? half - start : block;
  bool const second = within >= width;
  return (second != pairs.up_first ? half : 0) + start + within - (second ? width : 0);
}

/// Bytes of E matrices of zeros.
template <class F>
void pack_zeros(on_host const& on, expert_matrix<F> const& shape, F* packed) noexcept {
  auto* const bytes = reinterpret_cast<unsigned char*>(packed);
  std::int64_t const panel_bytes = shape.panel_elements(), panels = shape.packed_panels();
  advise_huge_pages(packed, static_cast<std::size_t>(shape.packed_elements()));
  parallel(on, shape.experts() * panels, [&](std::int64_t panel, int) {
    std::memset(bytes + panel * panel_bytes, 0, static_cast<std::size_t>(panel_bytes));
    if constexpr (std::same_as<F, mxfp4>) {  // scales of 1: those of no row need no care in sums
      for (std::int64_t at = 0; at < panel_bytes; at += shunt::detail::packing<F>::piece_bytes) {
        std::memset(bytes + panel * panel_bytes + at, 127, 16);
      }
    }
  });
}

/// Up to `most` of the caller's rows a task: write(e, first, count, place), with place(row) the
/// packed_row of a row.
template <class F, class Write>
void write_rows(on_host const& on, expert_matrix<F> const& shape, F* packed, Write const& write,
                std::int64_t most = 128) noexcept {
  gemm_pairs const pairs = shunt::detail::gemm_weights_of(shape).pairs;
  std::int64_t const rows = shape.rows(), tasks = (rows + most - 1) / most;
  std::int64_t const half = pairs.half_rows != 0 ? pairs.half_rows : rows;
  std::int64_t const half_panels = (half + gemm_panel - 1) / gemm_panel;
  auto* const bytes = reinterpret_cast<unsigned char*>(packed);
  std::int64_t const panel_bytes = shape.panel_elements(), panels = shape.packed_panels();
  parallel(on, shape.experts() * tasks, [&](std::int64_t task, int) {
    std::int64_t const e = task / tasks, first = task % tasks * most;
    auto const place = [&](std::int64_t row) {
      std::int64_t const n = logical_row(pairs, row);
      std::int64_t const panel = (n < half ? 0 : half_panels) + n % half / gemm_panel;
      return packed_row<F>{bytes + (e * panels + panel) * panel_bytes, n % half % gemm_panel};
    };
    write(e, first, rows - first < most ? rows - first : most, place);
  });
}

/// Packs E matrices by write_rows. Numbers that are not written are zero.
template <class F, class Write>
void pack_rows(on_host const& on, expert_matrix<F> const& shape, F* packed,
               Write const& write) noexcept {
  pack_zeros(on, shape, packed);
  write_rows(on, shape, packed, write);
}

/// The largest finite magnitude of `count` numbers, and whether all are finite.
struct magnitudes {
  float most = 0.0f;
  bool finite = true;
};
template <class Row>
magnitudes magnitudes_of(Row const& row, std::int64_t first, std::int64_t last) noexcept {
  magnitudes m;
  for (std::int64_t k = first; k < last; ++k) {
    float const x = std::fabs(row(k));
    if (!(x <= std::numeric_limits<float>::max())) {
      m.finite = false;
    } else if (x > m.most) {
      m.most = x;
    }
  }
  return m;
}

/// The numbers nearest to row(k) / scale, k of [first, last).
template <class F, class Row>
void round_row(packed_row<F> const& to, Row const& row, std::int64_t first, std::int64_t last,
               float scale) noexcept {
  for (std::int64_t k = first; k < last; ++k) {
    if constexpr (std::same_as<F, mxfp4>) {
      to.number(k, shunt::detail::e2m1_nearest(row(k) * scale));
    } else if constexpr (std::same_as<F, nvfp4>) {
      to.number(k, shunt::detail::e2m1_nearest(row(k) / scale));
    } else {
      float const x = row(k) / scale;
      to.number(k, std::same_as<F, int8_channel> ? shunt::detail::int8_nearest(x)
                                                 : from_float<fp8_e4m3>(x).bits);
    }
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host

namespace shunt::detail {

template <> struct quantize_backend<on_host> {
  /// Each scale group of a row that holds a number that is not finite becomes NaN.
  template <storage W, quantized F>
  static status quantize(on_host const& on, expert_matrix<W> const& w,
                         expert_matrix<F> const& shape, F* packed) noexcept {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    std::int64_t const K = w.columns(), wide = block_columns<F>(K);
    host::pack_zeros(on, shape, packed);
    if constexpr (std::same_as<F, nvfp4>) tensor_scales(on, w, shape, packed);
    host::write_rows(
        on, shape, packed, [&](offset_t e, offset_t first, offset_t count, auto place) {
          auto const row_at = [&](offset_t n) { return numbers_of(w, e, n); };
          for (std::int64_t k = 0; k < K; k += wide) {
            std::int64_t const end = K - k < wide ? K : k + wide, block = k / wide;
            float most = 0.0f;
            for (offset_t i = 0; std::same_as<F, fp8_block> && i < count; ++i) {
              float const m = host::magnitudes_of(row_at(first + i), k, end).most;
              most = m > most ? m : most;
            }
            for (offset_t i = 0; i < count; ++i) {
              auto const row = row_at(first + i);
              host::magnitudes const m = host::magnitudes_of(row, k, end);
              auto const to = place(first + i);
              if constexpr (std::same_as<F, mxfp4>) {
                std::uint8_t const e8m0 = m.finite ? shared_exponent(m.most) : std::uint8_t{255};
                to.scale_bits(block, e8m0);
                if (m.finite) host::round_row(to, row, k, end, e8m0_value(254 - e8m0));
              } else if constexpr (std::same_as<F, nvfp4>) {
                float const of_tensor = to.row_scale();
                fp8_e4m3 const e4m3 = of_tensor > 0.0f
                                          ? from_float<fp8_e4m3>(m.most / 6.0f / of_tensor)
                                          : fp8_e4m3{0};
                float const scale = to_float(e4m3) * of_tensor;
                to.scale_bits(block, m.finite ? e4m3.bits : std::uint8_t{0x7f});
                if (m.finite && scale > 0.0f) host::round_row(to, row, k, end, scale);
              } else {
                float const scale =
                    std::same_as<F, fp8_block> ? most / 448.0f : int8_row_scale(m.most);
                to.scale(block, m.finite ? scale : nan);
                if (m.finite && scale > 0.0f) host::round_row(to, row, k, end, scale);
              }
            }
          }
        });
    return {};
  }

  static status pack(on_host const& on, view<std::int8_t const, 3> numbers,
                     view<float const, 2> scale, expert_matrix<int8_channel> const& shape,
                     int8_channel* packed) noexcept {
    host::pack_rows(on, shape, packed, [&](offset_t e, offset_t first, offset_t count, auto place) {
      for (offset_t n = first; n < first + count; ++n) {
        auto const to = place(n);
        to.scale(0, scale(e, n));
        for (offset_t k = 0; k < shape.columns(); ++k) {
          to.number(k, static_cast<std::uint8_t>(numbers(e, n, k)));
        }
      }
    });
    return {};
  }

  /// A row's 128 with a number that is NaN become NaN.
  static status pack(on_host const& on, view<fp8_e4m3 const, 3> numbers, view<float const, 3> scale,
                     expert_matrix<fp8_block> const& shape, fp8_block* packed) noexcept {
    host::pack_rows(on, shape, packed, [&](offset_t e, offset_t first, offset_t count, auto place) {
      for (offset_t n = first; n < first + count; ++n) {
        auto const to = place(n);
        for (offset_t block = 0; block < scale.extent(2); ++block) {
          bool nan = false;
          for (offset_t k = 128 * block; k < shape.columns() && k < 128 * (block + 1); ++k) {
            std::uint8_t const bits = numbers(e, n, k).bits;
            if ((bits & 0x7f) == 0x7f) {
              nan = true;
            } else {
              to.number(k, bits);
            }
          }
          to.scale(block, nan ? std::numeric_limits<float>::quiet_NaN() : scale(e, n / 128, block));
        }
      }
    });
    return {};
  }

  static status pack(on_host const& on, view<std::uint8_t const, 4> blocks,
                     view<std::uint8_t const, 3> scales, expert_matrix<mxfp4> const& shape,
                     mxfp4* packed) noexcept {
    host::pack_rows(on, shape, packed, [&](offset_t e, offset_t first, offset_t count, auto place) {
      for (offset_t n = first; n < first + count; ++n) {
        auto const to = place(n);
        for (offset_t block = 0; block < scales.extent(2); ++block) {
          to.scale_bits(block, scales(e, n, block));
          for (offset_t i = 0; i < 16; ++i) {
            std::uint8_t const two = blocks(e, n, block, i);
            to.number(32 * block + 2 * i, two & 15);
            to.number(32 * block + 2 * i + 1, two >> 4);
          }
        }
      }
    });
    return {};
  }

  static status pack(on_host const& on, view<std::uint8_t const, 3> numbers,
                     view<fp8_e4m3 const, 3> scales, view<float const, 1> of_tensor,
                     expert_matrix<nvfp4> const& shape, nvfp4* packed) noexcept {
    host::pack_rows(on, shape, packed, [&](offset_t e, offset_t first, offset_t count, auto place) {
      for (offset_t n = first; n < first + count; ++n) {
        auto const to = place(n);
        to.scale(0, of_tensor[e]);
        for (offset_t i = 0; i < scales.extent(2); ++i) to.scale_bits(i, scales(e, n, i).bits);
        for (offset_t i = 0; i < numbers.extent(2); ++i) {
          std::uint8_t const two = numbers(e, n, i);
          to.number(2 * i, two & 15);
          to.number(2 * i + 1, two >> 4);
        }
      }
    });
    return {};
  }

  template <quantized F>
  static status dequantize(on_host const& on, expert_matrix<F> const& w,
                           view<float, 3> out) noexcept {
    host::gemm_experts<void const> const from = gemm_weights_of(w);
    std::int64_t const N = w.rows(), K = w.columns(), panels = w.packed_panels();
    auto* const decode = SHUNT_ISA_PICK(on, decode_rows<F>);
    host::parallel(on, w.experts() * panels, [&](std::int64_t task, int) {
      std::int64_t const e = task / panels;
      decode(from, N, K, e, task % panels, out.data() + e * out.stride(0), out.stride(1));
    });
    return {};
  }

 private:
  template <storage W>
  static auto numbers_of(expert_matrix<W> const& w, offset_t e, offset_t n) noexcept {
    return
        [from = w.row(e, n), step = w.stride(2)](offset_t k) { return to_float(from[k * step]); };
  }

  /// Each row's float is that of its expert's largest number: first each row's own, where it will be,
  /// then the largest of them.
  template <storage W>
  static void tensor_scales(on_host const& on, expert_matrix<W> const& w,
                            expert_matrix<nvfp4> const& shape, nvfp4* packed) noexcept {
    host::write_rows(
        on, shape, packed, [&](offset_t e, offset_t first, offset_t count, auto place) {
          for (offset_t n = first; n < first + count; ++n) {
            place(n).scale(0, host::magnitudes_of(numbers_of(w, e, n), 0, w.columns()).most);
          }
        });
    auto const largest = [&](offset_t, offset_t, offset_t count, auto place) {
      float most = 0.0f;
      for (offset_t n = 0; n < count; ++n) {
        float const own = place(n).row_scale();
        most = own > most ? own : most;
      }
      for (offset_t n = 0; n < count; ++n) place(n).scale(0, nvfp4_tensor_scale(most));
    };
    host::write_rows(on, shape, packed, largest, w.rows());
  }

  /// Columns that share a scale.
  template <class F> static constexpr offset_t block_columns(offset_t K) noexcept {
    return std::same_as<F, int8_channel> ? K : packing<F>::block;
  }
};

}  // namespace shunt::detail
