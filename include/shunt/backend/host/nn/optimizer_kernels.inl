// No include guard: sums of squares and AdamW, element by element.
namespace nn {

inline float sum_of_squares(float const* x, std::int64_t n) noexcept { return row_dot(x, x, n); }

inline float norm_of(float const* partial, std::int64_t n) noexcept {
  return sqrt(fill(row_sum(partial, n)))[0];
}

/// m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², p ← (1 − ηλ)p − η (m/c₁) / (√(v/c₂) + ε).
template <class T>
void adamw_range(adamw_args<T> const& a, adamw_factors const& f, float factor, std::int64_t first,
                 std::int64_t last) noexcept {
  vf const scale = fill(factor), beta1 = fill(a.beta1), beta2 = fill(a.beta2);
  vf const rest1 = fill(a.rest1), rest2 = fill(a.rest2), keep = fill(f.keep);
  vf const unbias1 = fill(f.unbias1), unbias2 = fill(f.unbias2);
  vf const epsilon = fill(a.epsilon), back = fill(-f.rate);
  for (std::int64_t i = first; i < last; i += lanes) {
    std::int64_t const left = last - i;
    vf const g = load_up_to(a.gradient + i, left) * scale;
    vf const m = fma(beta1, load_up_to(a.first_moment + i, left), rest1 * g);
    vf const v = fma(beta2, load_up_to(a.second_moment + i, left), rest2 * g * g);
    vf const step = m * unbias1 / (sqrt(v * unbias2) + epsilon);
    vf const p = fma(back, step, load_up_to(a.parameter + i, left) * keep);
    store_up_to(a.first_moment + i, m, left);
    store_up_to(a.second_moment + i, v, left);
    store_up_to(a.parameter + i, p, left);
    if (a.copy != nullptr) store_up_to(a.copy + i, p, left);
  }
}

template <class T> void copy_range(float const* from, T* to, std::int64_t n) noexcept {
  for (std::int64_t i = 0; i < n; i += lanes) {
    store_up_to(to + i, load_up_to(from + i, n - i), n - i);
  }
}

}  // namespace nn
