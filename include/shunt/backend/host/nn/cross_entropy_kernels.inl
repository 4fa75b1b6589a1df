// No include guard: softmax, loss and gradient of rows of logits, in place.
namespace nn {

/// loss = log Σ e^z − z[target]; with `wanted`, z becomes scale · (softmax − one-hot).
inline void cross_entropy_rows(cross_entropy_args const& a, float scale, std::int64_t first,
                               std::int64_t last, bool wanted) noexcept {
  std::int64_t const n = a.vocabulary;
  for (std::int64_t t = first; t < last; ++t) {
    float* const z = a.logits + t * a.logits_row;
    index_t const target = a.target[t * a.target_step];
    if (target < 0) {
      a.loss[t * a.loss_step] = 0.0f;
      for (std::int64_t i = 0; wanted && i < n; i += lanes) store_up_to(z + i, vf{}, n - i);
      continue;
    }
    strip top = strip_of(-__builtin_inff());
    for_strips(z, n, -__builtin_inff(),
               [&](int i, vf x) { top.part[i] = select(top.part[i] < x, x, top.part[i]); });
    float const peak = max_of(top), chosen = z[target];
    strip sum = strip_of(0.0f);
    if (wanted) {
      std::int64_t at = 0;
      for (int i = 0; at < n; ++i, at += lanes) {
        bool const whole = n - at >= lanes;
        vf const x = whole ? load(z + at) : load_first(z + at, n - at, -__builtin_inff());
        vf const e = exp(x - fill(peak));
        store_up_to(z + at, e, n - at);
        sum.part[i % strip_vectors] = sum.part[i % strip_vectors] + e;
      }
    } else {
      for_strips(z, n, -__builtin_inff(),
                 [&](int i, vf x) { sum.part[i] = sum.part[i] + exp(x - fill(peak)); });
    }
    float const total = sum_of(sum);
    a.loss[t * a.loss_step] = peak + log(fill(total))[0] - chosen;
    if (!wanted) continue;
    float const share = 1.0f / total;
    float const there = fma(fill(z[target]), fill(share), fill(-1.0f))[0];
    vf const factor = fill(share * scale);
    for (std::int64_t i = 0; i < n; i += lanes) {
      store_up_to(z + i, load_up_to(z + i, n - i) * factor, n - i);
    }
    z[target] = there * scale;
  }
}

/// The mean of the losses of `valid` tokens among n.
inline void mean_of_losses(float const* loss, std::int64_t n, std::int64_t valid,
                           float* mean) noexcept {
  *mean = valid == 0 ? 0.0f : row_sum(loss, n) / static_cast<float>(valid);
}

}  // namespace nn
