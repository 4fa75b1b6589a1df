// The routed feed-forward beside OpenBLAS, oneDNN and libxsmm: in turns in one process, each output
// compared before anything is timed. bench/run --peers starts it; docs/benchmarks.md tells more.
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <regex>
#include <shunt/route/presets.hpp>
#include <thread>

#include "peers/feed_forward.hpp"
#include "peers/results.hpp"
#include "support/bench.hpp"

namespace bench::peers {
namespace {

using clock = std::chrono::steady_clock;

struct options {
  std::string libraries = "openblas,onednn,libxsmm", json;
  std::regex filter{"."};
  int rounds = 7;
};

bool asked_for(options const& o, std::string const& library) {
  return ("," + o.libraries + ",").find("," + library + ",") != std::string::npos;
}

bool fits(shunt::shape const& s, double bytes_each) {
  double const weights = 3.0 * s.experts * double(s.hidden) * s.intermediate * bytes_each;
  // As the model has them, Shunt's packed ones, the library's; and what else there is.
  return 3.3 * weights < 0.8 * double(sysconf(_SC_PHYS_PAGES)) * double(sysconf(_SC_PAGE_SIZE));
}

/// The first and last row of the first batch against double, or what is wrong.
template <class T> std::string against_double(problem<T> const& p, std::vector<T> const& y) {
  std::size_t const H = p.H(), I = p.I();
  auto const dot = [](T const* w, auto const& v, std::size_t n) {
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) sum += double(shunt::to_float(w[i])) * v[i];
    return sum;
  };
  for (std::size_t const row : {std::size_t{0}, p.R() - 1}) {
    std::size_t e = 0;
    while (std::size_t(p.offset[0][e + 1]) <= row) ++e;
    std::vector<double> x(H), act(I), want(H);
    std::vector<float> got(H);
    for (std::size_t h = 0; h < H; ++h) x[h] = shunt::to_float(p.x[row * H + h]);
    for (std::size_t i = 0; i < I; ++i) {
      double const gate = dot(p.up_of(e) + i * H, x, H);
      act[i] = gate / (1 + std::exp(-gate)) * dot(p.up_of(e) + (I + i) * H, x, H);
    }
    for (std::size_t h = 0; h < H; ++h) {
      want[h] = dot(p.down_of(e) + h * I, act, I);
      got[h] = shunt::to_float(y[row * H + h]);
    }
    double const bound = std::is_same_v<T, float> ? 2e-5 : 2e-2;
    if (auto const bad = compare(got.data(), want.data(), H, bound); !bad.empty()) return bad;
  }
  return {};
}

/// Every element of the first two batches against Shunt's on plain weights, or what is wrong.
template <class T>
std::string against(problem<T> const& p, contestant<T>& ours, contestant<T>& other) {
  std::vector<T> y(p.R() * p.H()), z(y.size());
  std::vector<double> want(y.size());
  std::vector<float> got(y.size());
  for (auto const& offset : p.offset) {
    if (&offset == &p.offset[0] + 2) break;
    ours.run(offset.data(), y.data());
    other.run(offset.data(), z.data());
    for (std::size_t i = 0; i < y.size(); ++i) {
      want[i] = shunt::to_float(y[i]);
      got[i] = shunt::to_float(z[i]);
    }
    double const bound = std::is_same_v<T, float> ? 2e-5 : 4e-2;
    if (auto const bad = compare(got.data(), want.data(), y.size(), bound); !bad.empty()) {
      return bad;
    }
    if (&offset == &p.offset[0]) {
      if (auto const bad = against_double(p, y); !bad.empty()) return "shunt: " + bad;
    }
  }
  return {};
}

/// One call of each batch of the cycle; seconds a call. The other libraries' idle threads are given
/// time to stop spinning first.
template <class T> double one_turn(problem<T> const& p, contestant<T>& who, std::vector<T>& y) {
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  auto const start = clock::now();
  for (auto const& offset : p.offset) who.run(offset.data(), y.data());
  return std::chrono::duration<double>(clock::now() - start).count() / double(p.offset.size());
}

template <class T>
void compete(problem<T> const& p, std::string const& base, std::vector<contestant<T>*> const& who,
             int rounds, results& to) {
  for (auto* const one : who) {
    if (auto const bad = against(p, *who[0], *one); !bad.empty()) {
      to.add_wrong(base + "/" + one->name(), bad);
      return;
    }
  }
  std::vector<T> y(p.R() * p.H());
  std::vector<std::vector<double>> seconds(who.size());
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < who.size(); ++i) seconds[i].push_back(one_turn(p, *who[i], y));
  }
  double touched = 0;
  for (auto const& offset : p.offset) {
    for (std::size_t e = 0; e < p.E(); ++e) touched += offset[e + 1] > offset[e];
  }
  double const expert = 3 * double(p.H()) * double(p.I()), rows = double(p.R());
  work const each{
      .flops = 2 * rows * expert,
      .bytes = (touched / double(p.offset.size()) * expert + 2 * rows * double(p.H())) * sizeof(T)};
  for (std::size_t i = 0; i < who.size(); ++i) {
    bool const packed = who[i]->weights() == layout::packed;
    bool const ours = i < 2;  // plain, packed
    to.add(base + "/" + who[i]->name() + (packed ? "_packed" : ""), p.threads, each, seconds[i],
           ours ? std::vector<double>{} : seconds[packed ? 1 : 0]);
  }
}

