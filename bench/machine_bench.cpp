// What one core of this machine does now, and how much that varies: fused multiply-adds, dot products of
// bf16, pairs and fours of integers, products of tiles, and reading from each cache and from memory, in one stream and in four. What bounds a kernel
// is read off against these; on a shared machine the caches and the memory are shared with strangers.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <shunt/backend/host/simd/isa.hpp>
#include <string>
#include <vector>

#include "support/bench.hpp"
#include "support/pages.hpp"
#include "support/reading.hpp"

namespace {

/// GB, GFLOP or as many integer operations a second of rounds of some milliseconds: the least, a quarter
/// below it, the median, the most.
void report(benchmark::State& state, std::vector<double> rounds) {
  std::sort(rounds.begin(), rounds.end());
  auto const at = [&](double share) {
    return rounds[std::size_t(share * double(rounds.size() - 1))] / 1e9;
  };
  state.counters["least"] = at(0);
  state.counters["quarter"] = at(0.25);
  state.counters["median"] = at(0.5);
  state.counters["most"] = at(1);
}

template <class Round> void timed(benchmark::State& state, double each, Round&& round) {
  std::vector<double> rates;
  for (auto _ : state) {
    auto const start = std::chrono::steady_clock::now();
    round();
    std::chrono::duration<double> const took = std::chrono::steady_clock::now() - start;
    rates.push_back(each / took.count());
  }
  report(state, std::move(rates));
}

/// Reads `bytes` over and over, 16 MB a round, or that much of what no cache holds.
template <std::size_t Parts> void read(benchmark::State& state, std::size_t bytes) {
  constexpr std::size_t round = std::size_t{16} << 20;
  bench::paged<std::uint64_t> words(std::max(bytes, std::size_t{1} << 20) / sizeof(std::uint64_t));
  for (std::size_t i = 0; i < words.size(); ++i) words[i] = i;
  std::size_t const part = std::min(bytes, round) / sizeof(std::uint64_t);
  std::size_t at = 0;
  timed(state, double(round), [&] {
    for (std::size_t done = 0; done < round; done += part * sizeof(std::uint64_t)) {
      std::uint64_t folded = bench::read_in_parts<Parts>(words.data() + at, part);
      benchmark::DoNotOptimize(folded);
      at = at + 2 * part <= words.size() && bytes > round ? at + part : 0;
    }
  });
}

}  // namespace

void bench::register_all() {
  struct {
    char const* name;
    std::size_t bytes;
  } const places[] = {
      {"16K", 16 << 10}, {"256K", 256 << 10}, {"4M", 4 << 20}, {"512M", 512u << 20}};
  for (auto const& place : places) {
    bench::add(std::string("machine/read_") + place.name + "/streams1/threads1",
               [=](benchmark::State& state) { read<1>(state, place.bytes); });
    bench::add(std::string("machine/read_") + place.name + "/streams4/threads1",
               [=](benchmark::State& state) { read<4>(state, place.bytes); });
  }
  auto const computing = [](char const* name, double (*now)()) {
    bench::add(name, [now](benchmark::State& state) {
      std::vector<double> rates;
      for (auto _ : state) rates.push_back(now() * 1e9);
      report(state, rates);
    });
  };
  computing("machine/fma/threads1", bench::fma_gflops_now);
  computing("machine/int16_pairs/threads1", bench::pairs_gops_now);
  if (shunt::instructions_of({}) >= shunt::isa::avx512_vnni) {
    computing("machine/int8_vnni/threads1", bench::fours_gops_now);
  }
  if (shunt::host::available_isa() >= shunt::isa::avx512_bf16) {
    computing("machine/bf16_dots/threads1", bench::bf16_dots_gflops_now);
  }
  if (shunt::host::available_isa() >= shunt::isa::amx) {
    computing("machine/amx_bf16/threads1", bench::bf16_tiles_gflops_now);
    computing("machine/amx_int8/threads1", bench::int8_tiles_gops_now);
  }
}
