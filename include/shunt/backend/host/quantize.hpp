#pragma once
#include <cstdint>
#include <limits>

#include "shunt/backend/host/quantize_rows.hpp"

#define SHUNT_REGION_FILE "shunt/backend/host/quantize_kernels.inl"
#include "shunt/backend/host/simd/for_each_region.inl"

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
              } else if constexpr (is_int4<F>) {
                float const scale = m.finite ? int4_scale(m.most) : nan;
                to.scale(block, scale);
                to.zero_point(block, 8);
                host::round_row(to, row, k, end, scale);
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
  template <int Group, storage T>
  static status pack(on_host const& on, view<std::int8_t const, 3> numbers, view<T const, 3> scale,
                     expert_matrix<int8_group<Group>> const& shape,
                     int8_group<Group>* packed) noexcept {
    host::pack_rows(on, shape, packed, [&](offset_t e, offset_t first, offset_t count, auto place) {
      for (offset_t n = first; n < first + count; ++n) {
        auto const to = place(n);
        for (offset_t i = 0; i < scale.extent(2); ++i) to.scale(i, to_float(scale(e, n, i)));
        for (offset_t k = 0; k < shape.columns(); ++k) {
          to.number(k, static_cast<unsigned char>(numbers(e, n, k)));
        }
      }
    });
    return {};
  }

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

  /// From numbers that lie in any way: number(e, n, k), scale(e, n, group), zero_point(e, n, group).
  template <int Group, class From>
  static status pack_int4(on_host const& on, From const& from,
                          expert_matrix<int4_group<Group>> const& shape,
                          int4_group<Group>* packed) noexcept {
    offset_t const K = shape.columns();
    host::pack_rows(on, shape, packed, [&](offset_t e, offset_t first, offset_t count, auto place) {
      for (offset_t n = first; n < first + count; ++n) {
        auto const to = place(n);
        for (offset_t k = 0, group = 0; k < K; ++group) {
          to.scale(group, from.scale(e, n, group));
          to.zero_point(group, from.zero_point(e, n, group));
          for (offset_t const end = K - k < Group ? K : k + Group; k < end; ++k) {
            to.number(k, from.number(e, n, k));
          }
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
