// Thrust owns the bytes, Shunt works on them: a thrust::device_vector for each array, a view on each.
// Thrust's algorithms and Shunt's primitives share one stream, so neither waits for the other.
//   nvcc -std=c++20 -O2 -I include examples/cuda/02_thrust.cu && ./a.out
#include <thrust/device_vector.h>
#include <thrust/extrema.h>
#include <thrust/host_vector.h>
#include <thrust/random.h>
#include <thrust/tabulate.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "shunt/combine.cuh"
#include "shunt/dispatch.cuh"
#include "shunt/route.cuh"

namespace {

constexpr auto device = shunt::space::device;

/// A vector's elements as a matrix, a list, an arena: the vector stays the owner.
template <class T>
shunt::view<T, 2, device> matrix(thrust::device_vector<T>& v, shunt::offset_t rows) {
  return {thrust::raw_pointer_cast(v.data()),
          {{rows, static_cast<shunt::offset_t>(v.size()) / rows}}};
}
template <class T> shunt::view<T, 1, device> list(thrust::device_vector<T>& v) {
  return {thrust::raw_pointer_cast(v.data()), {{static_cast<shunt::offset_t>(v.size())}}};
}
shunt::arena<device> arena_of(thrust::device_vector<std::byte>& v) {
  return {thrust::raw_pointer_cast(v.data()), v.size()};
}

struct uniform {
  unsigned seed;
  __host__ __device__ float operator()(int i) const {
    thrust::minstd_rand engine(seed);
    engine.discard(static_cast<unsigned>(i));
    return thrust::uniform_real_distribution<float>(-1, 1)(engine);
  }
};

}  // namespace

int main() {
  constexpr int T = 64, H = 32, E = 8, K = 2;
  thrust::device_vector<float> logits(T * E), x(T * H), gate(T * K), rows(T * K * H), y(T * H);
  thrust::device_vector<int> expert(T * K), load(E), offset(E + 1), row_slot(T * K),
      slot_row(T * K);
  thrust::tabulate(logits.begin(), logits.end(), uniform{1});
  thrust::tabulate(x.begin(), x.end(), uniform{2});

  shunt::on_cuda const on;  // the default stream, which is Thrust's too
  shunt::shape const s{.tokens = T, .hidden = H, .experts = E, .top_k = K};
  thrust::device_vector<std::byte> scratch(
      std::max(shunt::route_scratch_bytes(on, s), shunt::plan_scratch_bytes(on, s)));

  shunt::routing<device> chosen;
  chosen.expert = matrix(expert, T);
  chosen.gate = matrix(gate, T);
  chosen.counts = list(load);
  shunt::dispatch_plan<device> const plan{list(offset), list(row_slot), list(slot_row), T, K};
  for (shunt::status const& step :
       {shunt::route(on, matrix(logits, T), chosen, arena_of(scratch),
                     {.gates = shunt::gate_kind::renormalized}),
        shunt::plan_dispatch(on, chosen.expert, plan, arena_of(scratch)),
        shunt::dispatch(on, matrix(x, T), plan, matrix(rows, T * K)),
        shunt::combine(on, matrix(rows, T * K), plan, chosen.gate, matrix(y, T))}) {
    if (!step.ok()) return std::puts(step.message()), 1;
  }

  // A token's gates sum up to one and its rows are the token, so y is x, up to rounding. Thrust looks.
  auto const busiest = thrust::max_element(load.begin(), load.end());
  std::printf("expert %d has most of the load: %d of %d slots\n",
              static_cast<int>(busiest - load.begin()), static_cast<int>(*busiest), T * K);
  thrust::host_vector<float> const got = y, want = x;
  float worst = 0;
  for (std::size_t i = 0; i < got.size(); ++i) worst = std::max(worst, std::abs(got[i] - want[i]));
  std::printf("largest difference between y and x: %g\n", static_cast<double>(worst));
  return worst < 1e-6f ? 0 : 1;
}
