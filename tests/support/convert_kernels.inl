// No include guard: conversions by the region's vectors, for numeric_test.cpp.
template <class T> void narrow_all(float const* from, T* to, std::size_t count) noexcept {
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) store(to + i, load(from + i));
  if (i < count) store_first(to + i, load(from + i), static_cast<std::int64_t>(count - i));
}
template <class T> void widen_all(T const* from, float* to, std::size_t count) noexcept {
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) store(to + i, load(from + i));
}
