#pragma once
#include <benchmark/benchmark.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "shunt/backend/cuda/policy.cuh"
#include "shunt/core/shape.hpp"
#include "shunt/core/view.hpp"

/// What the CUDA benchmarks share. A benchmark's calls are captured in a graph, one for each of enough
/// copies of its data that together exceed the L2 twice over, so that each finds it cold and no
/// launch is waited for; the graph is timed by events. Output is verified before. On the software
/// device, which has no clock, the smallest shapes run once for the verification's sake.
namespace bench::cuda {

inline bool ok(cudaError_t e) {
  if (e != cudaSuccess) std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(e));
  return e == cudaSuccess;
}

inline cudaDeviceProp const& device() {
  static cudaDeviceProp const it = [] {
    cudaDeviceProp p{};
    (void)ok(cudaGetDeviceProperties(&p, 0));
    return p;
  }();
  return it;
}
inline bool is_gpu() { return std::string(device().name).find("softgpu") == std::string::npos; }

/// Copies of `bytes` of data that a benchmark takes in turn.
inline int copies_of(double bytes) {
  if (!is_gpu()) return 2;
  return std::clamp(static_cast<int>(2.0 * device().l2CacheSize / std::max(bytes, 1.0)) + 2, 2, 64);
}

/// Device memory, in as many copies as asked for, each aligned to 256 bytes.
template <class T> class buffer {
 public:
  explicit buffer(shunt::offset_t count, int copies = 1)
      : count_(count), copies_(copies), apart_((count * sizeof(T) + 255) / 256 * 256 / sizeof(T)) {
    (void)ok(cudaMalloc(&data_, static_cast<std::size_t>(apart_ * copies) * sizeof(T)));
  }
  buffer(std::vector<T> const& from, int copies = 1)
      : buffer(static_cast<shunt::offset_t>(from.size()), copies) {
    for (int i = 0; i < copies; ++i) {
      (void)ok(cudaMemcpy(data(i), from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
    }
  }
  buffer(buffer const&) = delete;
  ~buffer() { (void)cudaFree(data_); }

  [[nodiscard]] T* data(int copy = 0) const { return data_ + copy % copies_ * apart_; }
  [[nodiscard]] std::vector<T> host(int copy = 0) const {
    std::vector<T> v(static_cast<std::size_t>(count_));
    (void)ok(cudaMemcpy(v.data(), data(copy), v.size() * sizeof(T), cudaMemcpyDeviceToHost));
    return v;
  }
  template <class... Extent> [[nodiscard]] auto as(int copy, Extent... extent) const {
    return shunt::view<T, sizeof...(Extent), shunt::space::device>(
        data(copy), {{static_cast<shunt::offset_t>(extent)...}});
  }

 private:
  T* data_ = nullptr;
  shunt::offset_t count_, copies_, apart_;
};

inline int& failures() {
  static int count = 0;
  return count;
}
inline void fail(benchmark::State& state, std::string const& sentence) {
  ++failures();
  state.SkipWithError(sentence.c_str());
}

/// call(on, copy) enqueues one call and answers what went wrong, or an empty string; so does verify()
/// of the first copy's output. flops, bytes: what one call does at least.
template <class Verify, class Call>
void measure(benchmark::State& state, double flops, double bytes, int copies, Verify const& verify,
             Call const& call) {
  cudaStream_t stream{};
  cudaGraph_t graph{};
  cudaGraphExec_t replay{};
  cudaEvent_t begin{}, end{};
  std::string wrong;
  bool fine =
      ok(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking)) && ok(cudaDeviceSynchronize());
  wrong = call(shunt::on_cuda{stream}, 0);  // what is done at a first call only is done now
  fine = fine && ok(cudaStreamSynchronize(stream)) &&
         ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; fine && wrong.empty() && i < copies; ++i) wrong = call(shunt::on_cuda{stream}, i);
  fine = fine && ok(cudaStreamEndCapture(stream, &graph)) &&
         ok(cudaGraphInstantiate(&replay, graph, 0)) && ok(cudaEventCreate(&begin)) &&
         ok(cudaEventCreate(&end)) && ok(cudaGraphLaunch(replay, stream)) &&
         ok(cudaStreamSynchronize(stream));
  if (wrong.empty()) wrong = fine ? verify() : "a CUDA call failed";
  if (!wrong.empty()) fail(state, wrong);
  for (auto _ : state) {
    float milliseconds = 0;
    if (!ok(cudaEventRecord(begin, stream)) || !ok(cudaGraphLaunch(replay, stream)) ||
        !ok(cudaEventRecord(end, stream)) || !ok(cudaEventSynchronize(end)) ||
        !ok(cudaEventElapsedTime(&milliseconds, begin, end))) {
      fail(state, "a CUDA call failed");
      break;
    }
    state.SetIterationTime(is_gpu() ? 1e-3 * static_cast<double>(milliseconds) / copies : 0.0);
  }
  if (!is_gpu()) {
    state.SetLabel("verified on the software device, not timed");
  } else {
    using benchmark::Counter;
    if (flops > 0)
      state.counters["gflops"] = Counter(flops * 1e-9, Counter::kIsIterationInvariantRate);
    if (bytes > 0) {
      state.counters["bytes_per_second"] = Counter(bytes, Counter::kIsIterationInvariantRate);
    }
  }
  (void)cudaEventDestroy(begin), (void)cudaEventDestroy(end);
  (void)cudaGraphExecDestroy(replay), (void)cudaGraphDestroy(graph),
      (void)cudaStreamDestroy(stream);
}

inline std::string said(shunt::status const& s) { return s.ok() ? "" : s.message(); }

/// Registers one benchmark; on the software device only where `small`.
inline void add(std::string const& name, bool small, std::function<void(benchmark::State&)> body) {
  if (!is_gpu() && !small) return;
  auto* const it = benchmark::RegisterBenchmark(name.c_str(), std::move(body));
  it->UseManualTime()->Unit(benchmark::kMicrosecond);
  if (!is_gpu()) it->Iterations(1);
}

/// main() of each program: registers and runs; 1 where an output was wrong.
inline int run(int count, char** words, void (*register_all)()) {
  benchmark::Initialize(&count, words);
  if (benchmark::ReportUnrecognizedArguments(count, words)) return 2;
  benchmark::AddCustomContext("device", device().name);
  benchmark::AddCustomContext(
      "compute_capability", std::to_string(device().major) + "." + std::to_string(device().minor));
  benchmark::AddCustomContext("l2_bytes", std::to_string(device().l2CacheSize));
  register_all();
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return failures() > 0 ? 1 : 0;
}

}  // namespace bench::cuda
