// No include guard: what the kernels of nn share inside each region.
namespace nn {

/// A whole vector, or the `left` elements that are there.
template <class T> SHUNT_INLINE vf load_up_to(T const* from, std::int64_t left) noexcept {
  return left >= lanes ? load(from) : load_first(from, left);
}
template <class T> SHUNT_INLINE void store_up_to(T* to, vf x, std::int64_t left) noexcept {
  if (left >= lanes) {
    store(to, x);
  } else {
    store_first(to, x, left);
  }
}

/// One element, as float.
SHUNT_INLINE float widen(float x) noexcept { return x; }
SHUNT_INLINE float widen(bf16 x) noexcept {
  return __builtin_bit_cast(float, static_cast<unsigned>(x.bits) << 16);
}
SHUNT_INLINE float widen(fp16 x) noexcept { return load_first(&x, 1)[0]; }

}  // namespace nn
