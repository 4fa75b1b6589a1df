#pragma once
#include <cstdint>

#include "shunt/backend/host/pool.hpp"
#include "shunt/nn/detail/angle.hpp"
#include "shunt/nn/detail/args.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <> struct model_backend<on_host> {
  /// values[i] = normal_at(seed, first + i, deviation).
  static status fill_normal(on_host const& on, view<float, 1> values, std::uint64_t seed,
                            offset_t first, double deviation) noexcept {
    host::parallel_ranges(on, values.extent(0), 4096, [&](offset_t from, offset_t last, int) {
      for (offset_t i = from; i < last; ++i) {
        values[i] = normal_at(seed, static_cast<std::uint64_t>(first + i), deviation);
      }
    });
    return {};
  }
  static status fill(on_host const& on, view<float, 1> values, float value) noexcept {
    host::parallel_ranges(on, values.extent(0), 4096, [&](offset_t from, offset_t last, int) {
      for (offset_t i = from; i < last; ++i) values[i] = value;
    });
    return {};
  }
  /// Cuts rows [T,N] into parts of `each` columns, the last ones filled with zeros: out [parts,T,each].
  template <class T>
  static void cut_columns(on_host const& on, view<T const, 2> rows, offset_t each, int parts,
                          T* out) noexcept {
    offset_t const tokens = rows.extent(0), columns = rows.extent(1);
    host::parallel_ranges(on, tokens, 256, [&](offset_t first, offset_t last, int) {
      for (offset_t t = first; t < last; ++t) {
        T const* const from = rows.data() + t * rows.stride(0);
        for (offset_t p = 0; p < parts; ++p) {
          T* const to = out + (p * tokens + t) * each;
          offset_t const left = columns - p * each,
                         count = left < each ? (left > 0 ? left : 0) : each;
          for (offset_t c = 0; c < count; ++c) to[c] = from[p * each + c];
          for (offset_t c = count; c < each; ++c) to[c] = T{};
        }
      }
    });
  }
  /// Takes [B,S] inputs, and with `target` the S targets that begin one later, and marks the inputs
  /// that count.
  static status split_tokens(on_host const&, view<index_t const, 2> tokens, offset_t length,
                             index_t* input, index_t* target, std::uint8_t* valid) noexcept {
    for (offset_t b = 0; b < tokens.extent(0); ++b) {
      for (offset_t s = 0; s < length; ++s) {
        offset_t const t = b * length + s;
        input[t] = tokens(b, s);
        if (target != nullptr) target[t] = tokens(b, s + 1);
        valid[t] = input[t] >= 0 ? 1 : 0;
      }
    }
    return {};
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
