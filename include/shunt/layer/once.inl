// No include guard: the layer of each storage type with SwiGLU experts, and what sizes its scratch,
// compiled in one unit of a program; see regions.hpp. Another activation, a gate of another type or a
// weight format is compiled where it is used; its kernels are still compiled once.
#define SHUNT_LAYER_ONCE(T, G)                                                                   \
  SHUNT_ONCE template status detail::run_layer<on_host, T, G, T, swiglu>(                        \
      on_host const&, view<T const, 2>, moe_weights<T, G> const&, view<T, 2>,                    \
      moe_outputs<T> const&, arena<space::host>, layer_options<> const&) noexcept;               \
  SHUNT_ONCE template std::size_t moe_layer_scratch_bytes<on_host, T, G, T, swiglu>(             \
      on_host const&, index_t, moe_weights<T, G> const&, layer_options<> const&, bool) noexcept; \
  SHUNT_ONCE template std::size_t moe_layer_backward_scratch_bytes<on_host, T, G, swiglu>(       \
      on_host const&, index_t, moe_weights<T, G> const&, layer_options<> const&) noexcept;
#define SHUNT_LAYER_BACKWARD_ONCE(T, G, D)                                          \
  SHUNT_ONCE template status detail::run_layer_backward<on_host, T, G, D, swiglu>(  \
      on_host const&, view<T const, 2>, moe_weights<T, G> const&, view<T const, 2>, \
      moe_saved<T> const&, view<D, 2>, moe_gradients<> const&, arena<space::host>,  \
      layer_options<> const&) noexcept;
SHUNT_LAYER_ONCE(float, float)
SHUNT_LAYER_ONCE(bf16, bf16)
SHUNT_LAYER_ONCE(bf16, float)
SHUNT_LAYER_ONCE(fp16, fp16)
SHUNT_LAYER_BACKWARD_ONCE(float, float, float)
SHUNT_LAYER_BACKWARD_ONCE(bf16, bf16, bf16)
SHUNT_LAYER_BACKWARD_ONCE(bf16, bf16, float)
SHUNT_LAYER_BACKWARD_ONCE(bf16, float, bf16)
SHUNT_LAYER_BACKWARD_ONCE(bf16, float, float)
SHUNT_LAYER_BACKWARD_ONCE(fp16, fp16, fp16)
SHUNT_LAYER_BACKWARD_ONCE(fp16, fp16, float)
#undef SHUNT_LAYER_ONCE
#undef SHUNT_LAYER_BACKWARD_ONCE
