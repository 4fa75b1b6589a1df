// How the layer scales: tokens from 1 to 8192, experts from 1 to 512, choices from 1 to 16, and the load
// from even to one expert. One thing is turned at a time. bench/support/curves.py draws what comes out.
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "support/bench.hpp"
#include "support/layer_measure.hpp"

namespace {

using namespace bench::layers;

constexpr shape usual{.tokens = 512, .hidden = 512, .intermediate = 384, .experts = 64, .top_k = 6};

/// A load by Zipf's law: expert e with a weight of (e + 1)^-exponent.
std::vector<double> zipf(shape const& s, double exponent) {
  std::vector<double> weight;
  for (index_t e = 0; e < s.experts; ++e) weight.push_back(std::pow(e + 1.0, -exponent));
  return weight;
}

std::string text_of(double exponent) {
  char text[16];
  std::snprintf(text, sizeof text, "%g", exponent);
  return text;
}

template <class T> void add(std::string const& curve, shape const& s, double exponent = 0) {
  int const threads = bench::cores();
  for (bool const training : {false, true}) {
    std::string name =
        bench::name("scaling_" + curve + (training ? "_training" : ""), s, type_name<T>, threads);
    if (curve == "skew") name += "/zipf" + text_of(exponent);
    bench::add(name, [=](benchmark::State& state) {
      std::vector<std::vector<index_t>> ids;
      for (std::uint64_t seed = 1; seed <= (s.tokens <= 8 ? 16u : 1u); ++seed) {
        ids.push_back(bench::drawn_experts(s, zipf(s, exponent), seed));
      }
      measure_layer<T>(state, s, ids, threads, false, training);
    });
  }
}

template <class T> void add_all() {
  for (index_t tokens = 1; tokens <= 8192; tokens *= 2) {
    shape s = usual;
    s.tokens = tokens;
    add<T>("tokens", s);
  }
  for (index_t k : {1, 2, 4, 6, 8, 12, 16}) {
    shape s = usual;
    s.top_k = k;
    add<T>("top_k", s);
  }
  // As many rows as above, of one choice each: so that one expert can have them all.
  shape single = usual;
  single.tokens = usual.tokens * usual.top_k;
  single.top_k = 1;
  for (double const exponent : {0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 99.0}) {
    add<T>("skew", single, exponent);
  }
  for (index_t experts = 1; experts <= 512; experts *= 2) {
    shape s = single;
    s.experts = experts;
    add<T>("experts", s);
  }
}

}  // namespace

void bench::register_all() {
  add_all<float>();
  add_all<bf16>();
}
