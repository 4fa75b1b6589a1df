// The host's kernels and scalar functions, to be compiled and read by tests/contraction/check, and never run: every
// public function with arguments of the right types and no content. By itself all of it, for float and bf16; with
// CONTRACTION_FEW for float only, without the products' micro-kernels (SHUNT_KERNELS_ELSEWHERE) and the model.
#include <shunt/nn/model.hpp>
#include <shunt/nn/schedule.hpp>
#include <shunt/route_expert_choice.hpp>
#include <shunt/shunt.hpp>

namespace shunt::contraction {

template <class T, int Rank> using in = view<T const, Rank>;
template <class T, int Rank> using out = view<T, Rank>;
using scratch = arena<>;
using plan = dispatch_plan<>;

template <class T> void modules(on_host const& on) {
  routing<> const choice;
  (void)route(on, in<T, 2>(), choice, scratch());
  (void)route_backward(on, in<T, 2>(), choice, route_gradients<>(), out<T, 2>(), scratch());
  expert_choice<> const chosen;
  (void)route_expert_choice(on, in<T, 2>(), chosen, scratch());
  (void)route_expert_choice_backward(on, in<T, 2>(), chosen, in<float, 2>(), out<T, 2>(),
                                     scratch());
  (void)dispatch(on, in<T, 2>(), plan(), out<T, 2>());
  (void)dispatch_backward(on, in<T, 2>(), plan(), out<T, 2>());
  (void)combine(on, in<T, 2>(), plan(), in<float, 2>(), out<T, 2>());
  (void)combine_backward(on, in<T, 2>(), plan(), in<float, 2>(), in<T, 2>(), out<T, 2>());
  segments<> const rows;
  (void)grouped_gemm(on, in<T, 2>(), in<T, 3>(), rows, out<T, 2>(), swiglu{});
  (void)activation_backward(on, in<T, 2>(), in<T, 2>(), swiglu{}, out<T, 2>());
}

template <class T> void nn_module(on_host const& on) {
  (void)nn::rms_norm(on, in<T, 2>(), in<T, 1>(), out<T, 2>());
  (void)nn::rms_norm_backward(on, in<T, 2>(), in<T, 1>(), in<float, 1>(), in<T, 2>(), out<T, 2>(),
                              out<float, 1>(), scratch());
  (void)nn::rotary(on, out<T, 4>(), nn::rotary_table<>());
  (void)nn::embedding_backward(on, in<T, 2>(), in<index_t, 1>(), out<float, 2>());
  (void)nn::cross_entropy(on, in<T, 2>(), in<T, 2>(), in<index_t, 1>(), nn::cross_entropy_out<T>(),
                          scratch());
  (void)nn::adamw(on, nn::adamw_state<T>(), in<float, 1>(), {});
  (void)nn::attention(on, in<T, 4>(), in<T, 4>(), in<T, 4>(), out<T, 4>(), out<float, 3>(),
                      scratch());
  (void)nn::attention_backward(on, in<T, 4>(), in<T, 4>(), in<T, 4>(), in<T, 4>(), in<float, 3>(),
                               in<T, 4>(), out<T, 4>(), out<T, 4>(), out<T, 4>(), scratch());
}

template <class T> void model(on_host const& on) {
  nn::model_config const config;
  (void)nn::model_train<T>(on, config, {}, in<index_t, 2>(), out<float, 1>(), {}, scratch());
  (void)nn::model_update<T>(on, config, {}, out<float, 1>(), scratch(), {});
  (void)nn::model_decode<T>(on, config, {}, in<index_t, 2>(), 0, {}, out<float, 2>(), scratch());
}

void floats(on_host const& on) {
  modules<float>(on);
  nn_module<float>(on);
  routing<> const load;
  (void)balance_loss(on, load, out<float, 1>(), out<float, 1>());
  (void)sequence_balance_loss(on, load, out<float, 1>(), out<float, 2>());
  (void)z_loss(on, load, out<float, 1>(), out<float, 1>());
  (void)band_loss(on, load, out<float, 1>(), out<float, 1>());
  (void)sign_step(on, in<index_t, 1>(), out<float, 1>());
  (void)quantile_step(on, in<index_t, 2>(), out<float, 1>(), 1);
  (void)load_stats(on, plan(), load_report<>());
  (void)nn::model_init(on, {}, out<float, 1>(), 0);
  (void)nn::rotary_fill(on, nn::rotary_table<>());
  (void)nn::gradient_norm(on, in<float, 1>(), out<float, 1>(), scratch());
}
float rate(nn::cosine_schedule const& s, std::int64_t step) { return nn::rate_at(s, step); }

#if !defined(CONTRACTION_FEW)
void all(on_host const& on) {
  modules<bf16>(on);
  nn_module<bf16>(on);
  model<float>(on);
  model<bf16>(on);
  (void)quantize_weights(on, in<float, 3>(), out<int8_channel, 1>());
  (void)quantize_weights(on, in<float, 3>(), out<fp8_block, 1>());
  (void)quantize_weights(on, in<float, 3>(), out<mxfp4, 1>());
  (void)quantize_weights(on, in<float, 3>(), out<nvfp4, 1>());
  (void)quantize_weights(on, in<float, 3>(), out<int4_group<32>, 1>());
  (void)nn::cache_attend(on, in<bf16, 4>(), nn::kv_cache<bf16>(), 0, out<bf16, 4>(), scratch());
}
#endif

}  // namespace shunt::contraction

#if defined(CONTRACTION_FEW)
#define SHUNT_REGION_FILE "kernels.inl"
#include <shunt/backend/host/simd/for_each_region.inl>
#endif
