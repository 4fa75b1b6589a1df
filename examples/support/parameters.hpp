#pragma once
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "checkpoint/safetensors.hpp"
#include "checkpoint/write_safetensors.hpp"
#include "config.hpp"
#include "memory.hpp"
#include "settings.hpp"
#include "shunt/nn/model.hpp"

namespace lm {

/// The shape of a tensor in a checkpoint.
[[nodiscard]] inline std::vector<std::uint64_t> shape_of(shunt::nn::model_parameter const& p) {
  std::vector<std::uint64_t> shape;
  for (int d = 0; d < p.rank; ++d) {
    shape.push_back(static_cast<std::uint64_t>(p.extents[static_cast<std::size_t>(d)]));
  }
  return shape;
}

/// The weights of one model: float masters in one flat buffer, where T is not float a working copy,
/// and the routers' balancing bias; all in the memory of a policy.
template <class T, class P = shunt::on_host> class parameters {
  static constexpr shunt::space S = P::memory;

 public:
  static constexpr bool rounded = !std::is_same_v<T, float>;

  parameters(settings const& s, bool mixed)
      : config_(config_of(s, mixed)),
        biased_(mixed && s.balance == "bias"),
        values_(static_cast<std::size_t>(shunt::nn::parameter_count(config_))),
        copy_(rounded ? values_.size() : 0),
        bias_(biased_ ? static_cast<std::size_t>(config_.layers) *
                            static_cast<std::size_t>(config_.experts)
                      : 0) {}

  [[nodiscard]] shunt::nn::model_config const& config() const noexcept { return config_; }
  [[nodiscard]] shunt::view<float, 1, S> values() noexcept { return values_.view(); }
  [[nodiscard]] shunt::view<T, 1, S> copy() noexcept {
    if constexpr (rounded) {
      return copy_.view();
    } else {
      return {};
    }
  }
  [[nodiscard]] shunt::view<float, 2, S> bias() noexcept {
    if (!biased_) return {};
    return {bias_.data(), {{config_.layers, config_.experts}}};
  }
  /// What the model computes with.
  [[nodiscard]] shunt::nn::model_weights<T, S> used() noexcept {
    if constexpr (rounded) {
      return {.values = copy(), .choice_bias = bias()};
    } else {
      return {.values = values(), .choice_bias = bias()};
    }
  }

  void initialize(P const& on, std::uint64_t seed) {
    require(shunt::nn::model_init(on, config_, values(), seed));
    round(on);
  }

  void add_to(std::vector<checkpoint::tensor_source>& all) const {
    float const* const values = values_.read();
    shunt::nn::for_each_parameter(config_, [&](shunt::nn::model_parameter const& p) {
      all.push_back({p.name, "F32", shape_of(p), values + p.offset});
    });
    if (biased_) all.push_back({"choice_bias", "F32", bias_shape(), bias_.read()});
  }

  void read(P const& on, checkpoint::safetensors_file& file) {
    shunt::nn::for_each_parameter(config_, [&](shunt::nn::model_parameter const& p) {
      file.read(p.name, "F32", shape_of(p), values_.stage() + p.offset);
    });
    values_.commit();
    if (biased_) {
      file.read("choice_bias", "F32", bias_shape(), bias_.stage());
      bias_.commit();
    }
    round(on);
  }

 private:
  [[nodiscard]] std::vector<std::uint64_t> bias_shape() const {
    return {static_cast<std::uint64_t>(config_.layers),
            static_cast<std::uint64_t>(config_.experts)};
  }
  void round(P const& on) {
    if constexpr (rounded) {
      require(shunt::nn::working_copy(on, shunt::view<float const, 1, S>(values()), copy()));
    }
  }

  shunt::nn::model_config config_;
  bool biased_;
  memory<float, P> values_;
  memory<T, P> copy_;
  memory<float, P> bias_;
};

}  // namespace lm
