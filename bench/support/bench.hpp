#pragma once
#include <benchmark/benchmark.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <shunt/core/shape.hpp>

#include "support/ceiling.hpp"
#include "support/inputs.hpp"

/// What every benchmark of the house shares: names, verification before timing, counters.
///
///   void bench::register_all() {
///     for (int threads : bench::thread_counts()) {
///       bench::add(bench::name("combine", s, "bf16", threads, "zipf"), [=](auto& state) {
///         …buffers…
///         bench::measure(state, threads, {.flops = f, .bytes = b}, verify, [&] { …one call… });
///       });
///     }
///   }
///
/// A file bench/<module>_bench.cpp defines register_all() and no main.
namespace bench {

/// Defined once by each bench/*_bench.cpp: adds its benchmarks.
void register_all();

/// What one call does at least: arithmetic and bytes from memory. 0: none worth a figure.
struct work {
  double flops = 0;
  double bytes = 0;
};

/// "E64_K6_H2048_I1408"; extents that are 0 are left out.
[[nodiscard]] std::string shape_name(shunt::shape const& s);

/// "combine/E64_K6_H2048_I1408/bf16/T512/threads2", with "/zipf" behind where a skew is given.
[[nodiscard]] std::string name(std::string const& stage, shunt::shape const& s,
                               std::string const& type, int threads, std::string const& skew = "");

/// 1 and all cores (once where that is the same).
[[nodiscard]] std::vector<int> thread_counts();

/// What stands above every table and in every JSON: processor, instruction set, the ceilings.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> machine();

/// Registers one benchmark, timed by the wall clock.
benchmark::internal::Benchmark* add(std::string const& full_name,
                                    std::function<void(benchmark::State&)> body);

/// Calls `call` once, then `verify`, which returns what is wrong, or an empty string; a benchmark
/// with a wrong output fails with that sentence and reports no time. Then times `call` and sets
/// gflops, bytes_per_second, of_ceiling (arithmetic over the FMA ceiling of that many threads) and
/// of_roofline (the least time that arithmetic or memory need, over the time taken).
template <class Verify, class Call>
void measure(benchmark::State& state, int threads, work const& each, Verify&& verify, Call&& call);

/// Fails the benchmark with a sentence; the process then exits with 1.
void fail(benchmark::State& state, std::string const& sentence);

/// True after a fail().
[[nodiscard]] bool any_failed();

/// The counters of measure(), for a benchmark that has a loop of its own.
void set_counters(benchmark::State& state, int threads, work const& each);

/// What is wrong with `got` against `want` (largest difference beyond `tolerance` times the largest
/// magnitude of `want`; anything not finite; a reference that is flat), or an empty string.
[[nodiscard]] std::string compare(float const* got, double const* want, std::size_t count,
                                  double tolerance);

template <class Verify, class Call>
void measure(benchmark::State& state, int threads, work const& each, Verify&& verify, Call&& call) {
  call();
  if (std::string const wrong = std::forward<Verify>(verify)(); !wrong.empty()) {
    fail(state, wrong);
    return;
  }
  set_counters(state, threads, each);
  for (auto _ : state) {
    call();
    benchmark::ClobberMemory();
  }
}

}  // namespace bench
