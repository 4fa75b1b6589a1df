#pragma once
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "problem.hpp"
#include "settings.hpp"

namespace lm {

/// The command line of train_lm: the settings, and what does not change the model.
struct train_options {
  settings run;
  int threads = 0, ranks = 1;
  std::string device = "host";
  std::int64_t stop_at = 0;  ///< the step at which to stop as Ctrl-C does; 0: at the end
  double seconds = 200;  ///< for both models; fewer steps where they would take longer. 0: no limit
  std::filesystem::path out = "train_lm";
  bool resume = false, quick = false, dense_only = false, moe_only = false, no_report = false;
  /// Settings that the command line named, by their name there and in the checkpoint.
  std::vector<std::pair<std::string, std::string>> named;
};

namespace detail {

inline void declare(CLI::App& app, train_options& o) {
  settings& s = o.run;
  CLI::Range const whole(1, 1 << 24), positive(1e-12, 1e6);
  app.add_option("--experts", s.experts, "experts per layer")->check(whole);
  app.add_option("--top-k", s.top_k, "experts per byte")->check(whole);
  app.add_option("--intermediate", s.intermediate, "inner width of an expert")->check(whole);
  app.add_option("--layers", s.layers, "transformer blocks")->check(whole);
  app.add_option("--width", s.width, "width of the model")->check(whole);
  app.add_option("--heads", s.heads, "attention heads")->check(whole);
  app.add_option("--kv-heads", s.kv_heads, "heads of keys and values")->check(whole);
  app.add_option("--seq", s.sequence, "bytes in a sequence")->check(whole);
  app.add_option("--batch", s.batch, "sequences in a step")->check(whole);
  app.add_option("--steps", s.steps, "training steps of each model")->check(whole);
  app.add_option("--lr", s.learning_rate, "highest learning rate")->check(positive);
  app.add_option("--weight-decay", s.weight_decay, "decoupled weight decay")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--clip", s.clip, "longest gradient")->check(positive);
  app.add_option("--seed", s.seed, "of the weights and of the order of the text");
  app.add_option("--balance", s.balance, "how the load of experts is kept even")
      ->check(CLI::IsMember({"aux", "bias", "none"}));
  app.add_option("--aux", s.aux, "weight of the auxiliary loss")->check(CLI::NonNegativeNumber);
  app.add_option("--bias-rate", s.bias_rate, "step of the balancing bias")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--bf16", s.bf16, "bf16 weights and activations with float master weights");
  app.add_option("--domain-bytes", s.domain_bytes, "text of a domain at most")->check(whole);
  app.add_option(
      "--text", s.text,
      "your own text: each FILE, DIR or NAME=PATH is a domain (default: fortunes in four "
      "languages and the C++ headers)");
  app.add_option("--seconds", o.seconds,
                 "time for both models: fewer steps where it would not do; 0: no limit")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--threads", o.threads, "0: all cores")->check(CLI::NonNegativeNumber);
  app.add_option("--stop-at", o.stop_at, "stop at this step, with all saved, as Ctrl-C would")
      ->check(whole);
  app.add_option("--ranks", o.ranks,
                 "processes that share the experts and the batch; --threads is shared out too")
      ->check(CLI::Range(1, 32));
  app.add_option("--device", o.device, "what computes: host or cuda")
      ->check(CLI::IsMember({"host", "cuda"}));
  app.add_option("--out", o.out, "folder of checkpoints, log and report")->take_last();
  app.add_flag("--resume", o.resume, "continue the run in the folder --out");
  app.add_flag("--quick", o.quick, "a tiny model and a few steps: to see that all works");
  auto* const dense = app.add_flag("--dense-only", o.dense_only, "train the dense model alone");
  app.add_flag("--moe-only", o.moe_only, "train the mixture of experts alone")->excludes(dense);
  app.add_flag("--no-report", o.no_report, "leave out report.html");
}

/// The flags that change the model, and their names in a checkpoint.
inline constexpr char const* model_flags[][2] = {{"--experts", "experts"},
                                                 {"--top-k", "top_k"},
                                                 {"--intermediate", "intermediate"},
                                                 {"--layers", "layers"},
                                                 {"--width", "width"},
                                                 {"--heads", "heads"},
                                                 {"--kv-heads", "kv_heads"},
                                                 {"--seq", "sequence"},
                                                 {"--batch", "batch"},
                                                 {"--steps", "steps"},
                                                 {"--lr", "learning_rate"},
                                                 {"--weight-decay", "weight_decay"},
                                                 {"--clip", "clip"},
                                                 {"--seed", "seed"},
                                                 {"--balance", "balance"},
                                                 {"--aux", "aux"},
                                                 {"--bias-rate", "bias_rate"},
                                                 {"--bf16", "bf16"},
                                                 {"--domain-bytes", "domain_bytes"},
                                                 {"--text", "text"}};

}  // namespace detail

/// Settings that fit each other, or a sentence.
inline void require_sense(settings const& s) {
  auto const need = [](bool fine, std::string const& sentence) {
    if (!fine) throw problem(sentence);
  };
  auto const text = [](auto value) { return std::to_string(value); };
  need(s.top_k <= s.experts,
       "--top-k is " + text(s.top_k) + "; it must be at most --experts, " + text(s.experts));
  need(s.width % s.heads == 0,
       "--width is " + text(s.width) + "; it must be a multiple of --heads, " + text(s.heads));
  need(s.width / s.heads % 2 == 0, "--width / --heads is " + text(s.width / s.heads) +
                                       "; rotary embedding needs an even head width");
  need(s.heads % s.kv_heads == 0, "--heads is " + text(s.heads) +
                                      "; it must be a multiple of --kv-heads, " + text(s.kv_heads));
}

/// Reads the command line. Throws CLI::ParseError (app.exit() prints it) or `problem`.
inline void parse(CLI::App& app, train_options& o, int argc, char const* const* argv) {
  detail::declare(app, o);
  app.parse(argc, argv);
  auto const given = [&](char const* flag) { return app.get_option(flag)->count() > 0; };
  for (auto const& [flag, key] : detail::model_flags) {
    if (given(flag)) o.named.emplace_back(flag, key);
  }
  if (o.quick) {
    auto const small = [&](char const* flag, int& value, int to) {
      if (!given(flag)) value = to;
    };
    small("--experts", o.run.experts, 8);
    small("--intermediate", o.run.intermediate, 32);
    small("--layers", o.run.layers, 2);
    small("--width", o.run.width, 32);
    small("--heads", o.run.heads, 2);
    small("--kv-heads", o.run.kv_heads, 1);
    small("--seq", o.run.sequence, 64);
    small("--batch", o.run.batch, 8);
    if (!given("--steps")) o.run.steps = 40;
  }
  // A width of one's own: heads about 32 wide, of an even width, unless told otherwise.
  if (given("--width") && !given("--heads")) {
    int heads = std::max(1, o.run.width / 32);
    while (heads > 1 && o.run.width % (2 * heads) != 0) --heads;
    o.run.heads = heads;
  }
  if (!given("--kv-heads") && o.run.heads % o.run.kv_heads != 0) { o.run.kv_heads = 1; }
  // A fixed number of steps is what the user asked for: no time limit then.
  if (given("--steps") && !given("--seconds")) o.seconds = 0;
  require_sense(o.run);
}

/// Takes over the settings of a run that is to be continued; what the command line says must agree.
inline void adopt(train_options& o, settings const& stored, std::filesystem::path const& from) {
  nlohmann::json const here = o.run, there = stored;
  for (auto const& [flag, key] : o.named) {
    if (here.at(key) == there.at(key)) continue;
    throw problem(flag + " is " + here.at(key).dump() + ", but " + from.string() +
                  " was begun with " + there.at(key).dump());
  }
  o.run = stored;
}

}  // namespace lm
