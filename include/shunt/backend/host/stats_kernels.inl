// No include guard: the sums over experts, 32 at a time.
#define SHUNT_MATH SHUNT_INLINE
#include "shunt/stats/load_functions.inl"
#undef SHUNT_MATH

/// Adds 32 experts: their shares, and of each (share - u) / (share + u) and (share + u) / 4.
inline void add_experts(load_strip const& at, load_sums& sums) noexcept {
  for (int i = 0; i < strip_vectors; ++i) {
    int const j = i * lanes;
    vf const p = load(at.share + j);
    store(sums.entropy + j, fma(p, self_information(p), load(sums.entropy + j)));
    store(sums.divergence + j,
          fma(load(at.weight + j), lopsided(load(at.skew + j)), load(sums.divergence + j)));
  }
}

inline float sum_of_strip(float const* values) noexcept { return row_sum(values, strip_width); }
