#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "any_network.hpp"
#include "load.hpp"
#include "memory.hpp"
#include "network_parts.hpp"
#include "parameters.hpp"
#include "sampling.hpp"
#include "shunt/nn/model.hpp"
#include "shunt/nn/stage_clock.hpp"
#include "shunt/route_bias.hpp"
#include "trainer.hpp"

namespace lm {

/// What trainer<> trains: a model with its gradients, its optimizer and its scratch, all of it memory
/// of our own that is taken once. T is what weights and activations are stored as, P where it all is
/// and runs: on_host, or on_cuda with device_memory.cuh.
template <class T, class P = shunt::on_host> class network : public any_network {
  static constexpr shunt::space S = P::memory;

 public:
  network(settings const& s, bool mixed, P const& on)
      : settings_(s),
        on_(on),
        parameters_(s, mixed),
        gradients_(count()),
        first_(count()),
        second_(count()),
        counts_(mixed ? static_cast<std::size_t>(s.layers) * static_cast<std::size_t>(s.experts)
                      : 0),
        tokens_(static_cast<std::size_t>(s.batch) * (static_cast<std::size_t>(s.sequence) + 1)),
        scratch_(std::max(
            shunt::nn::model_train_scratch_bytes<T>(on_, config(), s.batch, s.sequence),
            shunt::nn::model_evaluate_scratch_bytes<T>(on_, config(), s.batch, s.sequence))) {
    parameters_.initialize(on_, s.seed);
  }

  [[nodiscard]] shunt::nn::model_config const& config() const noexcept override {
    return parameters_.config();
  }
  void set_steps(std::int64_t steps) noexcept override { settings_.steps = steps; }

  step_result train(batch const& b, std::int64_t step, expert_load& add_to) override {
    float const rate = rate_of_step(settings_, step);
    require(shunt::nn::model_train<T>(on_, config(), parameters_.used(), tokens_of(b),
                                      gradients_.view(), report(true), scratch()));
    require(shunt::nn::model_update<T>(on_, config(),
                                       {.parameter = parameters_.values(),
                                        .gradient = gradients_.view(),
                                        .first_moment = first_.view(),
                                        .second_moment = second_.view(),
                                        .copy = parameters_.copy()},
                                       norm_.view(), scratch(),
                                       update_of_step(settings_, step, rate)));
    move_bias(settings_.bias_rate * double(rate) / settings_.learning_rate);
    if (timed) clock_.after("optimizer");
    if (timed) ++steps_timed_;
    note_load(add_to);
    return {double(*loss_.read()), double(*norm_.read()), double(rate)};
  }

  double evaluate(batch const& b, expert_load& add_to) override {
    require(shunt::nn::model_evaluate<T>(on_, config(), parameters_.used(), tokens_of(b),
                                         report(false), scratch()));
    note_load(add_to);
    return double(*loss_.read());
  }

  /// Weights, balancing bias and the optimizer's moments: with the step, all that goes on.
  [[nodiscard]] std::vector<checkpoint::tensor_source> state() const override {
    std::vector<checkpoint::tensor_source> all;
    std::uint64_t const count = first_.size();
    parameters_.add_to(all);
    all.push_back({"optimizer.first_moment", "F32", {count}, first_.read()});
    all.push_back({"optimizer.second_moment", "F32", {count}, second_.read()});
    return all;
  }
  void load(checkpoint::safetensors_file& file) override {
    std::vector<std::uint64_t> const count = {first_.size()};
    parameters_.read(on_, file);
    file.read("optimizer.first_moment", "F32", count, first_.stage());
    file.read("optimizer.second_moment", "F32", count, second_.stage());
    first_.commit();
    second_.commit();
  }

  /// Mean over the layers.
  [[nodiscard]] balance use_of(expert_load const& load) const override { return mean_use(load); }

  /// Seconds by stage over steps_timed() training steps of this session. Empty where stages are only enqueued.
  [[nodiscard]] std::map<std::string, double> time() const override { return time_of(clock_); }
  [[nodiscard]] std::int64_t steps_timed() const noexcept override { return steps_timed_; }

 private:
  static constexpr bool timed = S == shunt::space::host;

  [[nodiscard]] std::size_t count() noexcept {
    return static_cast<std::size_t>(parameters_.values().size());
  }
  [[nodiscard]] shunt::view<shunt::index_t const, 2, S> tokens_of(batch const& b) {
    std::copy(b.tokens.begin(), b.tokens.end(), tokens_.stage());
    tokens_.commit();
    return {tokens_.data(), {{static_cast<shunt::offset_t>(b.sequences), settings_.sequence + 1}}};
  }
  [[nodiscard]] shunt::view<shunt::index_t, 2, S> counts() noexcept {
    if (counts_.size() == 0) return {};
    return {counts_.data(), {{settings_.layers, settings_.experts}}};
  }
  [[nodiscard]] shunt::nn::model_report<S> report(bool training) noexcept {
    shunt::nn::model_report<S> r{.loss = loss_.view(), .counts = counts()};
    if (timed && training) r.hook = clock_.hook();
    return r;
  }
  [[nodiscard]] shunt::arena<S> scratch() noexcept { return {scratch_.data(), scratch_.size()}; }
  void note_load(expert_load& add_to) const {
    add_counts(settings_, counts_.size() == 0 ? nullptr : counts_.read(), add_to);
  }
  /// Balancing without a loss: each layer's bias takes a step against its load in this batch, a
  /// smaller one as the learning rate falls.
  void move_bias(double step) {
    auto const bias = parameters_.bias();
    if (!bias || step <= 0) return;
    for (shunt::offset_t layer = 0; layer < bias.extent(0); ++layer) {
      require(shunt::sign_step(on_, shunt::view<shunt::index_t const, 1, S>(counts()[layer]),
                               bias[layer], static_cast<float>(step)));
    }
  }

  settings settings_;
  P on_;
  parameters<T, P> parameters_;
  memory<float, P> gradients_, first_, second_, loss_{1}, norm_{1};
  memory<shunt::index_t, P> counts_, tokens_;
  memory<std::byte, P> scratch_;
  shunt::nn::stage_clock clock_;
  std::int64_t steps_timed_ = 0;
};

}  // namespace lm
