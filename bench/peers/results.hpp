#pragma once
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "support/bench.hpp"

/// What the peers' runs came to, in the form of Google Benchmark's JSON, for bench/support/table.py.
namespace bench::peers {

/// Least, median and most.
struct spread {
  double least = 0, median = 0, most = 0;

  explicit spread(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    least = values.front();
    median = values[values.size() / 2];
    most = values.back();
  }
};

class results {
 public:
  [[nodiscard]] bool empty() const { return lines_.empty(); }
  [[nodiscard]] bool any_wrong() const { return wrong_; }

  /// Seconds of each round; shunt's of the same rounds beside them, or none.
  void add(std::string const& name, int threads, work const& each,
           std::vector<double> const& seconds, std::vector<double> const& shunt) {
    spread const t(seconds);
    double const peak = fma_gflops(threads) * 1e9, read = read_bandwidth(threads);
    std::string line = "\"name\": \"" + name + "\", \"time_unit\": \"ms\"";
    auto const figure = [&line](char const* key, double value) {
      char text[96];
      std::snprintf(text, sizeof text, ", \"%s\": %.6g", key, value);
      line += text;
    };
    figure("real_time", 1e3 * t.median);
    figure("least", 1e3 * t.least);
    figure("most", 1e3 * t.most);
    figure("rounds", double(seconds.size()));
    figure("gflops", each.flops / t.median / 1e9);
    figure("bytes_per_second", each.bytes / t.median);
    figure("of_ceiling", each.flops / t.median / peak);
    figure("of_roofline", std::max(each.flops / peak, each.bytes / read) / t.median);
    if (!shunt.empty()) {
      std::vector<double> ratios;
      for (std::size_t i = 0; i < seconds.size(); ++i) ratios.push_back(seconds[i] / shunt[i]);
      spread const r(ratios);
      figure("to_shunt", r.median);
      figure("to_shunt_least", r.least);
      figure("to_shunt_most", r.most);
    }
    lines_.push_back(line);
  }
  void add_wrong(std::string const& name, std::string const& sentence) {
    wrong_ = true;
    lines_.push_back("\"name\": \"" + name + "\", \"error_occurred\": true, \"error_message\": \"" +
                     sentence + "\"");
  }
  /// Each line is said once.
  void leave_out(std::string const& line) {
    if (left_out_.insert(line).second) std::fprintf(stderr, "not run: %s\n", line.c_str());
  }

  void write(std::string const& path) const {
    std::ofstream to(path);
    to << "{\"context\": {\"num_cpus\": " << cores();
    for (auto const& [key, value] : machine()) to << ", \"" << key << "\": \"" << value << '"';
    to << "},\n \"benchmarks\": [";
    for (auto const& line : lines_)
      to << (&line == &lines_[0] ? "\n" : ",\n") << "  {" << line << '}';
    to << "\n ]}\n";
  }

 private:
  bool wrong_ = false;
  std::vector<std::string> lines_;
  std::set<std::string> left_out_;
};

}  // namespace bench::peers
