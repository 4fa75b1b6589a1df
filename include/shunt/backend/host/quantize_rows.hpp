#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "shunt/backend/host/gemm/driver.hpp"
#include "shunt/backend/host/pages.hpp"
#include "shunt/experts/gemm_operands.hpp"
#include "shunt/experts/quantize_types.hpp"

/// Rows of weights into their packed form, number by number.
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
    if constexpr (shunt::detail::is_four_bits<F>) {
      constexpr std::int64_t block = packing::block, scales = packing::piece_bytes - 8 * block;
      auto const lane_in = static_cast<int>(lane), k_in = static_cast<int>(k & 1);
      unsigned char& two =
          piece(k / block)[scales + k % block / 4 * 32 + shunt::detail::nibble_byte(lane_in, k_in)];
      int const shift = (k & 2) * 2;
      two = static_cast<unsigned char>((two & (0xf0 >> shift)) | (bits & 15) << shift);
    } else if constexpr (std::same_as<F, fp8_block>) {
      piece(k / 128)[64 + k % 128 / 2 * 32 + lane * 2 + k % 2] = bits;
    } else if constexpr (shunt::detail::is_int8_group<F>) {
      piece(k / packing::block)[64 + k % packing::block * 16 + lane] = bits;
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
    constexpr bool of_piece =
        std::same_as<F, fp8_block> || shunt::detail::is_int4<F> || shunt::detail::is_int8_group<F>;
    std::memcpy((of_piece ? piece(block) : panel) + lane * 4, &value, 4);
  }
  void zero_point(std::int64_t block, unsigned char bits) const noexcept {
    piece(block)[64 + lane] = bits;
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
    } else if constexpr (shunt::detail::is_int4<F>) {
      to.number(k, scale > 0.0f ? shunt::detail::int4_nearest(row(k) / scale) : std::uint8_t{8});
    } else if constexpr (std::same_as<F, nvfp4>) {
      to.number(k, shunt::detail::e2m1_nearest(row(k) / scale));
    } else {
      float const x = row(k) / scale;
      to.number(k, std::same_as<F, fp8_block> ? from_float<fp8_e4m3>(x).bits
                                              : shunt::detail::int8_nearest(x));
    }
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host
