#pragma once
#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "any_network.hpp"
#include "config.hpp"
#include "load.hpp"
#include "settings.hpp"
#include "shunt/nn/model.hpp"
#include "shunt/nn/schedule.hpp"
#include "shunt/nn/stage_clock.hpp"
#include "shunt/route_bias.hpp"
#include "shunt/stats.hpp"

/// What networks do alike, in one process and on ranks.
namespace lm {

[[nodiscard]] inline float rate_of_step(settings const& s, std::int64_t step) {
  shunt::nn::cosine_schedule const schedule{
      .peak = s.learning_rate,
      .floor = 0.1 * s.learning_rate,
      .warm_up = std::min<std::int64_t>(s.warm_up, s.steps / 2),
      .steps = s.steps};
  return shunt::nn::rate_at(schedule, step);
}
[[nodiscard]] inline shunt::nn::adamw_options update_of_step(settings const& s, std::int64_t step,
                                                             float rate) {
  return {.rate = rate,
          .weight_decay = static_cast<float>(s.weight_decay),
          .step = step + 1,
          .clip = static_cast<float>(s.clip)};
}

/// Adds the slots of each expert of each layer; none where there are no experts.
inline void add_counts(settings const& s, shunt::index_t const* at, expert_load& add_to) {
  if (at == nullptr) return;
  expert_load load(static_cast<std::size_t>(s.layers));
  for (auto& layer : load) {
    layer.assign(at, at + s.experts);
    at += s.experts;
  }
  add_load(add_to, load);
}

/// Mean over the layers.
[[nodiscard]] inline balance mean_use(expert_load const& load) {
  if (load.empty()) return {};
  balance use{0, 0};
  for (auto const& layer : load) {
    shunt::load_figures figures;
    require(shunt::load_stats(shunt::on_host{.threads = 1}, layer, {.figures = {&figures, {{1}}}}));
    use.utilization += double(figures.utilization) / double(load.size());
    use.divergence += double(figures.jsd) / double(load.size());
  }
  return use;
}

/// Seconds by stage, forward and backward together.
[[nodiscard]] inline std::map<std::string, double> time_of(shunt::nn::stage_clock const& clock) {
  constexpr std::string_view back = "_backward";
  std::map<std::string, double> stages;
  for (auto const& entry : clock) {
    std::string_view name = entry.name;
    if (name.size() > back.size() && name.substr(name.size() - back.size()) == back) {
      name.remove_suffix(back.size());
    }
    stages[std::string(name)] += entry.seconds;
  }
  return stages;
}

}  // namespace lm
