// No include guard: the losses and the bias steps, once for all backends. The including namespace
// works on a row by one thread or by one warp, and supplies for that:
//   whole_sum(n, at)          the sum of at(i), i in [0, n), in integers
//   strided_sum(n, step)      partial j takes step(i, so far) of i = j, j + 32, …; then halves
//   each(n, f), once(f)       f(i) for every i in any order; f() by one thread
//   first_reaching(n, at, w)  the first i with at(i) > 0 where the sum up to it reaches w, with the
//                             sum below it; i is n where there is none
//   range_of(bias)            a bias_range
// and SHUNT_BALANCE, the prefix of a function. No product feeds a plain add.

/// What one sequence's loss counts for.
template <space S>
SHUNT_BALANCE float balance_factor(balance_call<S> const& c, std::int64_t counted) noexcept {
  float const share = counted == 0 ? 0.0f : c.coefficient / static_cast<float>(counted);
  return share * static_cast<float>(c.counts.extent(1));
}

/// The sum of f P of sequence `row`; factor times its gradient to each importance.
template <space S>
SHUNT_BALANCE float balance_row(balance_call<S> const& c, std::int64_t row, float factor) noexcept {
  std::int64_t const experts = c.counts.extent(1);
  std::int64_t const slots =
      whole_sum(experts, [&](std::int64_t e) -> std::int64_t { return c.counts(row, e); });
  index_t const tokens = c.tokens[row];
  float const n = static_cast<float>(tokens), all = static_cast<float>(slots);
  bool const any = tokens > 0 && slots > 0;
  float const sum = !any ? 0.0f : strided_sum(experts, [&](std::int64_t e, float so_far) {
    return math::fma(static_cast<float>(c.counts(row, e)) / all, c.importance(row, e) / n, so_far);
  });
  each(experts, [&](std::int64_t e) {
    float const f = any ? static_cast<float>(c.counts(row, e)) / all : 0.0f;
    float& d = c.d_importance(row, e);
    d = math::fma(f, any ? factor / n : 0.0f, c.accumulate ? d : 0.0f);
  });
  return sum;
}

template <space S> SHUNT_BALANCE float z_factor(z_loss_call<S> const& c) noexcept {
  return c.tokens[0] > 0 ? c.coefficient / static_cast<float>(c.tokens[0]) : 0.0f;
}
template <space S> SHUNT_BALANCE void z_value(z_loss_call<S> const& c, float factor) noexcept {
  float const sum = strided_sum(c.z.extent(0), [&](std::int64_t t, float so_far) {
    return math::fma(c.z[t], c.z[t], so_far);
  });
  once([&] { c.loss[0] = math::fma(factor, sum, c.accumulate ? c.loss[0] : 0.0f); });
}
template <space S>
SHUNT_BALANCE void z_slope(z_loss_call<S> const& c, float factor, std::int64_t t) noexcept {
  c.d_z[t] = math::fma(factor + factor, c.z[t], c.accumulate ? c.d_z[t] : 0.0f);
}

/// The load above the band, and below it, where positive.
struct excess {
  float over, under;
};
template <space S>
SHUNT_BALANCE excess excess_of(band_call<S> const& c, std::int64_t e, std::int64_t slots) noexcept {
  float const wide = static_cast<float>(c.counts.extent(0));
  float const share = c.by_counts ? static_cast<float>(c.counts[e]) / static_cast<float>(slots)
                                  : c.importance[e] / static_cast<float>(c.tokens[0]);
  return {math::fma(share, wide, -c.high), math::fma(-share, wide, c.low)};
}

template <space S> SHUNT_BALANCE void band_loss(band_call<S> const& c) noexcept {
  std::int64_t const experts = c.counts.extent(0);
  std::int64_t const slots =
      whole_sum(experts, [&](std::int64_t e) -> std::int64_t { return c.counts[e]; });
  float const n = static_cast<float>(c.tokens[0]), wide = static_cast<float>(experts);
  bool const any = c.tokens[0] > 0 && (slots > 0 || !c.by_counts);
  float const sum = !any ? 0.0f : strided_sum(experts, [&](std::int64_t e, float so_far) {
    excess const x = excess_of(c, e, slots);
    return so_far + (x.over > 0.0f ? x.over : x.under > 0.0f ? x.under : 0.0f);
  });
  once([&] { c.loss[0] = math::fma(c.coefficient, sum, c.accumulate ? c.loss[0] : 0.0f); });
  float const slope = any ? c.coefficient * (wide / n) : 0.0f;
  each(experts, [&](std::int64_t e) {
    excess const x = any ? excess_of(c, e, slots) : excess{0.0f, 0.0f};
    float const side = x.over > 0.0f ? 1.0f : x.under > 0.0f ? -1.0f : 0.0f;
    c.d_importance[e] = math::fma(side, slope, c.accumulate ? c.d_importance[e] : 0.0f);
  });
}

template <space S> SHUNT_BALANCE void sign_step(sign_step_call<S> const& c) noexcept {
  std::int64_t const experts = c.counts.extent(0);
  std::int64_t const total =
      whole_sum(experts, [&](std::int64_t e) -> std::int64_t { return c.counts[e]; });
  each(experts, [&](std::int64_t e) {
    std::int64_t const mine = c.counts[e] * experts;  // against the mean, without a division
    if (mine < total) c.bias[e] = c.bias[e] + c.step;
    if (mine > total) c.bias[e] = c.bias[e] - c.step;
  });
}

/// Where a share top_k / experts of the entries of row e lies, inside its bin, becomes its bias.
template <space S>
SHUNT_BALANCE void quantile_of(quantile_step_call<S> const& c, std::int64_t e,
                               bias_range const& range) noexcept {
  std::int64_t const experts = c.histogram.extent(0), bins = c.histogram.extent(1);
  auto const count = [&](std::int64_t i) -> std::int64_t { return c.histogram(e, i); };
  auto const here = [&](std::int64_t i) { return count(i) * experts; };
  std::int64_t const entries = whole_sum(bins, count);
  if (entries == 0) return;
  float const width = (range.highest - range.lowest) / static_cast<float>(bins);
  std::int64_t const wanted = c.top_k * entries;  // times experts: all in whole numbers
  auto const [i, below] = first_reaching(bins, here, wanted);
  float quantile = range.highest;
  if (i < bins) {
    float const part = static_cast<float>(wanted - below) / static_cast<float>(here(i));
    float const edge = math::fma(static_cast<float>(i), width, range.lowest);
    quantile = math::fma(part, width, edge);
  }
  once([&] { c.bias[e] = quantile; });
}
template <space S> SHUNT_BALANCE void center(quantile_step_call<S> const& c) noexcept {
  std::int64_t const experts = c.histogram.extent(0);
  float const sum =
      strided_sum(experts, [&](std::int64_t e, float so_far) { return so_far + c.bias[e]; });
  float const mean = sum / static_cast<float>(experts);
  each(experts, [&](std::int64_t e) { c.bias[e] = c.bias[e] - mean; });
}
