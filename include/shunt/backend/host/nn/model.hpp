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
