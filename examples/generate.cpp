// Continues a prompt with a model that train_lm trained.
//
// test-after: train_lm
// test: --from quick/moe.safetensors --prompt "int main" --bytes 60
// test: --from quick/dense.safetensors --temperature 0 --bytes 60
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "shunt/nn/model.hpp"
#include "support/parameters.hpp"
#include "support/sampling.hpp"
#include "support/trainer.hpp"

namespace {

struct options {
  std::string from = "train_lm/moe.safetensors", prompt = "Once upon a time";
  int bytes = 400, threads = 0;
  double temperature = 0.8, top_p = 0.95;
  std::uint64_t seed = 1;
};

/// The next byte: the likeliest where temperature is 0, else drawn from the smallest set of bytes
/// whose probabilities reach top_p together. `position` picks the random number.
int choose(std::vector<float> const& logits, options const& o, std::uint64_t position) {
  std::vector<int> order(logits.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = int(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return logits[std::size_t(a)] > logits[std::size_t(b)]; });
  if (o.temperature <= 0) return order[0];
  double const peak = double(logits[std::size_t(order[0])]);
  std::vector<double> share;
  double sum = 0;
  for (int v : order) {
    share.push_back(std::exp((double(logits[std::size_t(v)]) - peak) / o.temperature));
    sum += share.back();
  }
  double kept = 0;
  std::size_t count = 0;
  while (count < share.size() && kept < o.top_p * sum) kept += share[count++];
  constexpr std::uint64_t stream = 0x74657874;  // a stream of this purpose's own
  double at = double(shunt::uniform_of(shunt::random_at(o.seed, position, stream).word[0])) * kept;
  std::size_t chosen = 0;
  while (chosen + 1 < count && at >= share[chosen]) at -= share[chosen++];
  return order[chosen];
}

template <class T>
void generate(options const& o, lm::settings const& s, bool mixed,
              checkpoint::safetensors_file& file) {
  namespace nn = shunt::nn;
  shunt::on_host const on{.threads = o.threads};
  lm::parameters<T> weights(s, mixed);
  weights.read(on, file);
  nn::model_config config = weights.config();

  // The text so far begins as a document does: behind the end of another.
  std::vector<shunt::index_t> text = {lm::end_of_document};
  for (char c : o.prompt) text.push_back(static_cast<unsigned char>(c));
  shunt::index_t const first = shunt::index_t(text.size());
  // Rotary positions go beyond what was trained, if they must: the text gets worse, not wrong.
  config.context = std::max(config.context, first + o.bytes);
  std::vector<T> memory(std::size_t(nn::model_cache_elements(config, 1, config.context)));
  nn::model_cache<T> const cache{
      .memory = shunt::view<T, 1>(memory), .batch = 1, .capacity = config.context};
  std::vector<std::byte> scratch(nn::model_decode_scratch_bytes<T>(on, config, 1, first));
  std::vector<float> logits(std::size_t(config.vocabulary));
  std::fputs(o.prompt.c_str(), stdout);
  for (shunt::index_t done = 0; shunt::index_t(text.size()) < first + o.bytes;) {
    // At first the whole prompt, then one byte at a time: what came before is in the cache.
    shunt::index_t const more = shunt::index_t(text.size()) - done;
    lm::require(nn::model_decode<T>(on, config, weights.used(), {text.data() + done, {{1, more}}},
                                    done, cache, {logits.data(), {{1, config.vocabulary}}},
                                    scratch));
    done += more;
    int const next = choose(logits, o, std::uint64_t(done));
    if (next == lm::end_of_document) break;
    text.push_back(next);
    bool const plain = next >= 32 || next == '\n' || next == '\t';
    std::fputc(plain ? next : '?', stdout);  // nothing that steers a terminal
    std::fflush(stdout);
  }
  std::fputc('\n', stdout);
}

int run(int argc, char** argv) {
  CLI::App app("Continues a prompt with a model that train_lm trained.");
  options o;
  app.add_option("--from", o.from, "checkpoint of train_lm")->capture_default_str();
  app.add_option("--prompt", o.prompt, "how the text begins")->capture_default_str();
  app.add_option("--bytes", o.bytes, "how much to write at most")->check(CLI::PositiveNumber);
  app.add_option("--temperature", o.temperature, "0: always the likeliest byte")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--top-p", o.top_p, "drawn from the likeliest bytes of this much probability")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--seed", o.seed, "of the draws")->capture_default_str();
  app.add_option("--threads", o.threads, "0: all cores")->check(CLI::NonNegativeNumber);
  CLI11_PARSE(app, argc, argv);

  checkpoint::safetensors_file file(o.from);
  nlohmann::json const state = lm::checkpoint_state(file);
  auto const s = state.at("settings").get<lm::settings>();
  bool const mixed = state.at("name") == "moe";
  s.bf16 ? generate<shunt::bf16>(o, s, mixed, file) : generate<float>(o, s, mixed, file);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (std::exception const& e) {
    std::fprintf(stderr, "generate: %s\n", e.what());
    return 1;
  }
}
