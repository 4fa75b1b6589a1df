// No include guard: the few element-wise steps that belong to no other module.

/// gate = sigmoid(logit).
inline void apply_sigmoid(float const* logit, float* gate, std::int64_t count) noexcept {
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) store(gate + i, sigmoid(load(logit + i)));
  if (i < count) store_first(gate + i, sigmoid(load_first(logit + i, count - i)), count - i);
}

/// d = d · gate · (1 - gate): from the gate's gradient to its logit's.
inline void apply_sigmoid_backward(float const* gate, float* d, std::int64_t count) noexcept {
  auto const slope = [one = fill(1.0f)](vf g, vf back) { return back * (g * (one - g)); };
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) store(d + i, slope(load(gate + i), load(d + i)));
  if (i < count) {
    std::int64_t const left = count - i;
    store_first(d + i, slope(load_first(gate + i, left), load_first(d + i, left)), left);
  }
}

/// to += from.
template <class T> void add_values(T const* from, float* to, std::int64_t count) noexcept {
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) store(to + i, load(to + i) + load(from + i));
  if (i < count) {
    std::int64_t const left = count - i;
    store_first(to + i, load_first(to + i, left) + load_first(from + i, left), left);
  }
}

/// to = from, rounded.
template <class T> void round_values(float const* from, T* to, std::int64_t count) noexcept {
  std::int64_t i = 0;
  for (; i + lanes <= count; i += lanes) store(to + i, load(from + i));
  if (i < count) store_first(to + i, load_first(from + i, count - i), count - i);
}
