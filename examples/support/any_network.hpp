#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "checkpoint/safetensors.hpp"
#include "checkpoint/write_safetensors.hpp"
#include "load.hpp"
#include "sampling.hpp"
#include "shunt/nn/model_config.hpp"
#include "trainer.hpp"

namespace lm {

/// A network as train_lm and its trainer see it, wherever it runs.
class any_network {
 public:
  virtual ~any_network() = default;

  [[nodiscard]] virtual shunt::nn::model_config const& config() const noexcept = 0;
  virtual void set_steps(std::int64_t steps) noexcept = 0;
  virtual step_result train(batch const& b, std::int64_t step, expert_load& add_to) = 0;
  virtual double evaluate(batch const& b, expert_load& add_to) = 0;
  [[nodiscard]] virtual std::vector<checkpoint::tensor_source> state() const = 0;
  virtual void load(checkpoint::safetensors_file& file) = 0;
  [[nodiscard]] virtual balance use_of(expert_load const& load) const = 0;
  [[nodiscard]] virtual std::map<std::string, double> time() const = 0;
  [[nodiscard]] virtual std::int64_t steps_timed() const noexcept = 0;
};

}  // namespace lm
