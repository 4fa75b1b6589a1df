// The routed feed-forward beside OpenBLAS, oneDNN, libxsmm and ggml: in turns in one process, each output
// compared before anything is timed. bench/run --peers starts it; docs/benchmarks.md tells more.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <regex>
#include <shunt/route/presets.hpp>
#include <thread>

#include "peers/feed_forward.hpp"
#include "peers/results.hpp"
#include "peers/verify.hpp"
#include "support/bench.hpp"

namespace bench::peers {
namespace {

using clock = std::chrono::steady_clock;

struct options {
  std::string libraries = "openblas,onednn,libxsmm,ggml", json;
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

/// A kind of weights: how many bytes a weight takes at least, and what an output may be off by.
struct kind {
  char const* name;
  double bytes;
  tolerance allowed;
};

/// One turn; seconds a call. The other libraries' idle threads are given time to stop spinning first.
template <class T> double one_turn(problem<T> const& p, contestant<T>& who, std::vector<T>& y) {
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  auto const start = clock::now();
  for (int i = 0; i < p.repeats; ++i) {
    for (auto const& in : p.batches) who.run(in, y.data());
  }
  return std::chrono::duration<double>(clock::now() - start).count() /
         double(p.batches.size() * std::size_t(p.repeats));
}

/// `who`: Shunt's two ways first. Theirs are timed beside the first where weights lie plain in both,
/// beside the second otherwise.
template <class T>
void compete(problem<T> const& p, std::string const& base, contestant<T>& reference,
             std::vector<contestant<T>*> const& who, kind const& of, int rounds, results& to) {
  for (auto* const one : who) {
    if (auto const bad = against(p, reference, *one, of.allowed); !bad.empty()) {
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
  for (auto const& in : p.batches) {
    for (std::size_t e = 0; e < p.E(); ++e) touched += in.offset[e + 1] > in.offset[e];
  }
  double const expert = 3 * double(p.H()) * double(p.I()), rows = double(p.R());
  work const each{.flops = 2 * rows * expert,
                  .bytes = touched / double(p.batches.size()) * expert * of.bytes +
                           2 * rows * double(p.H()) * sizeof(T)};
  for (std::size_t i = 0; i < who.size(); ++i) {
    bool const packed = who[i]->weights() == layout::packed;
    bool const plain = !packed && who[0]->weights() == layout::plain;
    bool const ours = i < 2;
    to.add(base + "/" + who[i]->name() + (packed ? "_packed" : ""), p.threads, each, seconds[i],
           ours ? std::vector<double>{} : seconds[plain ? 0 : 1]);
  }
}

template <class T> struct library {
  char const* name;
  contestants<T> (*of)(problem<T> const&, std::vector<std::string>& left_out);
};
/// Weights of a kind: Shunt's ways, and the libraries beside them.
template <class T> struct contest {
  kind of;
  contestants<T> (*ours)(problem<T> const&);
  std::vector<library<T>> others;
};

template <class T> std::vector<library<T>> libraries() {
  return {
#ifdef PEERS_OPENBLAS
      {"openblas", of_openblas<T>},
#endif
#ifdef PEERS_ONEDNN
      {"onednn", of_onednn<T>},
#endif
#ifdef PEERS_LIBXSMM
      {"libxsmm", of_libxsmm<T>},
#endif
#ifdef PEERS_GGML
      {"ggml", of_ggml<T>},
#endif
  };
}

contest<float> const f32{{"f32", 4, {2e-5, 2e-5, 2e-5}}, of_shunt<float>, libraries<float>()};
contest<bf16> const bf16s{{"bf16", 2, {2e-2, 4e-2, 4e-2}}, of_shunt<bf16>, libraries<bf16>()};
/// The weights of f32 rounded by each library to its format, and compared as they were.
std::vector<contest<float>> const formats = {
#ifdef PEERS_GGML
    {{"int8", 1, {0.08, 0.08, 0.08}},
     of_shunt_as<shunt::int8_channel>,
     {{"ggml", of_ggml_as<shunt::int8_channel>}}},
    {{"mxfp4", 4.25 / 8, {0.35, 0.35, 0.3}},
     of_shunt_as<shunt::mxfp4>,
     {{"ggml", of_ggml_as<shunt::mxfp4>}}},
#endif
};

/// One contest over one model's weights, made where they are needed; `tokens` in falling order.
template <class T>
void run(contest<T> const& in, std::unique_ptr<problem<T>>& p, shunt::shape s,
         std::vector<index_t> const& tokens, int threads, options const& o, results& to) {
  auto const base = [&](index_t t, library<T> const& beside) {
    s.tokens = t;
    return bench::name("feed_forward", s, in.of.name, threads) + "/" + beside.name;
  };
  contestants<T> ours;
  for (auto const& one : in.others) {
    if (!asked_for(o, one.name)) continue;
    std::vector<index_t> wanted;
    for (index_t const t : tokens) {
      if (std::regex_search(base(t, one), o.filter)) wanted.push_back(t);
    }
    if (wanted.empty()) continue;
    s.tokens = tokens[0];  // the scratch of all is made for the most
    if (!fits(s, sizeof(T))) {
      to.leave_out(shape_name(s) + ", " + in.of.name + ": the weights take too much memory");
      return;
    }
    if (!p) p = std::make_unique<problem<T>>(s, threads);
    p->set_tokens(tokens[0]);
    std::vector<std::string> left_out;
    auto const theirs = one.of(*p, left_out);
    for (auto const& line : left_out) to.leave_out(line);
    if (theirs.empty()) continue;
    if (ours.empty()) ours = in.ours(*p);
    auto const judge = reference(*p);
    std::vector<contestant<T>*> who;
    for (auto const& each : ours) who.push_back(each.get());
    for (auto const& each : theirs) who.push_back(each.get());
    for (index_t const t : wanted) {
      p->set_tokens(t);
      for (auto* const each : who) each->prepare();
      std::fprintf(stderr, "running %s\n", base(t, one).c_str());
      compete(*p, base(t, one), *judge, who, in.of, o.rounds, to);
    }
  }
}

int main_of(options const& o) {
  results to;
  struct {
    shunt::shape s;
    std::vector<index_t> tokens;
    int threads;
    bool formats = false;
  } const works[] = {
      // One expert again and again, on one core: weights stay in the caches.
      {{.hidden = 512, .intermediate = 128, .experts = 1, .top_k = 1}, {48}, 1},
      {{.hidden = 512, .intermediate = 384, .experts = 64, .top_k = 6}, {512}, cores()},
      {shunt::presets::deepseek_v2_lite.sizes, {4096, 512, 64, 8, 1}, cores(), true},
      {shunt::presets::qwen3_30b_a3b.sizes, {4096, 512, 64, 8, 1}, cores()}};
  for (auto const& work : works) {
    std::unique_ptr<problem<float>> floats;
    run(f32, floats, work.s, work.tokens, work.threads, o, to);
    for (auto const& format : formats) {
      if (work.formats) run(format, floats, work.s, work.tokens, work.threads, o, to);
    }
    floats.reset();
    std::unique_ptr<problem<bf16>> halves;
    run(bf16s, halves, work.s, work.tokens, work.threads, o, to);
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
