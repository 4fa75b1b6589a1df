#pragma once
#include <cstdint>

#include "shunt/backend/host/pool.hpp"
#include "shunt/core/random.hpp"
#include "shunt/core/view.hpp"
#include "shunt/nn/angle.hpp"

namespace shunt::host {
inline namespace SHUNT_HOST_ABI {

/// values[i] = deviation · a normal value that depends on seed and first + i only (Box and Muller).
inline void fill_normal(on_host const& on, view<float, 1> values, std::uint64_t seed,
                        offset_t first, double deviation) noexcept {
  parallel_ranges(on, values.extent(0), 4096, [&](offset_t from, offset_t last, int) {
    for (offset_t i = from; i < last; ++i) {
      random_words const r = random_at(seed, static_cast<std::uint64_t>(first + i));
      double const u = (static_cast<double>(r.word[0]) + 0.5) * 0x1p-32;
      double const turn = static_cast<double>(r.word[1]) * (0x1p-32 * 6.283185307179586);
      double const radius = __builtin_sqrt(-2.0 * shunt::nn::detail::logarithm_of(u));
      values[i] =
          static_cast<float>(deviation * (radius * shunt::nn::detail::sine_cosine_of(turn).cosine));
    }
  });
}

inline void fill_with(on_host const& on, view<float, 1> values, float value) noexcept {
  parallel_ranges(on, values.extent(0), 4096, [&](offset_t from, offset_t last, int) {
    for (offset_t i = from; i < last; ++i) values[i] = value;
  });
}

/// Splits [B,S+1] into inputs and targets, and marks the inputs that count.
inline void split_tokens(view<index_t const, 2> tokens, index_t* input, index_t* target,
                         std::uint8_t* valid) noexcept {
  offset_t const length = tokens.extent(1) - 1;
  for (offset_t b = 0; b < tokens.extent(0); ++b) {
    for (offset_t s = 0; s < length; ++s) {
      offset_t const t = b * length + s;
      input[t] = tokens(b, s);
      target[t] = tokens(b, s + 1);
      valid[t] = input[t] >= 0 ? 1 : 0;
    }
  }
}

}  // namespace SHUNT_HOST_ABI
}  // namespace shunt::host
