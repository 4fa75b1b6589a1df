#pragma once
#include <cstdint>

#include "shunt/core/abi.hpp"
#include "shunt/core/macros.hpp"
#include "shunt/core/math.hpp"
#include "shunt/core/shape.hpp"
#include "shunt/route/options.hpp"
#include "shunt/route/routing.hpp"

namespace shunt::math {
#define SHUNT_MATH SHUNT_HD inline
#include "shunt/route/score_functions.inl"
#undef SHUNT_MATH
}  // namespace shunt::math

/// What the kernels of the router need to know of a call, shared by all backends (make_rule.hpp).
namespace shunt::detail {

inline constexpr std::int64_t route_strip = 32;  // partial sums of a row: rows are padded to strips
SHUNT_HD constexpr std::int64_t strips_of(std::int64_t n) noexcept {
  return (n + route_strip - 1) / route_strip * route_strip;
}

/// Of one call: made once by make_rule.
struct route_rule {
  std::int64_t experts = 0, top_k = 0;
  std::int64_t padded = 0, padded_k = 0;  ///< both, up to whole strips
  score_kind score = score_kind::softmax;
  gate_kind gates = gate_kind::raw;
  float scale = 1.0f, epsilon = 0.0f;
  std::int64_t groups = 1, top_groups = 1;
  group_rule group_by = group_rule::best;
  float jitter = 0.0f;
  bool random_second = false;

  float const* choice_bias = nullptr;
  /// Renormalized softmax without epsilon is the softmax of the chosen logits: no other logit matters.
  bool chosen_logits = false;
  bool choose_by_score = false;  ///< else by the logit: the same order, never rounded to a tie
  bool exponentials = false;     ///< the softmax denominator is needed
  bool scores = false;           ///< every expert's score is needed
  bool importance = false, z = false;

  std::int64_t bins = 0;  ///< of the histogram; 0: none wanted
  float lowest = 0.0f, bins_per_unit = 0.0f;
};

inline namespace SHUNT_ABI {

/// Tokens are taken in blocks of this many for any thread count: each block sums its own load,
/// and the blocks' sums are added in order.
inline constexpr std::int64_t route_block = 32;

constexpr std::int64_t blocks_of(std::int64_t tokens, std::int64_t sequences) noexcept {
  return sequences * ((tokens / sequences + route_block - 1) / route_block);
}

/// Blocks of tokens: `sequences` runs of `length` tokens, each cut into blocks of its own.
struct token_blocks {
  std::int64_t sequences, length, each;
  token_blocks(std::int64_t tokens, std::int64_t n) noexcept
      : sequences(n), length(tokens / n), each((tokens / n + route_block - 1) / route_block) {}
  [[nodiscard]] SHUNT_HD std::int64_t count() const noexcept { return sequences * each; }
  [[nodiscard]] SHUNT_HD std::int64_t first(std::int64_t block) const noexcept {
    return block / each * length + block % each * route_block;
  }
  [[nodiscard]] SHUNT_HD std::int64_t last(std::int64_t block) const noexcept {
    std::int64_t const end = (block / each + 1) * length, full = first(block) + route_block;
    return full < end ? full : end;
  }
};

/// An id from outside that is neither an expert's nor -1; and a row that no table of ids has.
SHUNT_HD constexpr bool is_wild(index_t id, std::int64_t experts) noexcept {
  return id < -1 || id >= experts;
}
template <space S>
SHUNT_HD constexpr bool has_row(expert_ids<S> const& ids, std::int64_t row) noexcept {
  return row >= 0 && row < ids.extent(0);
}

/// The histogram's range: from one below the least finite bias to one above the largest.
struct bias_range {
  float lowest, highest;

  static SHUNT_HD bias_range none() noexcept { return {__builtin_inff(), -__builtin_inff()}; }
  SHUNT_HD void add(float b) noexcept {
    if (!(math::abs(b) < __builtin_inff())) return;
    lowest = b < lowest ? b : lowest;
    highest = b > highest ? b : highest;
  }
  [[nodiscard]] SHUNT_HD bias_range widened() const noexcept {
    bool const any = lowest <= highest;
    return {(any ? lowest : 0.0f) - 1.0f, (any ? highest : 0.0f) + 1.0f};
  }
  [[nodiscard]] SHUNT_HD float bins_per_unit(std::int64_t bins) const noexcept {
    return static_cast<float>(bins) / (highest - lowest);
  }
};

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
