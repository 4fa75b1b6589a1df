#include "support/bench.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <memory>
#include <shunt/backend/host/simd/isa.hpp>

namespace bench {
namespace {

bool failed_one = false;

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0 && line.find(": ") != std::string::npos) {
      return line.substr(line.find(": ") + 2);
    }
  }
  return "unknown";
}

// One figure behind the point, as text.
std::string tenths(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

}  // namespace

std::string shape_name(shunt::shape const& s) {
  std::string text;
  auto const part = [&](char letter, shunt::index_t extent) {
    if (extent != 0) (text += text.empty() ? "" : "_") += letter + std::to_string(extent);
  };
  part('E', s.experts);
  part('K', s.top_k);
  part('H', s.hidden);
  part('I', s.intermediate);
  return text;
}

std::string name(std::string const& stage, shunt::shape const& s, std::string const& type,
                 int threads, std::string const& skew) {
  std::string text = stage + "/" + shape_name(s) + "/" + type + "/T" + std::to_string(s.tokens) +
                     "/threads" + std::to_string(threads);
  return skew.empty() ? text : text + "/" + skew;
}

std::vector<std::pair<std::string, std::string>> machine() {
  std::vector<std::pair<std::string, std::string>> known = {
      {"processor", processor()},
      {"isa", shunt::to_string(shunt::instructions_of(shunt::on_host{}))},
      {"isa_reason", shunt::instruction_choice_of(shunt::on_host{}).reason}};
  for (int const threads : thread_counts()) {
    std::string const suffix = "_threads" + std::to_string(threads);
    known.emplace_back("fma_gflops" + suffix, tenths(fma_gflops(threads)));
    known.emplace_back("read_gbytes" + suffix, tenths(read_bandwidth(threads) / 1e9));
  }
  return known;
}

bool any_failed() { return failed_one; }

std::vector<int> thread_counts() {
  return cores() > 1 ? std::vector<int>{1, cores()} : std::vector<int>{1};
}

benchmark::internal::Benchmark* add(std::string const& full_name,
                                    std::function<void(benchmark::State&)> body) {
  return benchmark::RegisterBenchmark(full_name.c_str(), std::move(body))
      ->UseRealTime()
      ->Unit(benchmark::kMicrosecond);
}

void fail(benchmark::State& state, std::string const& sentence) {
  failed_one = true;
  state.SkipWithError(sentence.c_str());
}

void set_counters(benchmark::State& state, int threads, work const& each) {
  using benchmark::Counter;
  auto const rate = [](double per_call) {
    return Counter(per_call, Counter::kIsIterationInvariantRate);
  };
  double const peak = fma_gflops(threads) * 1e9, read = read_bandwidth(threads);
  if (each.flops > 0) {
    state.counters["gflops"] = rate(each.flops / 1e9);
    state.counters["of_ceiling"] = rate(each.flops / peak);
  }
  if (each.bytes > 0) state.counters["bytes_per_second"] = rate(each.bytes);
  if (each.flops > 0 || each.bytes > 0) {
    state.counters["of_roofline"] = rate(std::max(each.flops / peak, each.bytes / read));
  }
}

std::string compare(float const* got, double const* want, std::size_t count, double tolerance) {
  double largest = 0;
  for (std::size_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(want[i]));
  if (!(largest > 0)) return "the reference is flat: it proves nothing";
  for (std::size_t i = 0; i < count; ++i) {
    double const difference = std::fabs(double(got[i]) - want[i]);
    if (!(difference <= tolerance * largest)) {
      return "element " + std::to_string(i) + " is " + std::to_string(got[i]) + " and should be " +
             std::to_string(want[i]);
    }
  }
  return {};
}

}  // namespace bench
