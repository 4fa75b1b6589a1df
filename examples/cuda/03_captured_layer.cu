// A mixture-of-experts layer, forward and backward, captured once in a CUDA graph and replayed for
// batches whose tokens choose other experts. The same function runs it on the host: only the policy
// and the memory differ, and every bit is the same.
//   nvcc -std=c++20 -O2 -I include examples/cuda/03_captured_layer.cu && ./a.out
#include <cstdio>
#include <cstring>
#include <vector>

#include "shunt/core/random.hpp"
#include "shunt/layer.cuh"

namespace {

constexpr shunt::index_t T = 40, H = 48, I = 32, E = 8, K = 2;

/// The layer's numbers behind plain pointers, in the memory of either policy.
struct memory {
  float *x, *d_y, *gate, *up, *down;        // given
  float *y, *d_x, *d_gate, *d_up, *d_down;  // wanted
  std::byte *saved, *forward, *backward;    // scratch
  std::size_t saved_bytes, forward_bytes, backward_bytes;
};

template <class P> struct layer {
  static constexpr shunt::space S = P::memory;
  shunt::moe_weights<float, float, S> weights;
  shunt::layer_options<shunt::swiglu, S> options;

  explicit layer(memory const& m) {
    weights.gate = matrix(m.gate, E, H);
    weights.up = shunt::view<float const, 3, S>(m.up, {{E, 2 * I, H}});
    weights.down = shunt::view<float const, 3, S>(m.down, {{E, H, I}});
    options.top_k = K;
    options.route.gates = shunt::gate_kind::renormalized;
  }
  static shunt::view<float, 2, S> matrix(float* p, shunt::offset_t rows, shunt::offset_t columns) {
    return {p, {{rows, columns}}};
  }
  /// How much memory a run takes: asked once, before anything is allocated.
  void measure(P const& on, memory& m) const {
    m.saved_bytes = shunt::moe_saved_bytes(T, weights, options);
    m.forward_bytes = shunt::moe_layer_scratch_bytes(on, T, weights, options, true);
    m.backward_bytes = shunt::moe_layer_backward_scratch_bytes(on, T, weights, options);
  }
  shunt::status run(P const& on, memory const& m) const {
    shunt::arena<S> keep(m.saved, m.saved_bytes);
    auto const saved = shunt::carve_moe_saved(keep, T, weights, options);
    shunt::moe_gradients<S> d;
    d.gate = matrix(m.d_gate, E, H);
    d.up = shunt::view<float, 3, S>(m.d_up, {{E, 2 * I, H}});
    d.down = shunt::view<float, 3, S>(m.d_down, {{E, H, I}});
    auto const done = shunt::moe_layer(on, matrix(m.x, T, H), weights, matrix(m.y, T, H),
                                       {.saved = &saved}, {m.forward, m.forward_bytes}, options);
    if (!done.ok()) return done;
    return shunt::moe_layer_backward(on, matrix(m.x, T, H), weights, matrix(m.d_y, T, H), saved,
                                     matrix(m.d_x, T, H), d, {m.backward, m.backward_bytes},
                                     options);
  }
};

/// Cuts one piece of memory up for all of it; the same order on both sides.
template <class Each> std::size_t cut(memory& m, Each const& each) {
  std::size_t at = 0;
  auto const take = [&](auto*& p, std::size_t count) {
    each(p, at);
    at += (count * sizeof *p + 255) / 256 * 256;
  };
  take(m.x, T * H), take(m.d_y, T * H), take(m.gate, E * H);
  take(m.up, E * 2 * I * H), take(m.down, E * H * I);
  take(m.y, T * H), take(m.d_x, T * H), take(m.d_gate, E * H);
  take(m.d_up, E * 2 * I * H), take(m.d_down, E * H * I);
  take(m.saved, m.saved_bytes), take(m.forward, m.forward_bytes);
  take(m.backward, m.backward_bytes);
  return at;
}
std::size_t bytes_of(memory m) {
  return cut(m, [](auto*&, std::size_t) {});
}
void place(memory& m, std::byte* all) {
  cut(m, [&](auto*& p, std::size_t at) {
    p = reinterpret_cast<std::remove_reference_t<decltype(p)>>(all + at);
  });
}

/// In [-1, 1), always the same.
float number(std::uint64_t seed, std::ptrdiff_t i) {
  auto const word = shunt::random_at(seed, static_cast<std::uint64_t>(i)).word[0];
  return 2.0f * shunt::uniform_of(word) - 1.0f;
}

bool ok(cudaError_t e) {
  if (e != cudaSuccess) std::puts(cudaGetErrorString(e));
  return e == cudaSuccess;
}
bool ok(shunt::status const& s) {
  if (!s.ok()) std::puts(s.message());
  return s.ok();
}

}  // namespace

int main() {
  memory host{}, device{};
  layer<shunt::on_host>(host).measure({}, host);
  layer<shunt::on_cuda>(device).measure({}, device);
  std::vector<std::byte> host_bytes(bytes_of(host));
  place(host, host_bytes.data());
  std::byte* device_bytes = nullptr;
  if (!ok(cudaMalloc(&device_bytes, bytes_of(device)))) return 1;
  place(device, device_bytes);
  for (float* p = host.x; p != host.down + E * H * I; ++p) { *p = number(1, p - host.x) * 0.5f; }
  std::size_t const given = static_cast<std::size_t>(host.y - host.x) * sizeof(float);
  std::size_t const wanted =
      static_cast<std::size_t>(host.d_down + E * H * I - host.y) * sizeof(float);

  // Captured before any token is there: the graph does not depend on what tokens choose.
  cudaStream_t stream{};
  cudaGraph_t graph{};
  cudaGraphExec_t replay{};
  if (!ok(cudaStreamCreate(&stream))) return 1;
  layer<shunt::on_cuda> const captured(device);
  if (!ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal))) return 1;
  shunt::status const said = captured.run(shunt::on_cuda{stream}, device);
  if (!ok(cudaStreamEndCapture(stream, &graph)) || !ok(said)) return 1;
  if (!ok(cudaGraphInstantiate(&replay, graph, 0))) return 1;

  int wrong = 0;
  for (std::uint64_t batch = 0; batch < 3; ++batch) {
    for (int i = 0; i < T * H; ++i) { host.x[i] = number(10 + batch, i); }
    if (!ok(cudaMemcpyAsync(device.x, host.x, given, cudaMemcpyHostToDevice, stream)) ||
        !ok(cudaGraphLaunch(replay, stream)) || !ok(layer<shunt::on_host>(host).run({}, host))) {
      return 1;
    }
    std::vector<std::byte> results(wanted);
    if (!ok(cudaMemcpyAsync(results.data(), device.y, wanted, cudaMemcpyDeviceToHost, stream)) ||
        !ok(cudaStreamSynchronize(stream))) {
      return 1;
    }
    bool const same = std::memcmp(results.data(), host.y, wanted) == 0;
    std::printf("batch %d: y[0] = %+.6f; output and gradients: %s\n", static_cast<int>(batch),
                static_cast<double>(host.y[0]), same ? "the host's bits" : "NOT the host's");
    wrong += same ? 0 : 1;
  }
  (void)cudaGraphExecDestroy(replay), (void)cudaGraphDestroy(graph);
  (void)cudaStreamDestroy(stream), (void)cudaFree(device_bytes);
  return wrong;
}
