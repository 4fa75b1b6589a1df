// No include guard: RMS norm, one row after another.
namespace nn {

template <class T, class W>
void rms_norm_rows(rms_norm_args<T, W> const& a, std::int64_t first, std::int64_t last) noexcept {
  std::int64_t const n = a.width;
  for (std::int64_t t = first; t < last; ++t) {
    T const* x = a.x + t * a.x_row;
    T* const y = a.y + t * a.y_row;
    if (a.add != nullptr) {
      T const* const add = a.add + t * a.add_row;
      T* const sum = a.sum + t * a.sum_row;
      for (std::int64_t i = 0; i < n; i += lanes) {
        store_up_to(sum + i, load_up_to(x + i, n - i) + load_up_to(add + i, n - i), n - i);
      }
      x = sum;  // as it was rounded: what backward will read
    }
    float const mean = row_dot(x, x, n) / static_cast<float>(n);
    float const inverse = 1.0f / sqrt(fill(mean + a.epsilon))[0];
    if (a.inverse != nullptr) a.inverse[t * a.inverse_step] = inverse;
    for (std::int64_t i = 0; i < n; i += lanes) {
      vf const unit = load_up_to(x + i, n - i) * fill(inverse);
      store_up_to(y + i, unit * load_up_to(a.weight + i, n - i), n - i);
    }
  }
}

/// dx of one row: r·w·dy − x·r³/H·Σ dy·w·x, plus what is added.
template <class T, class W>
SHUNT_INLINE void rms_norm_backward_row(rms_norm_backward_args<T, W> const& a,
                                        std::int64_t t) noexcept {
  std::int64_t const n = a.width;
  T const* const x = a.x + t * a.x_row;
  T const* const dy = a.d_y + t * a.d_y_row;
  T* const dx = a.d_x + t * a.d_x_row;
  float const r = a.inverse[t * a.inverse_step];
  strip s = strip_of(0.0f);
  for (std::int64_t i = 0, v = 0; i < n; i += lanes, ++v) {
    vf const wdy = load_up_to(a.weight + i, n - i) * load_up_to(dy + i, n - i);
    int const p = static_cast<int>(v % strip_vectors);
    s.part[p] = fma(wdy, load_up_to(x + i, n - i), s.part[p]);
  }
  float const pull = -(sum_of(s) / static_cast<float>(n) * r * r * r);
  T const* const add = a.add == nullptr ? nullptr : a.add + t * a.add_row;
  for (std::int64_t i = 0; i < n; i += lanes) {
    vf const wdy = load_up_to(a.weight + i, n - i) * load_up_to(dy + i, n - i);
    vf d = fma(load_up_to(x + i, n - i), fill(pull), wdy * fill(r));
    if (add != nullptr) d = d + load_up_to(add + i, n - i);
    store_up_to(dx + i, d, n - i);
  }
}

/// The rows [first, last), and their share of dw in `partial` (null: not wanted).
template <class T, class W>
void rms_norm_backward_rows(rms_norm_backward_args<T, W> const& a, std::int64_t first,
                            std::int64_t last, float* partial) noexcept {
  std::int64_t const n = a.width;
  if (partial != nullptr) {
    for (std::int64_t i = 0; i < n; i += lanes) store_up_to(partial + i, fill(0.0f), n - i);
  }
  for (std::int64_t t = first; t < last; ++t) {
    if (partial != nullptr) {  // before dx, which may lie where dy does
      T const* const x = a.x + t * a.x_row;
      T const* const dy = a.d_y + t * a.d_y_row;
      vf const r = fill(a.inverse[t * a.inverse_step]);
      for (std::int64_t i = 0; i < n; i += lanes) {
        vf const unit = load_up_to(x + i, n - i) * r;
        store_up_to(partial + i,
                    fma(load_up_to(dy + i, n - i), unit, load_up_to(partial + i, n - i)), n - i);
      }
    }
    if (a.d_x != nullptr) rms_norm_backward_row(a, t);
  }
}

/// Columns [first, last): the sum of the partial rows in their order, from 0 or from what is there.
inline void sum_partials(float const* partial, std::int64_t rows, std::int64_t width, float* out,
                         bool accumulate, std::int64_t first, std::int64_t last) noexcept {
  for (std::int64_t i = first; i < last; i += lanes) {
    vf sum = accumulate ? load_up_to(out + i, last - i) : fill(0.0f);
    for (std::int64_t b = 0; b < rows; ++b) {
      sum = sum + load_up_to(partial + b * width + i, last - i);
    }
    store_up_to(out + i, sum, last - i);
  }
}

}  // namespace nn
