#pragma once
#include <cstdint>
#include <vector>

#include <shunt/core/shape.hpp>

namespace bench {

/// How the tokens fall on the experts.
enum class skew {
  uniform,    ///< every expert alike
  zipf,       ///< the r-th most popular expert 1/r as often as the first
  one_hot,    ///< expert 0 in every token's choice, the others alike
  half_empty  ///< no token for every second expert
};

inline constexpr skew all_skews[] = {skew::uniform, skew::zipf, skew::one_hot, skew::half_empty};

[[nodiscard]] char const* to_string(skew which);

/// One logit per token and expert, [T,E], whose K largest are drawn without replacement from the
/// skew's distribution (Gumbel's trick): what a router would be given.
[[nodiscard]] std::vector<float> logits(shunt::shape const& s, skew which, std::uint64_t seed = 1);

/// The K distinct expert ids of each token, [T,K].
[[nodiscard]] std::vector<shunt::index_t> expert_ids(shunt::shape const& s, skew which,
                                                     std::uint64_t seed = 1);

/// `count` floats, even in (-range, range): the contents of tokens and weights.
[[nodiscard]] std::vector<float> noise(std::size_t count, float range, std::uint64_t seed);

}  // namespace bench
