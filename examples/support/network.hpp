#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "load.hpp"
#include "parameters.hpp"
#include "sampling.hpp"
#include "shunt/nn/model.hpp"
#include "shunt/nn/schedule.hpp"
#include "shunt/nn/stage_clock.hpp"
#include "shunt/route/bias.hpp"
#include "shunt/stats.hpp"
#include "trainer.hpp"

namespace lm {

/// What trainer<> trains: a model with its gradients, its optimiser and its scratch, all of it memory
/// of our own that is taken once. T is what weights and activations are stored as.
template <class T> class network {
 public:
  network(settings const& s, bool mixed, int threads)
      : settings_(s), on_{.threads = threads}, parameters_(s, mixed) {
    std::size_t const count = static_cast<std::size_t>(parameters_.values().size());
    for (auto* part : {&gradients_, &first_, &second_}) part->resize(count);
    if (mixed) counts_.resize(static_cast<std::size_t>(s.layers * s.experts));
    scratch_.resize(
        std::max(shunt::nn::model_train_bytes<T>(on_, config(), s.batch, s.sequence),
                 shunt::nn::model_evaluate_bytes<T>(on_, config(), s.batch, s.sequence)));
    parameters_.initialise(on_, s.seed);
  }

  [[nodiscard]] shunt::nn::model_config const& config() const noexcept {
    return parameters_.config();
  }
  void set_steps(std::int64_t steps) noexcept { settings_.steps = steps; }

  step_result train(batch const& b, std::int64_t step, expert_load& add_to) {
    shunt::nn::cosine_schedule const schedule{
        .peak = settings_.learning_rate,
        .floor = 0.1 * settings_.learning_rate,
        .warm_up = std::min<std::int64_t>(settings_.warm_up, settings_.steps / 2),
        .steps = settings_.steps};
    shunt::view<float, 1> const gradients(gradients_), norm(norm_);
    float const rate = shunt::nn::rate_at(schedule, step);
    require(shunt::nn::model_train<T>(
        on_, config(), parameters_.used(), tokens_of(b), gradients,
        {.loss = shunt::view<float, 1>(loss_), .counts = counts(), .hook = clock_.hook()},
        scratch_));
    require(shunt::nn::model_update<T>(on_, config(),
                                       {.parameter = parameters_.values(),
                                        .gradient = gradients,
                                        .first_moment = shunt::view<float, 1>(first_),
                                        .second_moment = shunt::view<float, 1>(second_),
                                        .copy = parameters_.copy()},
                                       norm, scratch_,
                                       {.rate = rate,
                                        .weight_decay = static_cast<float>(settings_.weight_decay),
                                        .step = step + 1,
                                        .clip = static_cast<float>(settings_.clip)}));
    move_bias(settings_.bias_rate * double(rate) / settings_.learning_rate);
    clock_.after("optimiser");
    ++steps_timed_;
    note_load(add_to);
    return {double(loss_[0]), double(norm_[0]), double(rate)};
  }

  double evaluate(batch const& b, expert_load& add_to) {
    require(shunt::nn::model_evaluate<T>(on_, config(), parameters_.used(), tokens_of(b),
                                         {.loss = shunt::view<float, 1>(loss_), .counts = counts()},
                                         scratch_));
    note_load(add_to);
    return double(loss_[0]);
  }

  /// Weights, balancing bias and the optimiser's moments: with the step, all that goes on.
  [[nodiscard]] std::vector<tensor_source> state() const {
    std::vector<tensor_source> all;
    std::uint64_t const count = first_.size();
    parameters_.add_to(all);
    all.push_back({"optimiser.first_moment", "F32", {count}, first_.data()});
    all.push_back({"optimiser.second_moment", "F32", {count}, second_.data()});
    return all;
  }
  void load(safetensors_file& file) {
    std::vector<std::uint64_t> const count = {first_.size()};
    parameters_.read(on_, file);
    file.read("optimiser.first_moment", "F32", count, first_.data());
    file.read("optimiser.second_moment", "F32", count, second_.data());
  }

  /// Mean over the layers.
  [[nodiscard]] balance use_of(expert_load const& load) const {
    if (load.empty()) return {};
    balance use{0, 0};
    for (auto const& layer : load) {
      shunt::load_figures figures;
      require(shunt::load_stats(on_, layer, {.figures = {&figures, {{1}}}}));
      use.utilisation += double(figures.mean_over_max) / double(load.size());
      use.divergence += double(figures.jsd) / double(load.size());
    }
    return use;
  }

  /// Seconds by stage, forward and backward together, over steps_timed() training steps of this
  /// session.
  [[nodiscard]] std::map<std::string, double> time() const {
    constexpr std::string_view back = "_backward";
    std::map<std::string, double> stages;
    for (auto const& entry : clock_) {
      std::string_view name = entry.name;
      if (name.size() > back.size() && name.substr(name.size() - back.size()) == back) {
        name.remove_suffix(back.size());
      }
      stages[std::string(name)] += entry.seconds;
    }
    return stages;
  }
  [[nodiscard]] std::int64_t steps_timed() const noexcept { return steps_timed_; }

 private:
  [[nodiscard]] shunt::view<shunt::index_t const, 2> tokens_of(batch const& b) const noexcept {
    return {b.tokens.data(), {{static_cast<shunt::offset_t>(b.sequences), settings_.sequence + 1}}};
  }
  [[nodiscard]] shunt::view<shunt::index_t, 2> counts() noexcept {
    if (counts_.empty()) return {};
    return {counts_.data(), {{settings_.layers, settings_.experts}}};
  }
  void note_load(expert_load& add_to) const {
    if (counts_.empty()) return;
    expert_load load(static_cast<std::size_t>(settings_.layers));
    auto at = counts_.begin();
    for (auto& layer : load) {
      layer.assign(at, at + settings_.experts);
      at += settings_.experts;
    }
    add_load(add_to, load);
  }
  /// Balancing without a loss: each layer's bias takes a step against its load in this batch, a
  /// smaller one as the learning rate falls.
  void move_bias(double step) {
    auto const bias = parameters_.bias();
    if (!bias || step <= 0) return;
    for (shunt::offset_t layer = 0; layer < bias.extent(0); ++layer) {
      require(shunt::sign_step(on_, shunt::view<shunt::index_t const, 1>(counts()[layer]),
                               bias[layer], static_cast<float>(step)));
    }
  }

  settings settings_;
  shunt::on_host on_;
  parameters<T> parameters_;
  std::vector<float> gradients_, first_, second_;
  std::vector<shunt::index_t> counts_;
  std::vector<float> loss_ = std::vector<float>(1), norm_ = std::vector<float>(1);
  std::vector<std::byte> scratch_;
  shunt::nn::stage_clock clock_;
  std::int64_t steps_timed_ = 0;
};

}  // namespace lm
