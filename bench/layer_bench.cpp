// The whole layer: from tokens to tokens, and back with every weight gradient, over shapes, types, batch
// sizes and skews.
#include <unistd.h>

#include <shunt/route/presets.hpp>
#include <string>

#include "support/bench.hpp"
#include "support/layer_measure.hpp"

namespace {

using namespace bench::layers;

/// Half the machine's memory holds the weights and what training adds.
bool fits(shape const& s, double bytes_each) {
  double const all = 3.0 * s.experts * double(s.hidden) * s.intermediate * bytes_each;
  return all < 0.5 * double(sysconf(_SC_PHYS_PAGES)) * double(sysconf(_SC_PAGE_SIZE));
}

template <class T> void add_all(char const* suffix, shape s, bool small) {
  for (bool training : {false, true}) {
    for (bool packed : {false, true}) {
      if (packed && training) continue;
      double const each = sizeof(T) * (packed ? 2.0 : 1.0) + (training ? 4.0 : 0.0);
      if (!fits(s, each)) continue;
      std::string const stage = std::string("layer") +
                                (training ? "_training"
                                 : packed ? "_packed"
                                          : "") +
                                suffix;
      for (index_t tokens : {1, 8, 64, 512}) {
        for (int threads : bench::thread_counts()) {
          for (bench::skew how : bench::skews) {
            if (how != bench::skew::uniform && (tokens != 512 || packed || !small)) continue;
            s.tokens = tokens;
            bench::add(bench::name(stage, s, type_name<T>, threads,
                                   how == bench::skew::uniform ? "" : bench::to_string(how)),
                       [=](benchmark::State& state) {
                         measure_layer<T>(state, s, batches_of(s, how), threads, packed, training);
                       });
          }
        }
      }
    }
  }
}
}  // namespace

void bench::register_all() {
  struct {
    char const* suffix;
    shape s;
    bool small;
  } const all[] = {
      {"", {.hidden = 128, .intermediate = 256, .experts = 16, .top_k = 2}, true},
      {"", {.hidden = 512, .intermediate = 384, .experts = 64, .top_k = 6}, true},
      {"", presets::deepseek_v2_lite.sizes, false},
      {"", presets::qwen3_30b_a3b.sizes, false},
      // DeepSeek-V3 with its widths divided by four and an eighth of its experts.
      {"_scaled", {.hidden = 1792, .intermediate = 512, .experts = 32, .top_k = 8}, false},
  };
  for (auto const& one : all) {
    add_all<float>(one.suffix, one.s, one.small);
    add_all<bf16>(one.suffix, one.s, one.small);
  }
}
