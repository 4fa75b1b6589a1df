#include "support/bench.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <memory>
#include <shunt/backend/host/isa.hpp>

namespace bench {
namespace {

bool any_failed = false;

// Google Benchmark writes "/real_time" behind the names of benchmarks timed by the wall clock; all of
// ours are, so the names go without.
template <class Reporter> class plain_names : public Reporter {
 public:
  using Reporter::Reporter;
  void ReportRuns(std::vector<benchmark::BenchmarkReporter::Run> const& runs) override {
    auto renamed = runs;
    for (auto& run : renamed) run.run_name.time_type.clear();
    Reporter::ReportRuns(renamed);
  }
};

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

void describe_machine() {
  benchmark::AddCustomContext("processor", processor());
  benchmark::AddCustomContext("isa", shunt::to_string(shunt::instructions_of(shunt::on_host{})));
  for (int const threads : thread_counts()) {
    std::string const suffix = "_threads" + std::to_string(threads);
    benchmark::AddCustomContext("fma_gflops" + suffix, tenths(fma_gflops(threads)));
    benchmark::AddCustomContext("read_gbytes" + suffix, tenths(read_bandwidth(threads) / 1e9));
  }
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
  any_failed = true;
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

int main(int argc, char** argv) {
  bool to_file = false, only_names = false;
  for (int i = 1; i < argc; ++i) {
    to_file = to_file || std::string(argv[i]).rfind("--benchmark_out=", 0) == 0;
    only_names = only_names || std::string(argv[i]).rfind("--benchmark_list_tests", 0) == 0;
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  if (!only_names) bench::describe_machine();
  bench::register_all();
  bench::plain_names<benchmark::ConsoleReporter> console(benchmark::ConsoleReporter::OO_Tabular);
  bench::plain_names<benchmark::JSONReporter> json;
  benchmark::RunSpecifiedBenchmarks(&console, to_file ? &json : nullptr);
  benchmark::Shutdown();
  return bench::any_failed ? 1 : 0;
}
