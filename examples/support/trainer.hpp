#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "checkpoint/safetensors.hpp"
#include "checkpoint/write_safetensors.hpp"
#include "corpus.hpp"
#include "crew.hpp"
#include "load.hpp"
#include "progress.hpp"
#include "sampling.hpp"
#include "settings.hpp"
#include "stop.hpp"

namespace lm {

/// What one training step tells.
struct step_result {
  double loss = 0;  ///< nats per byte
  double gradient_norm = 0, rate = 0;
};

/// How evenly the experts of a model are used, a mean over its layers.
struct balance {
  double utilization = 1;  ///< mean load over largest load
  double divergence = 0;   ///< Jensen-Shannon divergence to the uniform load, in bits
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(balance, utilization, divergence)

/// What held-out text says of a model.
struct evaluation {
  double bits_per_byte = 0;
  std::map<std::string, double> per_domain;                         ///< bits per byte
  std::vector<std::vector<std::vector<double>>> experts_by_domain;  ///< [layer][domain][expert]
  balance use;
};
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(evaluation, bits_per_byte, per_domain, experts_by_domain, use)

inline constexpr char const* checkpoint_format = "shunt.train_lm.1";

/// What a checkpoint says of its run; refuses files that are none, and damaged ones.
[[nodiscard]] inline nlohmann::json checkpoint_state(checkpoint::safetensors_file& file) {
  auto const& metadata = file.metadata();
  auto const found = metadata.find("format");
  if (found == metadata.end() || found->second != checkpoint_format ||
      metadata.count("state") == 0 || metadata.count("text") == 0) {
    file.refuse("it is not a checkpoint of train_lm");
  }
  file.verify(true);
  return nlohmann::json::parse(metadata.at("state"));
}

/// Trains one network, keeps its curves, saves and continues it. A network has
///   step_result train(batch const&, std::int64_t step, expert_load& add_to)
///   double evaluate(batch const&, expert_load& add_to)   nats per byte, of at most `batch` sequences
///   std::vector<checkpoint::tensor_source> state()       all that a resumed run needs
///   void load(checkpoint::safetensors_file&)             the same, back
///   balance use_of(expert_load const&)
/// Ranks that train together (crew.hpp) go through the same steps; rank 0 alone writes.
template <class Network> class trainer {
 public:
  trainer(std::string name, settings const& s, corpus const& text, Network& network,
          crew* ranks = nullptr)
      : name_(std::move(name)), settings_(s), text_(text), network_(network), ranks_(ranks) {}

  [[nodiscard]] std::string const& name() const noexcept { return name_; }
  [[nodiscard]] history const& curves() const noexcept { return curves_; }
  [[nodiscard]] std::int64_t step() const noexcept { return step_; }
  [[nodiscard]] bool finished() const noexcept { return step_ >= settings_.steps; }
  /// Seconds of training so far, over all sessions, evaluations left out.
  [[nodiscard]] double step_seconds() const noexcept { return step_seconds_; }
  [[nodiscard]] evaluation const& before() const noexcept { return before_; }

  /// Changes how many steps there are in all (before the first checkpoint only).
  void set_steps(std::int64_t steps) noexcept { settings_.steps = steps; }

  /// Stops at this step too, as when the user asks for it; 0: at the end.
  void stop_at(std::int64_t step) noexcept { stop_at_ = step; }

  /// Trains to the end or until the user asks to stop. Saves to `path` now and then and at its end.
  /// `measured` is called once, after a few steps of a new run, with the seconds of one step.
  void train(std::filesystem::path const& path, std::function<void(double)> const& measured = {}) {
    constexpr std::int64_t probe_first = 3, probe_last = 11;
    if (step_ == 0 && curves_.eval_step.empty()) {
      before_ = evaluate(few_windows);
      note_evaluation(before_.bits_per_byte);
    }
    auto const start = wall_clock::now();
    auto saved = start;
    double const seconds_before = seconds_;
    std::int64_t const first = step_;
    double probe = 0;
    progress bar(name_, long(settings_.steps));
    batch sequences;
    while (!finished()) {
      constexpr unsigned stop = 1, save_now = 2;
      unsigned const asked =
          any_of((stop_asked() || (stop_at_ > 0 && step_ >= stop_at_) ? stop : 0u) |
                 (leads() && seconds_since(saved) > 60 ? save_now : 0u));
      if ((asked & stop) != 0) break;
      if ((asked & save_now) != 0) {
        save(path);
        saved = wall_clock::now();
      }
      training_batch(text_, settings_.seed, step_, std::size_t(settings_.batch),
                     std::size_t(settings_.sequence), sequences);
      expert_load load;
      auto const began = wall_clock::now();
      step_result const result = network_.train(sequences, step_, load);
      step_seconds_ += seconds_since(began);
      add_load(load_, load);
      ++step_;
      seconds_ = seconds_before + seconds_since(start);
      note_step(result);
      if (measured && first == 0) {
        if (step_ == probe_first) probe = seconds_;
        if (step_ == probe_last) {
          measured(of_first((seconds_ - probe) / double(probe_last - probe_first)));
        }
      }
      if (step_ % every(60) == 0 || finished()) note_load();
      if (step_ % every(20) == 0 || finished())
        note_evaluation(evaluate(few_windows).bits_per_byte);
      seconds_ = seconds_before + seconds_since(start);
      double const pace = seconds_since(start) / double(step_ - first);
      balance const use = network_.use_of(load);
      bar.show(
          long(step_),
          format("loss %.2f bits/byte  %sB/s  utilization %.2f", result.loss * bits_per_nat,
                 count_text(settings_.batch * settings_.sequence / pace).c_str(), use.utilization),
          pace * double(settings_.steps - step_));
    }
    bar.finish();
    save(path);
  }

  /// Reads at most `windows` sequences of each domain's held-out text.
  [[nodiscard]] evaluation evaluate(std::size_t windows) {
    evaluation result;
    std::size_t const sequence = std::size_t(settings_.sequence);
    double all_nats = 0, all_bytes = 0;
    expert_load all_load;
    batch sequences;
    for (domain const& d : text_.domains) {
      expert_load load;
      double nats = 0, bytes = 0;
      auto const starts = held_out_windows(d, sequence, windows);
      for (std::size_t first = 0; first < starts.size(); first += std::size_t(settings_.batch)) {
        sequences.clear();
        std::size_t const last = std::min(first + std::size_t(settings_.batch), starts.size());
        for (std::size_t i = first; i < last; ++i) sequences.add(d.held_out, starts[i], sequence);
        double const count = double(sequences.sequences * sequence);
        nats += network_.evaluate(sequences, load) * count;
        bytes += count;
      }
      result.per_domain[d.name] = nats / bytes * bits_per_nat;
      all_nats += nats;
      all_bytes += bytes;
      auto const shares = shares_of(load);
      result.experts_by_domain.resize(shares.size());
      for (std::size_t l = 0; l < shares.size(); ++l) {
        result.experts_by_domain[l].push_back(shares[l]);
      }
      add_load(all_load, load);
    }
    result.bits_per_byte = all_nats / all_bytes * bits_per_nat;
    result.use = network_.use_of(all_load);
    return result;
  }

  void save(std::filesystem::path const& path) {
    nlohmann::json const state = {{"name", name_},         {"step", step_},
                                  {"seconds", seconds_},   {"step_seconds", step_seconds_},
                                  {"settings", settings_}, {"history", curves_},
                                  {"before", before_},     {"load_since", load_}};
    auto tensors = network_.state();
    together([&] {
      if (!leads()) return;
      checkpoint::write_safetensors(path, std::move(tensors),
                                    {{"format", checkpoint_format},
                                     {"text", hex(text_.fingerprint())},
                                     {"state", state.dump()}});
    });
  }

  /// Continues what `path` holds: the same network, the same text, the next step.
  void resume(std::filesystem::path const& path) {
    together([&] { take_up(path); });
  }

  static constexpr std::size_t few_windows = 24, many_windows = 160;
  static constexpr double bits_per_nat = 1.4426950408889634;

 private:
  void take_up(std::filesystem::path const& path) {
    checkpoint::safetensors_file file(path);
    nlohmann::json const state = checkpoint_state(file);
    if (state.at("name") != name_) {
      file.refuse("it holds the model " + state.at("name").dump() + "; it must be " + name_);
    }
    if (file.metadata().at("text") != hex(text_.fingerprint())) {
      file.refuse("it was trained on another text than the one here");
    }
    settings_ = state.at("settings").template get<settings>();
    step_ = state.at("step").template get<std::int64_t>();
    seconds_ = state.at("seconds").template get<double>();
    step_seconds_ = state.at("step_seconds").template get<double>();
    curves_ = state.at("history").template get<history>();
    before_ = state.at("before").template get<evaluation>();
    load_ = state.at("load_since").template get<expert_load>();
    network_.load(file);
  }

  [[nodiscard]] bool leads() const noexcept { return ranks_ == nullptr || ranks_->rank() == 0; }
  [[nodiscard]] unsigned any_of(unsigned flags) {
    return ranks_ == nullptr ? flags : ranks_->any_of(flags);
  }
  [[nodiscard]] double of_first(double value) {
    return ranks_ == nullptr ? value : ranks_->of_first(value);
  }
  /// What fails on one rank fails on all.
  template <class Work> void together(Work&& work) {
    if (ranks_ == nullptr) return work();
    std::string wrong;
    try {
      work();
    } catch (std::exception const& e) { wrong = e.what(); }
    ranks_->agree(wrong);
  }

  /// How many steps make one of about `pieces` parts of the run.
  [[nodiscard]] std::int64_t every(std::int64_t pieces) const noexcept {
    return std::max<std::int64_t>(1, settings_.steps / pieces);
  }

  void note_step(step_result const& result) {
    if (step_ % every(400) != 0 && step_ != 1) return;
    curves_.step.push_back(step_);
    curves_.loss.push_back(result.loss);
    curves_.rate.push_back(result.rate);
    curves_.gradient_norm.push_back(result.gradient_norm);
    curves_.seconds.push_back(seconds_);
  }
  void note_load() {
    curves_.load_step.push_back(step_);
    curves_.load.push_back(shares_of(load_));
    load_.clear();
  }
  void note_evaluation(double bits) {
    curves_.eval_step.push_back(step_);
    curves_.eval_bits.push_back(bits);
  }

  std::string name_;
  settings settings_;
  corpus const& text_;
  Network& network_;
  crew* ranks_;
  std::int64_t step_ = 0, stop_at_ = 0;
  double seconds_ = 0, step_seconds_ = 0;
  history curves_;
  evaluation before_;
  expert_load load_;  ///< since the last sample
};

}  // namespace lm
