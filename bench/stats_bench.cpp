// Stats: figures of a load; what a training step pays to watch its experts.
#include <cmath>
#include <shunt/stats.hpp>
#include <string>
#include <vector>

#include "support/bench.hpp"
#include "support/inputs.hpp"

namespace {

void figures(benchmark::State& state, shunt::index_t experts, bench::skew how) {
  shunt::shape const s{.tokens = 512, .experts = experts, .top_k = 4};
  std::vector<shunt::index_t> counts(static_cast<std::size_t>(experts), 0);
  for (shunt::index_t const id : bench::chosen_experts(s, how, 1)) {
    ++counts[static_cast<std::size_t>(id)];
  }
  shunt::load_figures out;
  auto const verify = [&]() -> std::string {
    double entropy = 0;
    for (shunt::index_t const n : counts) {
      double const p = n / 2048.0;
      if (n > 0) entropy -= p * std::log2(p);
    }
    return std::fabs(out.entropy - entropy) <= 1e-5 * (1 + entropy) ? "" : "the entropy is wrong";
  };
  bench::measure(state, 1, {.bytes = 4.0 * experts}, verify, [&] {
    benchmark::DoNotOptimize(
        shunt::load_stats(shunt::on_host{.threads = 1}, counts,
                          {.figures = shunt::view<shunt::load_figures, 1>(&out, {{1}})}));
  });
}

}  // namespace

void bench::register_all() {
  for (shunt::index_t const experts : {8, 64, 256, 1024}) {
    for (bench::skew const how : bench::skews) {
      bench::add(bench::name("stats", {.tokens = 512, .experts = experts, .top_k = 4}, "int32", 1,
                             bench::to_string(how)),
                 [=](benchmark::State& state) { figures(state, experts, how); });
    }
  }
}
