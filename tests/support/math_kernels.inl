// No include guard: each elementary function over an array by the region's lanes, for math_test.cpp.
inline void math_all(int which, float const* x, float* y, std::int64_t count) noexcept {
  for (std::int64_t i = 0; i < count; i += lanes) {
    vf const v = load(x + i);
    vf r = v;
    switch (which) {
      case 0: r = exp(v); break;
      case 1: r = log(v); break;
      case 2: r = log1p(v); break;
      case 3: r = sigmoid(v); break;
      case 4: r = softplus(v); break;
      case 5: r = tanh(v); break;
      case 6: r = erf(v); break;
      case 7: r = sqrt(v); break;
      default: break;
    }
    store(y + i, r);
  }
}