template <class T> struct library {
  char const* name;
  contestants<T> (*of)(problem<T> const&, std::vector<std::string>& left_out);
};
template <class T>
constexpr library<T> libraries[] = {
#ifdef PEERS_OPENBLAS
    {"openblas", of_openblas<T>},
#endif
#ifdef PEERS_ONEDNN
    {"onednn", of_onednn<T>},
#endif
#ifdef PEERS_LIBXSMM
    {"libxsmm", of_libxsmm<T>},
#endif
    {"", nullptr}};

/// One model's weights; `tokens` in falling order.
template <class T>
void run(shunt::shape s, std::vector<index_t> const& tokens, int threads, char const* type,
         options const& o, results& to) {
  auto const base = [&](index_t t, library<T> const& beside) {
    s.tokens = t;
    return bench::name("feed_forward", s, type, threads) + "/" + beside.name;
  };
  std::unique_ptr<problem<T>> p;
  contestants<T> ours;
  for (auto const& one : libraries<T>) {
    if (one.of == nullptr || !asked_for(o, one.name)) continue;
    std::vector<index_t> wanted;
    for (index_t const t : tokens) {
      if (std::regex_search(base(t, one), o.filter)) wanted.push_back(t);
    }
    if (wanted.empty()) continue;
    s.tokens = tokens[0];  // the scratch of all is made for the most
    if (!fits(s, sizeof(T))) {
      to.leave_out(shape_name(s) + ", " + type + ": the weights take too much memory");
      return;
    }
    if (!p) p = std::make_unique<problem<T>>(s, threads);
    p->set_tokens(tokens[0]);
    std::vector<std::string> left_out;
    auto const theirs = one.of(*p, left_out);
    for (auto const& line : left_out) to.leave_out(line);
    if (theirs.empty()) continue;
    if (ours.empty()) ours = of_shunt(*p);
    std::vector<contestant<T>*> who;
    for (auto const& each : ours) who.push_back(each.get());
    for (auto const& each : theirs) who.push_back(each.get());
    for (index_t const t : wanted) {
      p->set_tokens(t);
      for (auto* const each : who) each->prepare();
      std::fprintf(stderr, "running %s\n", base(t, one).c_str());
      compete(*p, base(t, one), who, o.rounds, to);
    }
  }
}

int main_of(options const& o) {
  results to;
  struct {
    shunt::shape s;
    std::vector<index_t> tokens;
    int threads;
  } const works[] = {
      // One expert again and again, on one core: weights stay in the caches.
      {{.hidden = 512, .intermediate = 128, .experts = 1, .top_k = 1}, {48}, 1},
      {{.hidden = 512, .intermediate = 384, .experts = 64, .top_k = 6}, {512}, cores()},
      {shunt::presets::deepseek_v2_lite.sizes, {512, 64, 8, 1}, cores()},
      {shunt::presets::qwen3_30b_a3b.sizes, {512}, cores()}};
  for (auto const& work : works) {
    run<float>(work.s, work.tokens, work.threads, "f32", o, to);
    run<bf16>(work.s, work.tokens, work.threads, "bf16", o, to);
  }
  if (to.empty()) return 0;
  to.write(o.json);
  return to.any_wrong() ? 1 : 0;
}

}  // namespace
}  // namespace bench::peers

int main(int argc, char** argv) {
  bench::peers::options o;
  for (int i = 1; i < argc; ++i) {
    std::string const argument = argv[i];
    auto const value = argument.substr(argument.find('=') + 1);
    if (argument.rfind("--libraries=", 0) == 0) {
      o.libraries = value;
    } else if (argument.rfind("--filter=", 0) == 0) {
      o.filter = value;
    } else if (argument.rfind("--rounds=", 0) == 0) {
      o.rounds = std::max(1, std::atoi(value.c_str()));
    } else if (argument.rfind("--json=", 0) == 0) {
      o.json = value;
    } else {
      std::fprintf(stderr,
                   "peers [--libraries=NAME,...] [--filter=REGEX] [--rounds=N] --json=FILE\n");
      return 2;
    }
  }
  return bench::peers::main_of(o);
}
