// A whole training step of a small byte-level model: forward, backward and update, and where its time
// goes. "E16_K2_H96_I128_L3" is examples/train_lm at its defaults.
#include <cmath>
#include <shunt/nn/model.hpp>
#include <shunt/nn/stage_clock.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "support/bench.hpp"

namespace {

using shunt::index_t;
using shunt::on_host;
using shunt::view;
namespace nn = shunt::nn;

struct step_scene {
  on_host on;
  nn::model_config config;
  index_t batch, length;
  std::vector<float> weights, gradients, first, second, norm = std::vector<float>(1),
                                                        loss = std::vector<float>(1);
  std::vector<index_t> tokens;
  std::vector<std::byte> work;
  nn::stage_clock clock;
  std::int64_t steps = 0;

  step_scene(on_host const& where, nn::model_config const& c, index_t sequences, index_t each)
      : on(where),
        config(c),
        batch(sequences),
        length(each),
        weights(static_cast<std::size_t>(nn::parameter_count(c))),
        gradients(weights.size()),
        first(weights.size()),
        second(weights.size()),
        tokens(static_cast<std::size_t>(batch) * static_cast<std::size_t>(length + 1)),
        work(nn::model_train_scratch_bytes<float>(on, c, batch, length)) {
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<index_t>(i * i % 89);
    benchmark::DoNotOptimize(nn::model_init(on, config, weights, 1));
  }
  void step() {
    nn::model_report<shunt::space::host> report{.loss = loss};
    report.hook = clock.hook();
    view<index_t const, 2> const text(tokens.data(), {{batch, length + 1}});
    benchmark::DoNotOptimize(
        nn::model_train<float>(on, config, {.values = weights}, text, gradients, report, work));
    nn::adamw_state<float> const state{weights, gradients, first, second};
    benchmark::DoNotOptimize(nn::model_update<float>(
        on, config, state, norm, work, {.rate = 1e-4f, .step = ++steps, .clip = 1.0f}));
    clock.after("optimizer");
  }
  std::string check() {
    float const at_first = loss[0];  // of the step that was made before
    for (int i = 0; i < 3; ++i) step();
    bool const good = std::abs(at_first - std::log(256.0)) < 0.5 && loss[0] < at_first;
    return good ? "" : "the loss does not start at log 256 and fall";
  }
  /// Of a step: all, and that of weights alone.
  double flops() const { return 3 * nn::forward_flops(config, length) * batch * length; }
  double product_flops() const {
    double const scores = 4.0 * config.layers * config.width * (length + 1.0) / 2;
    return flops() - 3 * scores * batch * length;
  }
};

/// Stages that are products of weights, with what is fused into them: the activation and its gradient,
/// gathering, the loss of the head.
bool is_products(std::string_view stage) {
  for (std::string_view name : {"gate", "experts", "dense", "projection", "head"}) {
    if (stage.substr(0, name.size()) == name) return true;
  }
  return false;
}

/// Counters beside the common ones: the shares of the step that were spent in products of weights, in
/// attention and in the optimizer, and what those products reached of the ceiling.
void model(benchmark::State& state, nn::model_config const& c, index_t batch, index_t length,
           int threads) {
  step_scene scene({.threads = threads}, c, batch, length);
  bench::measure(
      state, threads, {.flops = scene.flops()},
      [&] {
        std::string const wrong = scene.check();
        scene.clock.clear();
        return wrong;
      },
      [&] { scene.step(); });
  double all = 0, products = 0, attention = 0, optimizer = 0;
  for (auto const& stage : scene.clock) {
    std::string_view const name = stage.name;
    all += stage.seconds;
    products += is_products(name) ? stage.seconds : 0;
    attention += name.substr(0, 9) == "attention" ? stage.seconds : 0;
    optimizer += name == "optimizer" ? stage.seconds : 0;
  }
  double const calls = static_cast<double>(state.iterations());
  state.counters["products"] = products / all;
  state.counters["attention"] = attention / all;
  state.counters["optimizer"] = optimizer / all;
  state.counters["products_of_ceiling"] =
      calls * scene.product_flops() / products / (bench::fma_gflops(threads) * 1e9);
}

nn::model_config config_of(index_t layers, index_t width, index_t intermediate, bool dense) {
  nn::model_config c;
  c.layers = layers;
  c.width = width;
  c.heads = 3;
  c.kv_heads = 1;
  c.experts = 16;
  c.intermediate = intermediate;
  c.dense = dense;
  return c;
}

}  // namespace

void bench::register_all() {
  for (int const threads : bench::thread_counts()) {
    auto const add = [&](std::string const& shape, nn::model_config const& c, index_t batch,
                         index_t length) {
      bench::add("model_step/" + shape + "/float/T1024/threads" + std::to_string(threads),
                 [=](benchmark::State& state) { model(state, c, batch, length, threads); });
    };
    add("E16_K2_H96_I128_L3", config_of(3, 96, 128, false), 8, 128);
    add("E16_K2_H192_I256", config_of(4, 192, 256, false), 4, 256);
    add("dense_H192_I512", config_of(4, 192, 512, true), 4, 256);
  }
}
