// No include guard: included once in each instruction-set region.

/// Folds the bits of `count` floats into a number that any change of a bit changes.
SHUNT_INLINE std::uint64_t fold(std::uint64_t digest, float const* x, std::int64_t count) noexcept {
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint32_t bits = 0;
    __builtin_memcpy(&bits, x + i, sizeof bits);
    digest = (digest ^ bits) * 0x100000001b3u;
  }
  return digest;
}

/// Every elementary function, the row reductions and the narrow storage types, over `count` floats.
inline std::uint64_t lanes_digest(float const* x, float* y, bf16* b, fp16* h,
                                  std::int64_t count) noexcept {
  std::uint64_t digest = 0xcbf29ce484222325u;
  for (int function = 0; function < 7; ++function) {
    for (std::int64_t i = 0; i < count; i += lanes) {
      std::int64_t const left = count - i;
      vf const v = left < lanes ? load_first(x + i, left) : load(x + i);
      vf r = exp(v);
      if (function == 1) r = log(v);
      if (function == 2) r = log1p(exp(v));
      if (function == 3) r = sigmoid(v);
      if (function == 4) r = softplus(v);
      if (function == 5) r = tanh(v);
      if (function == 6) r = erf(v);
      r = select(r == r, r, fill(-1.0f));  // a NaN's sign differs from processor to processor
      if (left < lanes) {
        store_first(y + i, r, left);
        store_first(b + i, r, left);
        store_first(h + i, r, left);
      } else {
        store(y + i, r);
        store(b + i, r);
        store(h + i, r);
      }
    }
    digest = fold(digest, y, count);
    float const sums[] = {row_dot(x, y, count), row_sum(b, count), row_dot(b, h, count)};
    digest = fold(digest, sums, 3);
  }
  return digest;
}
