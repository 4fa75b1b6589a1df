#pragma once
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "config.hpp"
#include "corpus.hpp"
#include "progress.hpp"
#include "settings.hpp"
#include "table.hpp"
#include "trainer.hpp"

namespace lm {

/// All that is known of one model at the end of a run.
struct model_result {
  std::string name;
  shunt::nn::model_config shape;
  double bytes_per_step = 0;
  history curves;
  evaluation before, after;
  std::int64_t steps = 0;
  double seconds_per_step = 0;
  std::map<std::string, double> time;  ///< seconds by stage, over `steps_timed` steps
  std::int64_t steps_timed = 0;
};

[[nodiscard]] inline nlohmann::json json_of(model_result const& m) {
  model_size const size = size_of(m.shape);
  return {{"name", m.name},
          {"layers", m.shape.layers},
          {"experts", m.shape.dense ? 1 : m.shape.experts},
          {"top_k", m.shape.top_k},
          {"intermediate", m.shape.intermediate},
          {"parameters", size.parameters},
          {"active_parameters", size.active},
          {"flops_per_byte", size.flops_per_byte},
          {"history", m.curves},
          {"held_out", m.after},
          {"experts_by_domain", m.after.experts_by_domain},
          {"balance", {{"before", m.before.use}, {"after", m.after.use}}},
          {"steps", m.steps},
          {"seconds_per_step", m.seconds_per_step},
          {"time", m.time},
          {"steps_timed", m.steps_timed}};
}

[[nodiscard]] inline nlohmann::json json_of(corpus const& text) {
  nlohmann::json domains = nlohmann::json::array();
  for (domain const& d : text.domains) {
    domains.push_back({{"name", d.name},
                       {"place", d.place},
                       {"train_bytes", d.train.size()},
                       {"held_out_bytes", d.held_out.size()},
                       {"train_documents", d.train_documents},
                       {"held_out_documents", d.held_out_documents}});
  }
  return {{"domains", domains}, {"notes", text.notes}, {"fingerprint", hex(text.fingerprint())}};
}

/// The stages of all models that take a hundredth of the time or more, the longest first.
[[nodiscard]] inline std::vector<std::string> stages_by_time(
    std::vector<model_result> const& models) {
  std::map<std::string, double> all;
  double sum = 0;
  for (model_result const& m : models) {
    for (auto const& [stage, seconds] : m.time) all[stage] += seconds, sum += seconds;
  }
  std::vector<std::string> stages;
  for (auto const& [stage, seconds] : all) {
    if (seconds >= 0.01 * sum) stages.push_back(stage);
  }
  std::sort(stages.begin(), stages.end(),
            [&](auto const& a, auto const& b) { return all[a] > all[b]; });
  return stages;
}

/// The table that ends a run: a column for each model.
[[nodiscard]] inline table_rows result_table(std::vector<model_result> const& models) {
  table_rows rows = {{""}};
  auto const row = [&](char const* what, auto&& cell) {
    rows.push_back({what});
    for (model_result const& m : models) rows.back().push_back(cell(m, size_of(m.shape)));
  };
  for (model_result const& m : models) rows[0].push_back(m.name);
  row("held-out bits per byte", [](model_result const& m, model_size const&) {
    return format("%.4f", m.after.bits_per_byte);
  });
  row("parameters",
      [](model_result const&, model_size const& n) { return count_text(n.parameters); });
  row("of them active", [](model_result const&, model_size const& n) {
    return format("%s, %.1f %%", count_text(n.active).c_str(), 100 * n.active / n.parameters);
  });
  row("FLOPs per byte in training",
      [](model_result const&, model_size const& n) { return count_text(n.flops_per_byte); });
  row("of a dense model of the mixture's total size",
      [](model_result const& m, model_size const& n) {
        if (m.shape.dense) return std::string("-");
        double const all = size_of(dense_with_all(m.shape)).flops_per_byte;
        return format("%s, %.1f times", count_text(all).c_str(), all / n.flops_per_byte);
      });
  row("expert utilization, before", [](model_result const& m, model_size const&) {
    return !m.shape.dense ? format("%.3f", m.before.use.utilization) : std::string("-");
  });
  row("                    after", [](model_result const& m, model_size const&) {
    return !m.shape.dense ? format("%.3f", m.after.use.utilization) : std::string("-");
  });
  row("JSD to uniform, before", [](model_result const& m, model_size const&) {
    return !m.shape.dense ? format("%.4f", m.before.use.divergence) : std::string("-");
  });
  row("                after", [](model_result const& m, model_size const&) {
    return !m.shape.dense ? format("%.4f", m.after.use.divergence) : std::string("-");
  });
  row("steps", [](model_result const& m, model_size const&) { return std::to_string(m.steps); });
  row("milliseconds per step", [](model_result const& m, model_size const&) {
    return format("%.1f", 1000 * m.seconds_per_step);
  });
  row("GFLOP/s", [](model_result const& m, model_size const& n) {
    return m.seconds_per_step > 0
               ? format("%.1f", n.flops_per_byte * m.bytes_per_step / m.seconds_per_step * 1e-9)
               : std::string("-");
  });
  for (std::string const& stage : stages_by_time(models)) {
    row(("  ms in " + stage).c_str(), [&](model_result const& m, model_size const&) {
      auto const found = m.time.find(stage);
      if (found == m.time.end() || m.steps_timed == 0) return std::string("-");
      return format("%.1f", 1000 * found->second / double(m.steps_timed));
    });
  }
  return rows;
}

}  // namespace lm
