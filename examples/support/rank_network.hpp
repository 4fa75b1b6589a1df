#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <type_traits>
#include <vector>

#include "any_network.hpp"
#include "network_parts.hpp"
#include "parameters.hpp"
#include "rank_parameters.hpp"
#include "shunt/nn/model_across.hpp"

namespace lm {

/// What `network` is, for one of several ranks: its sequences of each batch, its experts and their moments. The bits are
/// those of `network`.
template <class T, shunt::exchange X> class rank_network : public any_network {
 public:
  static constexpr bool rounded = !std::is_same_v<T, float>;

  rank_network(settings const& s, bool mixed, shunt::on_host const& on, X& transport)
      : settings_(s),
        on_(on),
        transport_(transport),
        config_(config_of(s, mixed)),
        placement_(transport.ranks(), config_.experts),
        among_{.transport = transport,
               .placement = placement_.get(),
               .most_tokens = largest_share() * s.sequence},
        values_(static_cast<std::size_t>(shunt::nn::parameter_count(here()))),
        gradients_(values_.size()),
        first_(values_.size()),
        second_(values_.size()),
        copy_(rounded ? values_.size() : 0),
        bias_(mixed && s.balance == "bias" ? expert_numbers() : 0),
        counts_(mixed ? expert_numbers() : 0),
        scratch_(std::max(shunt::nn::model_train_across_scratch_bytes<T>(
                              on_, among_, config_, largest_share(), s.sequence),
                          shunt::nn::model_evaluate_across_scratch_bytes<T>(
                              on_, among_, config_, largest_share(), s.sequence))) {
    require_of_all(shunt::nn::model_init_across(on_, among_, config_, floats(values_), s.seed));
    round();
  }

  [[nodiscard]] shunt::nn::model_config const& config() const noexcept override { return config_; }
  void set_steps(std::int64_t steps) noexcept override { settings_.steps = steps; }

  step_result train(batch const& b, std::int64_t step, expert_load& add_to) override {
    float const rate = rate_of_step(settings_, step);
    require_of_all(shunt::nn::model_train_across<T>(on_, among_, config_, used(), tokens_of(b),
                                                    floats(gradients_), report(true), scratch_));
    require_of_all(shunt::nn::model_update_across<T>(on_, among_, config_,
                                                     {.parameter = floats(values_),
                                                      .gradient = floats(gradients_),
                                                      .first_moment = floats(first_),
                                                      .second_moment = floats(second_),
                                                      .copy = copy()},
                                                     shunt::view<float, 1>(&norm_, {{1}}), scratch_,
                                                     update_of_step(settings_, step, rate)));
    move_bias(settings_.bias_rate * double(rate) / settings_.learning_rate);
    clock_.after("optimizer");
    ++steps_timed_;
    add_counts(settings_, counts_.empty() ? nullptr : counts_.data(), add_to);
    return {double(loss_), double(norm_), double(rate)};
  }

  double evaluate(batch const& b, expert_load& add_to) override {
    require_of_all(shunt::nn::model_evaluate_across<T>(on_, among_, config_, used(), tokens_of(b),
                                                       report(false), scratch_));
    add_counts(settings_, counts_.empty() ? nullptr : counts_.data(), add_to);
    return double(loss_);
  }

  /// The whole model, on rank 0; elsewhere nothing. All ranks call it.
  [[nodiscard]] std::vector<checkpoint::tensor_source> state() const override {
    std::vector<checkpoint::tensor_source> all;
    auto const gather = [&](std::vector<float> const& mine) {
      return gather_parts(config_, placement_.get(), transport_, mine);
    };
    whole_ = {gather(values_), gather(first_), gather(second_)};
    if (transport_.rank() != 0) return all;
    shunt::nn::for_each_parameter(config_, [&](shunt::nn::model_parameter const& p) {
      all.push_back({p.name, "F32", shape_of(p), whole_[0].data() + p.offset});
    });
    if (!bias_.empty()) all.push_back({"choice_bias", "F32", bias_shape(), bias_.data()});
    std::vector<std::uint64_t> const count{whole_[1].size()};
    all.push_back({"optimizer.first_moment", "F32", count, whole_[1].data()});
    all.push_back({"optimizer.second_moment", "F32", count, whole_[2].data()});
    return all;
  }
  /// Takes this rank's part, whoever wrote the file.
  void load(checkpoint::safetensors_file& file) override {
    std::vector<float> whole(static_cast<std::size_t>(shunt::nn::parameter_count(config_)));
    auto const take = [&](std::vector<float>& here) {
      take_part(config_, placement_.get(), transport_.rank(), whole, here);
    };
    shunt::nn::for_each_parameter(config_, [&](shunt::nn::model_parameter const& p) {
      file.read(p.name, "F32", shape_of(p), whole.data() + p.offset);
    });
    take(values_);
    if (!bias_.empty()) file.read("choice_bias", "F32", bias_shape(), bias_.data());
    std::vector<std::uint64_t> const count{whole.size()};
    file.read("optimizer.first_moment", "F32", count, whole.data());
    take(first_);
    file.read("optimizer.second_moment", "F32", count, whole.data());
    take(second_);
    round();
  }

  [[nodiscard]] balance use_of(expert_load const& load) const override { return mean_use(load); }
  [[nodiscard]] std::map<std::string, double> time() const override { return time_of(clock_); }
  [[nodiscard]] std::int64_t steps_timed() const noexcept override { return steps_timed_; }

 private:
  using index_t = shunt::index_t;

  [[nodiscard]] shunt::nn::model_config here() const noexcept {
    return shunt::nn::config_of_rank(config_, placement_.get(), transport_.rank());
  }
  [[nodiscard]] std::size_t expert_numbers() const noexcept {
    return static_cast<std::size_t>(config_.layers) * static_cast<std::size_t>(config_.experts);
  }
  [[nodiscard]] index_t largest_share() const noexcept {
    int const ranks = transport_.ranks();
    return (settings_.batch + ranks - 1) / ranks;
  }
  [[nodiscard]] static shunt::view<float, 1> floats(std::vector<float>& v) noexcept { return v; }
  [[nodiscard]] shunt::view<T, 1> copy() noexcept {
    if constexpr (rounded) {
      return copy_;
    } else {
      return {};
    }
  }
  [[nodiscard]] shunt::nn::model_weights<T> used() noexcept {
    shunt::nn::model_weights<T> w;
    if constexpr (rounded) {
      w.values = shunt::view<T, 1>(copy_);
    } else {
      w.values = shunt::view<T, 1>(values_);
    }
    if (!bias_.empty()) w.choice_bias = {bias_.data(), {{config_.layers, config_.experts}}};
    return w;
  }
  /// This rank's sequences: as many as the others, the first ranks one more.
  [[nodiscard]] shunt::view<index_t const, 2> tokens_of(batch const& b) const {
    auto const all = static_cast<shunt::offset_t>(b.sequences),
               ranks = shunt::offset_t{transport_.ranks()},
               rank = shunt::offset_t{transport_.rank()}, each = all / ranks, more = all % ranks;
    shunt::offset_t const first = rank * each + std::min(rank, more),
                          count = each + (rank < more ? 1 : 0),
                          wide = shunt::offset_t{settings_.sequence} + 1;
    return {b.tokens.data() + first * wide, {{count, wide}}};
  }
  [[nodiscard]] shunt::nn::model_report<> report(bool training) noexcept {
    shunt::nn::model_report<> r{.loss = {&loss_, {{1}}}};
    if (!counts_.empty()) r.counts = {counts_.data(), {{config_.layers, config_.experts}}};
    if (training) r.hook = clock_.hook();
    return r;
  }
  void move_bias(double step) {
    if (bias_.empty() || step <= 0) return;
    for (index_t layer = 0; layer < config_.layers; ++layer) {
      shunt::offset_t const at = shunt::offset_t{layer} * config_.experts;
      require(shunt::sign_step(
          on_, shunt::view<index_t const, 1>(counts_.data() + at, {{config_.experts}}),
          shunt::view<float, 1>(bias_.data() + at, {{config_.experts}}), static_cast<float>(step)));
    }
  }
  [[nodiscard]] std::vector<std::uint64_t> bias_shape() const {
    return {static_cast<std::uint64_t>(config_.layers),
            static_cast<std::uint64_t>(config_.experts)};
  }
  void round() {
    if constexpr (rounded) {
      require(shunt::nn::working_copy(on_, shunt::view<float const, 1>(floats(values_)), copy()));
    }
  }

  settings settings_;
  shunt::on_host on_;
  X& transport_;
  shunt::nn::model_config config_;
  even_placement placement_;
  shunt::among_ranks<X> among_;
  std::vector<float> values_, gradients_, first_, second_;
  std::vector<T> copy_;
  std::vector<float> bias_;
  std::vector<index_t> counts_;
  std::vector<std::byte> scratch_;
  float loss_ = 0, norm_ = 0;
  mutable std::vector<std::vector<float>> whole_;  ///< what state() refers to
  shunt::nn::stage_clock clock_;
  std::int64_t steps_timed_ = 0;
};

}  // namespace lm
