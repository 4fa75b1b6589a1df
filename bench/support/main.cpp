// The main of every bench/*_bench.cpp.
#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "support/bench.hpp"

namespace {

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

}  // namespace

int main(int argc, char** argv) {
  bool to_file = false, only_names = false;
  for (int i = 1; i < argc; ++i) {
    to_file = to_file || std::string(argv[i]).rfind("--benchmark_out=", 0) == 0;
    only_names = only_names || std::string(argv[i]).rfind("--benchmark_list_tests", 0) == 0;
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  if (!only_names) {
    for (auto const& [key, value] : bench::machine()) benchmark::AddCustomContext(key, value);
  }
  bench::register_all();
  plain_names<benchmark::ConsoleReporter> console(benchmark::ConsoleReporter::OO_Tabular);
  plain_names<benchmark::JSONReporter> json;
  benchmark::RunSpecifiedBenchmarks(&console, to_file ? &json : nullptr);
  benchmark::Shutdown();
  return bench::any_failed() ? 1 : 0;
}
