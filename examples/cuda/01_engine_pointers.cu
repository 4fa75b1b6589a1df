// Shunt inside another engine: its raw pointers, its stream, its CUDA graph. Tokens are routed, sorted
// by expert and summed up again; nothing is allocated and nothing waits, so one captured graph serves
// every batch, however its tokens choose. The outputs are the host backend's, bit for bit.
//   nvcc -std=c++20 -O2 -I include examples/cuda/01_engine_pointers.cu && ./a.out
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

#include "shunt/combine.cuh"
#include "shunt/core/random.hpp"
#include "shunt/dispatch.cuh"
#include "shunt/route.cuh"

namespace {

constexpr shunt::index_t T = 48, H = 64, E = 16, K = 2, R = T * K;
constexpr shunt::shape sizes{.tokens = T, .hidden = H, .experts = E, .top_k = K};
constexpr shunt::route_options router{.gates = shunt::gate_kind::renormalized};

/// What the engine has: device memory from its own allocator, behind plain pointers, and a stream.
struct engine {
  float *logits, *x, *rows, *gate, *y;
  int *expert, *offset, *row_slot, *slot_row;
  void* scratch;
  std::size_t scratch_bytes;
  cudaStream_t stream;
};

/// Enqueues one batch. A view is a pointer and its extents; device memory is said in its type.
shunt::status moe(engine const& e) {
  constexpr auto device = shunt::space::device;
  auto const matrix = [](auto* p, shunt::offset_t rows, shunt::offset_t columns) {
    return shunt::view<std::remove_pointer_t<decltype(p)>, 2, device>(p, {{rows, columns}});
  };
  shunt::on_cuda const on{e.stream};
  shunt::arena<device> const scratch{static_cast<std::byte*>(e.scratch), e.scratch_bytes};
  shunt::routing<device> chosen;
  chosen.expert = matrix(e.expert, T, K);
  chosen.gate = matrix(e.gate, T, K);
  shunt::dispatch_plan<device> const plan{
      {e.offset, {{E + 1}}}, {e.row_slot, {{R}}}, {e.slot_row, {{R}}}, T, K};
  if (auto s = shunt::route(on, matrix(e.logits, T, E), chosen, scratch, router); !s.ok()) return s;
  if (auto s = shunt::plan_dispatch(on, chosen.expert, plan, scratch); !s.ok()) return s;
  if (auto s = shunt::dispatch(on, matrix(e.x, T, H), plan, matrix(e.rows, R, H)); !s.ok())
    return s;
  // Here the engine's own expert kernels would work on rows [offset[e], offset[e + 1]) of expert e.
  return shunt::combine(on, matrix(e.rows, R, H), plan, chosen.gate, matrix(e.y, T, H));
}

/// The same on the host, for comparison.
std::vector<float> on_the_host(std::vector<float> const& logits, std::vector<float> const& x) {
  std::vector<float> gate(R), rows(R * H), y(T * H);
  std::vector<int> expert(R), offset(E + 1), row_slot(R), slot_row(R);
  std::vector<std::byte> scratch(1 << 20);
  shunt::on_host const on;
  shunt::routing<> chosen;
  chosen.expert = {expert.data(), {{T, K}}};
  chosen.gate = {gate.data(), {{T, K}}};
  shunt::dispatch_plan<> const plan{offset, row_slot, slot_row, T, K};
  shunt::view<float, 2> const packed(rows.data(), {{R, H}});
  bool const done =
      shunt::route(on, shunt::view<float const, 2>(logits.data(), {{T, E}}), chosen, scratch,
                   router)
          .ok() &&
      shunt::plan_dispatch(on, chosen.expert, plan, scratch).ok() &&
      shunt::dispatch(on, shunt::view<float const, 2>(x.data(), {{T, H}}), plan, packed).ok() &&
      shunt::combine(on, packed, plan, chosen.gate, shunt::view<float, 2>(y.data(), {{T, H}})).ok();
  return done ? y : std::vector<float>();
}

std::vector<float> numbers(int count, int seed) {
  std::vector<float> v(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < v.size(); ++i) {
    auto const word = shunt::random_at(static_cast<std::uint64_t>(seed), i).word[0];
    v[i] = 2.0f * shunt::uniform_of(word) - 1.0f;
  }
  return v;
}

bool ok(cudaError_t e) {
  if (e != cudaSuccess) std::puts(cudaGetErrorString(e));
  return e == cudaSuccess;
}

}  // namespace

int main() {
  // The engine's side: one allocation, cut up as it likes. Shunt says how much scratch it needs.
  shunt::on_cuda const any;
  std::size_t const scratch =
      std::max(shunt::route_scratch_bytes(any, sizes), shunt::plan_scratch_bytes(any, sizes));
  std::size_t const numbers_of_4_bytes = T * E + 2 * T * H + R * H + 4 * R + E + 1;
  char* all = nullptr;
  if (!ok(cudaMalloc(&all, 4 * numbers_of_4_bytes + scratch))) return 1;
  char* next = all;
  auto const take = [&](auto*& p, std::size_t count) {
    p = reinterpret_cast<std::remove_reference_t<decltype(p)>>(next);
    next += 4 * count;
  };
  engine e{};
  take(e.logits, T * E), take(e.x, T * H), take(e.y, T * H), take(e.rows, R * H), take(e.gate, R);
  take(e.expert, R), take(e.row_slot, R), take(e.slot_row, R), take(e.offset, E + 1);
  e.scratch = next;
  e.scratch_bytes = scratch;
  if (!ok(cudaStreamCreate(&e.stream))) return 1;

  // Capture once: no call above waits for the device or asks it anything.
  cudaGraph_t graph{};
  cudaGraphExec_t replay{};
  if (!ok(cudaStreamBeginCapture(e.stream, cudaStreamCaptureModeGlobal))) return 1;
  shunt::status const said = moe(e);
  if (!ok(cudaStreamEndCapture(e.stream, &graph))) return 1;
  if (!said.ok()) return std::puts(said.message()), 1;
  if (!ok(cudaGraphInstantiate(&replay, graph, 0))) return 1;

  // Replay with batches whose tokens choose differently.
  int wrong = 0;
  for (int batch = 0; batch < 3; ++batch) {
    auto const logits = numbers(T * E, 2 * batch), x = numbers(T * H, 2 * batch + 1);
    std::vector<float> y(T * H);
    auto const copy = [&](void* to, void const* from, std::size_t count, cudaMemcpyKind kind) {
      return ok(cudaMemcpyAsync(to, from, 4 * count, kind, e.stream));
    };
    if (!copy(e.logits, logits.data(), T * E, cudaMemcpyHostToDevice) ||
        !copy(e.x, x.data(), T * H, cudaMemcpyHostToDevice) ||
        !ok(cudaGraphLaunch(replay, e.stream)) ||
        !copy(y.data(), e.y, T * H, cudaMemcpyDeviceToHost) ||
        !ok(cudaStreamSynchronize(e.stream))) {
      return 1;
    }
    auto const expected = on_the_host(logits, x);
    bool const same =
        expected.size() == y.size() && std::memcmp(expected.data(), y.data(), 4 * y.size()) == 0;
    std::printf("batch %d: y[0] = %+.6f; %s\n", batch, static_cast<double>(y[0]),
                same ? "the host's bits" : "NOT what the host computes");
    wrong += same ? 0 : 1;
  }
  (void)cudaGraphExecDestroy(replay), (void)cudaGraphDestroy(graph);
  (void)cudaStreamDestroy(e.stream), (void)cudaFree(all);
  return wrong;
}
