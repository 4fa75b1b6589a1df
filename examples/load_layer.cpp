// Loads one mixture-of-experts layer of a published checkpoint, says what it found, and runs tokens
// through it.
//
// test: {source}/examples/tiny_checkpoint
// test: {source}/examples/tiny_checkpoint --layer 1 --tokens 64 --threads 1 --format stored
#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "shunt/core/random.hpp"
#include "shunt/layer.hpp"
#include "support/checkpoint/loaded_layer.hpp"

namespace {

struct options {
  std::string folder, format = "bf16";
  int layer = 0, tokens = 256, threads = 0;
  std::uint64_t seed = 1;
};

double megabytes(std::uint64_t bytes) { return double(bytes) / 1e6; }

void tell(checkpoint::any_layer const& layer, options const& o) {
  shunt::preset const& p = layer.preset();
  std::printf("%s, layer %d: %d experts of width %d on %d columns, %d for each token\n", p.name,
              o.layer, p.sizes.experts, p.sizes.intermediate, p.sizes.hidden, p.sizes.top_k);
  if (p.model_hidden > 0) std::printf("  latent experts in a model of width %d\n", p.model_hidden);
  if (p.route.zero_experts > 0) std::printf("  the last %d do nothing\n", p.route.zero_experts);
  if (p.shared_experts > 0) {
    std::printf("  %d shared, %d wide%s\n", p.shared_experts, p.shared_intermediate,
                p.shared_gate ? ", with a gate" : "");
  }
  std::printf("  scores %s%s, gates %s times %g\n", to_string(p.route.score),
              layer.by_token() ? ", chosen by a table of token ids"
              : p.choice_bias  ? " + a bias for the choice"
                               : "",
              p.route.gates == shunt::gate_kind::raw            ? "raw"
              : p.route.gates == shunt::gate_kind::renormalized ? "renormalized"
                                                                : "softmax over the chosen",
              double(p.route.scale));
  if (p.route.groups > 1) {
    std::printf("  the best %d of %d groups\n", p.route.top_groups, p.route.groups);
  }
  std::printf("\n%-58s %-8s %-18s %8s %10s\n", "tensors", "type", "shape", "number", "MB");
  for (checkpoint::used_tensor const& t : layer.used().all()) {
    std::printf("%-58s %-8s %-18s %8llu %10.3f  %s\n", t.name.c_str(), t.kind.c_str(),
                checkpoint::shape_text(t.shape).c_str(), static_cast<unsigned long long>(t.count),
                megabytes(t.bytes),
                t.in_place == t.count ? "in place"
                : t.in_place == 0     ? "copied"
                                      : "in part copied");
  }
  std::printf(
      "%.3f MB are used where they lie in the files, %.3f MB were copied or converted into "
      "%.3f MB\n\n",
      megabytes(layer.used().bytes_in_place()), megabytes(layer.used().bytes_copied()),
      megabytes(layer.bytes_owned()));
}

template <shunt::weight_format W> std::uint64_t numbers(shunt::expert_matrix<W> const& w) {
  return static_cast<std::uint64_t>(w.experts() * w.rows() * w.columns());
}
template <shunt::weight_format W> std::uint64_t bytes(shunt::expert_matrix<W> const& w) {
  return w.is_packed() ? static_cast<std::uint64_t>(w.packed_elements()) * sizeof(W)
                       : numbers(w) * sizeof(W);
}

/// What the products read.
template <class T, class G, class W>
void tell_weights(shunt::moe_weights<T, G, shunt::space::host, W> const& w) {
  std::uint64_t all = 0, size = 0;
  for (auto const* m : {&w.up, &w.down, &w.shared_up, &w.shared_down}) {
    all += numbers(*m);
    size += bytes(*m);
  }
  std::string what(checkpoint::kind_of<T>);
  if constexpr (shunt::quantized<W>) {
    what = std::string(checkpoint::name_of_format<W>) + " as stored, packed";
  }
  std::printf("experts' weights: %s, %.3f MB, %.2f bits each; tokens: %s\n", what.c_str(),
              megabytes(size), 8.0 * double(size) / double(all),
              std::string(checkpoint::kind_of<T>).c_str());
}

/// Numbers of mean 0 and variance 1, from four uniform ones each: the same on every machine.
template <class T> std::vector<T> tokens_of(std::size_t count, std::uint64_t seed) {
  std::vector<T> x(count);
  for (std::size_t i = 0; i < count; ++i) {
    shunt::random_words const four = shunt::random_at(seed, i);
    float sum = -2.0f;
    for (std::uint32_t word : four.word) sum += shunt::uniform_of(word);
    x[i] = shunt::from_float<T>(sum * 1.7320508f);
  }
  return x;
}

template <class T, class G, class W>
void run(checkpoint::any_layer const& layer,
         shunt::moe_weights<T, G, shunt::space::host, W> const& weights, options const& o) {
  shunt::on_host const on{.threads = o.threads};
  shunt::index_t const tokens = o.tokens, width = layer.width();
  shunt::index_t const experts = layer.preset().sizes.experts;
  auto const count = static_cast<std::size_t>(tokens) * static_cast<std::size_t>(width);
  std::vector<T> const x = tokens_of<T>(count, o.seed);
  std::vector<T> y(count);

  std::vector<shunt::index_t> ids(static_cast<std::size_t>(tokens));
  std::vector<shunt::index_t> counts(static_cast<std::size_t>(experts));
  shunt::load_figures figures;
  auto options = layer.options();
  if (layer.by_token()) {  // the tokens have to be somebody
    for (std::size_t t = 0; t < ids.size(); ++t) {
      ids[t] = shunt::index_t(shunt::random_at(o.seed, t, 1).word[0] %
                              std::uint32_t(layer.vocabulary()));
    }
    options.token = ids;
  }
  std::vector<std::byte> work(shunt::moe_layer_scratch_bytes(on, tokens, weights, options));
  auto const before = std::chrono::steady_clock::now();
  shunt::status done = shunt::moe_layer(on, shunt::view<T const, 2>(x.data(), {{tokens, width}}),
                                        weights, shunt::view<T, 2>(y.data(), {{tokens, width}}),
                                        {.route = {.counts = counts}}, work, options);
  std::chrono::duration<double> const took = std::chrono::steady_clock::now() - before;
  if (!done.ok()) throw lm::problem(done.message());
  done = shunt::load_stats(on, shunt::view<shunt::index_t const, 1>(counts),
                           {.figures = {&figures, {{1}}}});
  if (!done.ok()) throw lm::problem(done.message());

  double square = 0;
  for (T const& v : y) square += double(shunt::to_float(v)) * double(shunt::to_float(v));
  std::printf("%d tokens in %.2f ms, the first time; root mean square of the output %.4g\n", tokens,
              1e3 * took.count(), std::sqrt(square / double(count)));
  std::printf("slots per expert:");
  for (std::size_t e = 0; e < counts.size(); ++e) {
    std::printf("%s%6d", e % 16 == 0 ? "\n  " : "", counts[e]);
  }
  std::printf("\nentropy %.3f of %.3f bits, max violation %.3f\n", double(figures.entropy),
              std::log2(double(experts)), double(figures.max_violation));
}

}  // namespace

int main(int argc, char** argv) {
  options o;
  CLI::App app{"Runs one mixture-of-experts layer of a published checkpoint."};
  app.add_option("folder", o.folder, "config.json and safetensors, in shards or not")->required();
  app.add_option("--layer", o.layer, "number of the layer")->capture_default_str();
  app.add_option("--format", o.format, "what experts in a format become; stored: nothing else")
      ->check(CLI::IsMember({"bf16", "float", "stored"}))
      ->capture_default_str();
  app.add_option("--tokens", o.tokens, "how many random tokens")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--threads", o.threads, "0: all cores")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_option("--seed", o.seed, "of the tokens")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  try {
    auto const use = [&](auto const& layer) {
      tell(layer, o);
      layer.visit([&](auto const& weights) {
        tell_weights(weights);
        run(layer, weights, o);
      });
    };
    if (o.format == "stored") {
      use(checkpoint::load_stored_layer(o.folder, o.layer, {.threads = o.threads}));
    } else {
      use(checkpoint::load_layer(o.folder, o.layer, {.widen = o.format == "float"}));
    }
  } catch (std::exception const& e) { return std::fprintf(stderr, "%s\n", e.what()), 1; }
  return 0;
}
