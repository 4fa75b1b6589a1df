#include "support/ceiling.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <mutex>
#include <shunt/backend/host/simd/isa.hpp>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "support/reading.hpp"

namespace bench {
namespace {

// Keeps a value alive that nothing else needs.
template <class T> void keep(T const& value) {
  __asm__ __volatile__("" : : "g"(&value) : "memory");
}

// Twelve chains: more than latency (4) times ports (2), fewer than the sixteen AVX2 registers. Sixteen for dot
// products of bf16, whose latency is 6 on Zen 5.
#define BENCH_TWELVE(STEP) \
  STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7) STEP(8) STEP(9) STEP(10) STEP(11)
#define BENCH_SIXTEEN(STEP) BENCH_TWELVE(STEP) STEP(12) STEP(13) STEP(14) STEP(15)
constexpr double chains = 12;

#if defined(__x86_64__)
[[gnu::target("avx512f")]] double fma_avx512(std::int64_t steps) {
  __m512 const a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
#define BENCH_START(i) __m512 c##i = _mm512_set1_ps(float(i));
#define BENCH_STEP(i) c##i = _mm512_fmadd_ps(c##i, a, b);
#define BENCH_KEEP(i) keep(c##i);
  BENCH_TWELVE(BENCH_START)
  for (std::int64_t s = 0; s < steps; ++s) { BENCH_TWELVE(BENCH_STEP) }
  BENCH_TWELVE(BENCH_KEEP)
#undef BENCH_START
#undef BENCH_STEP
  return chains * 16 * 2;
}

[[gnu::target("avx2,fma")]] double fma_avx2(std::int64_t steps) {
  __m256 const a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
#define BENCH_START(i) __m256 c##i = _mm256_set1_ps(float(i));
#define BENCH_STEP(i) c##i = _mm256_fmadd_ps(c##i, a, b);
  BENCH_TWELVE(BENCH_START)
  for (std::int64_t s = 0; s < steps; ++s) { BENCH_TWELVE(BENCH_STEP) }
  BENCH_TWELVE(BENCH_KEEP)
#undef BENCH_START
#undef BENCH_STEP
#undef BENCH_KEEP
  return chains * 8 * 2;
}

// Products of integers, of 16 bits two of them and their sum for each 32 bits, of bytes four: as int8_rows multiplies
// int8. In assembly: g++ keeps sums of intrinsics in memory.
using shorts_512 = short __attribute__((vector_size(64)));
using shorts_256 = short __attribute__((vector_size(32)));
#define BENCH_START(i) Vector c##i = Vector{} + short(i);
#define BENCH_STEP(i) \
  __asm__("vpmaddwd %2, %3, %1\n\tvpaddd %1, %0, %0" : "+v"(c##i), "=&v"(t) : "v"(a), "v"(b));
#define BENCH_STEP_OF_BYTES(i) __asm__("vpdpbusd %1, %2, %0" : "+v"(c##i) : "v"(a), "v"(b));
#define BENCH_STEP_OF_BF16(i) __asm__("vdpbf16ps %1, %2, %0" : "+v"(c##i) : "v"(a), "v"(b));
#define BENCH_HOLD(i) __asm__ __volatile__("" : : "v"(c##i));
#define BENCH_INTEGERS(name, features, vector, step, bytes, ALL)   \
  [[gnu::target(features)]] double name(std::int64_t steps) {      \
    using Vector = vector;                                         \
    Vector const a = Vector{} + short(3), b = Vector{} + short(5); \
    [[maybe_unused]] Vector t;                                     \
    ALL(BENCH_START)                                               \
    for (std::int64_t s = 0; s < steps; ++s) { ALL(step) }         \
    ALL(BENCH_HOLD)                                                \
    return (ALL(BENCH_ONE) 0) * sizeof(Vector) / bytes * 2;        \
  }
#define BENCH_ONE(i) 1.0 +
BENCH_INTEGERS(fours_avx512, "avx512bw", shorts_512, BENCH_STEP_OF_BYTES, 1, BENCH_TWELVE)
BENCH_INTEGERS(bf16_dots_avx512, "avx512bw", shorts_512, BENCH_STEP_OF_BF16, 2, BENCH_SIXTEEN)
BENCH_INTEGERS(pairs_avx512, "avx512bw", shorts_512, BENCH_STEP, 2, BENCH_TWELVE)
BENCH_INTEGERS(pairs_avx2, "avx2", shorts_256, BENCH_STEP, 2, BENCH_TWELVE)
#undef BENCH_ONE
#undef BENCH_INTEGERS

// Products of tiles, 16 rows by 16 columns by 64 bytes of terms, onto four sums, of operands that stay in their tiles.
struct alignas(64) tile_shapes {
  unsigned char palette = 1, first_row = 0, unused[14] = {};
  unsigned short row_bytes[16] = {64, 64, 64, 64, 64, 64};
  unsigned char rows[16] = {16, 16, 16, 16, 16, 16};
};
#define BENCH_TILES(name, product, terms)                                                          \
  double name(std::int64_t steps) {                                                                \
    tile_shapes const shapes;                                                                      \
    __asm__ __volatile__("ldtilecfg %0" : : "m"(shapes) : "memory");                               \
    for (std::int64_t s = 0; s < steps; ++s) {                                                     \
      __asm__ __volatile__(product " %%tmm5, %%tmm4, %%tmm0\n\t" product                           \
                                   " %%tmm5, %%tmm4, %%tmm1\n\t" product                           \
                                   " %%tmm5, %%tmm4, %%tmm2\n\t" product " %%tmm5, %%tmm4, %%tmm3" \
                           :                                                                       \
                           :                                                                       \
                           : "memory");                                                            \
    }                                                                                              \
    __asm__ __volatile__("tilerelease" : : : "memory");                                            \
    return 4.0 * 16 * 16 * terms * 2;                                                              \
  }
BENCH_TILES(bf16_tiles, "tdpbf16ps", 32)
BENCH_TILES(int8_tiles, "tdpbssd", 64)
#undef BENCH_TILES
#undef BENCH_HOLD
#undef BENCH_STEP_OF_BF16
#undef BENCH_STEP_OF_BYTES
#undef BENCH_STEP
#undef BENCH_START
#endif

// Vectors of four that every compiler knows; the compiler fuses where the plain target has FMA.
double fma_portable(std::int64_t steps) {
  using four = float __attribute__((vector_size(16)));
  four const a = {0.999f, 0.999f, 0.999f, 0.999f}, b = {0.001f, 0.001f, 0.001f, 0.001f};
#define BENCH_START(i) four c##i = {float(i), float(i), float(i), float(i)};
#define BENCH_STEP(i) c##i = c##i * a + b;
#define BENCH_KEEP(i) keep(c##i);
  BENCH_TWELVE(BENCH_START)
  for (std::int64_t s = 0; s < steps; ++s) { BENCH_TWELVE(BENCH_STEP) }
  BENCH_TWELVE(BENCH_KEEP)
#undef BENCH_START
#undef BENCH_STEP
#undef BENCH_KEEP
  return chains * 4 * 2;
}
#undef BENCH_SIXTEEN
#undef BENCH_TWELVE

// The flops of one of `steps` steps on the calling thread.
double fma_steps(std::int64_t steps) {
#if defined(__x86_64__)
  switch (shunt::instructions_of(shunt::on_host{})) {
    case shunt::isa::amx:
    case shunt::isa::avx512_bf16:
    case shunt::isa::avx512_vnni:
    case shunt::isa::avx512: return fma_avx512(steps);
    case shunt::isa::avx2: return fma_avx2(steps);
    default: break;
  }
#endif
  return fma_portable(steps);
}

// The same of products of pairs of integers; 0 where the library has no instructions of their own for them.
double pairs_steps(std::int64_t steps) {
#if defined(__x86_64__)
  switch (shunt::instructions_of(shunt::on_host{})) {
    case shunt::isa::amx:
    case shunt::isa::avx512_bf16:
    case shunt::isa::avx512_vnni:
    case shunt::isa::avx512: return pairs_avx512(steps);
    case shunt::isa::avx2: return pairs_avx2(steps);
    default: break;
  }
#endif
  return 0;
}

// The same of bytes, four in each sum.
double fours_steps(std::int64_t steps) {
#if defined(__x86_64__)
  if (shunt::instructions_of({}) >= shunt::isa::avx512_vnni) return fours_avx512(steps);
#endif
  static_cast<void>(steps);
  return 0;
}

// The same of pairs of bf16, by vdpbf16ps; 0 where the processor has none, whatever isa::best takes.
double bf16_dots_steps(std::int64_t steps) {
#if defined(__x86_64__)
  if (shunt::host::available_isa() >= shunt::isa::avx512_bf16) return bf16_dots_avx512(steps);
#endif
  static_cast<void>(steps);
  return 0;
}

// The same by tiles, of bf16 and of bytes; 0 where the processor has none, or Linux does not permit them.
double bf16_tiles_steps(std::int64_t steps) {
#if defined(__x86_64__)
  if (shunt::host::available_isa() >= shunt::isa::amx) return bf16_tiles(steps);
#endif
  static_cast<void>(steps);
  return 0;
}
double int8_tiles_steps(std::int64_t steps) {
#if defined(__x86_64__)
  if (shunt::host::available_isa() >= shunt::isa::amx) return int8_tiles(steps);
#endif
  static_cast<void>(steps);
  return 0;
}

// GFLOP (or as many integer operations) a second of the calling thread, in a millisecond.
double now(double (*run)(std::int64_t)) {
  constexpr std::int64_t steps = 200'000;
  auto const start = std::chrono::steady_clock::now();
  double const flops = run(steps) * double(steps);
  std::chrono::duration<double> const took = std::chrono::steady_clock::now() - start;
  return flops / took.count() / 1e9;
}

// Seconds from the moment all threads stand ready until the last has done its work(thread).
double together(int threads, std::function<void(int)> const& work) {
  std::atomic<int> ready{0};
  std::atomic<bool> go{false};
  std::vector<std::thread> crew;
  for (int t = 1; t < threads; ++t) {
    crew.emplace_back([&, t] {
      ready.fetch_add(1);
      while (!go.load(std::memory_order_acquire)) std::this_thread::yield();
      work(t);
    });
  }
  while (ready.load() < threads - 1) std::this_thread::yield();
  auto const start = std::chrono::steady_clock::now();
  go.store(true, std::memory_order_release);
  work(0);
  for (auto& one : crew) one.join();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double measure_fma(int threads) {
  constexpr std::int64_t steps = 4'000'000;  // 5 to 20 ms: the clock of a busy core has settled
  double best = 0;
  for (int attempt = 0; attempt < 12; ++attempt) {
    double flops = 0;
    double const seconds = together(threads, [&](int t) {
      double const one = fma_steps(steps);
      if (t == 0) flops = one * double(steps);
    });
    best = std::max(best, flops * threads / seconds / 1e9);
  }
  return best;
}

double measure_read(int threads) {
  long const cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
  std::size_t const bytes = std::clamp<std::size_t>(cache > 0 ? 4 * std::size_t(cache) : 0,
                                                    std::size_t{256} << 20, std::size_t{1} << 30);
  void* const memory =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 0;
  madvise(memory, bytes, MADV_HUGEPAGE);
  auto* const data = static_cast<std::uint64_t*>(memory);
  std::size_t const part = bytes / sizeof *data / std::size_t(threads);
  together(threads, [&](int t) {
    std::uint64_t* const mine = data + std::size_t(t) * part;
    for (std::size_t i = 0; i < part; ++i) mine[i] = i;
  });
  double best = 0;
  std::uint64_t (*const ways[])(std::uint64_t const*, std::size_t) = {
      read_in_parts<1>, read_in_parts<4>, read_in_parts<8>};
  for (int attempt = 0; attempt < 9; ++attempt) {
    auto* const read = ways[attempt % 3];
    double const seconds =
        together(threads, [&](int t) { keep(read(data + std::size_t(t) * part, part)); });
    best = std::max(best, double(part * sizeof *data) * threads / seconds);
  }
  munmap(memory, bytes);
  return best;
}

struct ceiling {
  double best = 0;
  std::chrono::steady_clock::time_point at{};
};

// The best so far, measured again every few seconds: on a shared machine the first may be a bad one.
double best_for(int threads, std::map<int, ceiling>& known, double (*measure)(int)) {
  static std::mutex one_at_a_time;
  std::lock_guard const lock(one_at_a_time);
  ceiling& mine = known[threads];
  auto const now = std::chrono::steady_clock::now();
  if (mine.best == 0 || now - mine.at > std::chrono::seconds(5)) {
    mine.best = std::max(mine.best, measure(threads));
    mine.at = std::chrono::steady_clock::now();
  }
  return mine.best;
}

}  // namespace

double fma_gflops(int threads) {
  static std::map<int, ceiling> known;
  return best_for(threads, known, measure_fma);
}

double fma_gflops_now() { return now(fma_steps); }
double pairs_gops_now() { return now(pairs_steps); }
double fours_gops_now() { return now(fours_steps); }
double bf16_dots_gflops_now() { return now(bf16_dots_steps); }
double bf16_tiles_gflops_now() { return now(bf16_tiles_steps); }
double int8_tiles_gops_now() { return now(int8_tiles_steps); }

double read_bandwidth(int threads) {
  static std::map<int, ceiling> known;
  return best_for(threads, known, measure_read);
}

int cores() { return std::max(1, int(std::thread::hardware_concurrency())); }

}  // namespace bench
