// One of two shared libraries that both include Shunt: a layer's routing on a device, behind one
// function. Compiled twice, with different options.
#include <cstddef>
#include <vector>

#include "shunt/combine.cuh"
#include "shunt/dispatch.cuh"
#include "shunt/route.cuh"

namespace {

template <class T> struct buffer {
  T* data = nullptr;
  explicit buffer(shunt::offset_t n) {
    (void)cudaMalloc(&data, static_cast<std::size_t>(n) * sizeof(T));
  }
  buffer(buffer const&) = delete;
  ~buffer() { (void)cudaFree(data); }
  template <class... Extent> auto as(Extent... extent) const {
    return shunt::view<T, sizeof...(Extent), shunt::space::device>(data, {{extent...}});
  }
};

}  // namespace

/// y [T,H] = Σ gate · x over each token's experts. 0: all went well.
extern "C" __attribute__((visibility("default"))) int run(float const* logits, float const* x,
                                                          float* y, int tokens, int hidden,
                                                          int experts, int top_k) {
  using shunt::offset_t;
  constexpr auto device = shunt::space::device;
  offset_t const T = tokens, H = hidden, E = experts, K = top_k, R = T * K;
  buffer<float> d_logits(T * E), d_x(T * H), d_y(T * H), rows(R * H), gate(T * K);
  buffer<shunt::index_t> expert(T * K), offset(E + 1), row_slot(R), slot_row(T * K);
  auto const copy = [](void* to, void const* from, offset_t n, cudaMemcpyKind kind) {
    return cudaMemcpy(to, from, static_cast<std::size_t>(n) * sizeof(float), kind) == cudaSuccess;
  };
  if (!copy(d_logits.data, logits, T * E, cudaMemcpyHostToDevice)) return 1;
  if (!copy(d_x.data, x, T * H, cudaMemcpyHostToDevice)) return 1;

  shunt::on_cuda const on;
  shunt::shape const s{.tokens = tokens, .hidden = hidden, .experts = experts, .top_k = top_k};
  auto const route_scratch_bytes = shunt::route_scratch_bytes(on, s),
             plan_bytes = shunt::plan_scratch_bytes(on, s);
  auto const most =
      static_cast<offset_t>(route_scratch_bytes > plan_bytes ? route_scratch_bytes : plan_bytes);
  buffer<std::byte> work(most);
  shunt::arena<device> const arena{work.data, static_cast<std::size_t>(most)};
  shunt::routing<device> out;
  out.expert = expert.as(T, K);
  out.gate = gate.as(T, K);
  shunt::dispatch_plan<device> const plan{offset.as(E + 1), row_slot.as(R), slot_row.as(T * K),
                                          tokens, top_k};
  bool const done = shunt::route(on, d_logits.as(T, E), out, arena).ok() &&
                    shunt::plan_dispatch(on, out.expert, plan, arena).ok() &&
                    shunt::dispatch(on, d_x.as(T, H), plan, rows.as(R, H)).ok() &&
                    shunt::combine(on, rows.as(R, H), plan, out.gate, d_y.as(T, H)).ok();
  return done && copy(y, d_y.data, T * H, cudaMemcpyDeviceToHost) ? 0 : 2;
}
