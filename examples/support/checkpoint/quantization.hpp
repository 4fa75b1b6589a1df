#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "config.hpp"

namespace checkpoint {

/// What config.json says of 4-bit matrices.
struct quantization {
  enum class kind : std::uint8_t { blocks, gptq, awq, compressed_tensors, modelopt };
  kind by = kind::blocks;   ///< blocks: fp8 or mxfp4, which say themselves what they are
  std::uint64_t group = 0;  ///< numbers of a row that share a scale of integers; 0: all of it
  int zero_less = 0;        ///< GPTQ: what a stored zero point is too small by
};

namespace detail {

/// A value of the object `in`, null where it is left out.
[[nodiscard]] inline nlohmann::json value_of(nlohmann::json const& in, char const* key) {
  auto const found = in.find(key);
  return found == in.end() ? nlohmann::json() : *found;
}
inline void only(config const& c, nlohmann::json const& in, char const* key,
                 nlohmann::json const& known) {
  nlohmann::json const is = value_of(in, key);
  if (is == known) return;
  auto const word = [](nlohmann::json const& x) {
    return x.is_string() ? x.get<std::string>() : text_of(x);
  };
  c.refuse("its weights are quantized with " + std::string(key) + " " + quotable(word(is)) +
           "; only " + word(known) + " is known here");
}
/// group_size, which is -1 for whole rows.
[[nodiscard]] inline std::uint64_t group_of(config const& c, nlohmann::json const& in) {
  nlohmann::json const is = value_of(in, "group_size");
  if (is == -1) return 0;
  std::uint64_t const n = is.is_number_unsigned() ? is.get<std::uint64_t>() : 0;
  if (n < 1 || n >= std::uint64_t{1} << 31) {
    c.refuse(
        "group_size of its quantized weights must be -1, or a count of at least 1 and less "
        "than 2^31");
  }
  return n;
}
[[nodiscard]] inline quantization gptq(config const& c, nlohmann::json const& in) {
  only(c, in, "bits", 4);
  bool const second = value_of(in, "checkpoint_format") == "gptq_v2";
  return {quantization::kind::gptq, group_of(c, in), second ? 0 : 1};
}
[[nodiscard]] inline quantization awq(config const& c, nlohmann::json const& in) {
  only(c, in, "bits", 4);
  if (!value_of(in, "version").is_null()) only(c, in, "version", "gemm");
  return {quantization::kind::awq, group_of(c, in), 0};
}
[[nodiscard]] inline quantization modelopt(config const& c, nlohmann::json const& in) {
  only(c, in, "quant_algo", "NVFP4");
  return {quantization::kind::modelopt, 0, 0};
}
/// Its groups of modules must all be quantized alike.
[[nodiscard]] inline quantization compressed_tensors(config const& c, nlohmann::json const& in) {
  quantization q{quantization::kind::compressed_tensors, 0, 0};
  if (value_of(in, "format") == "nvfp4-pack-quantized") return q;
  only(c, in, "format", "pack-quantized");
  nlohmann::json const groups = value_of(in, "config_groups");
  bool first = true;
  for (auto const& modules : groups) {
    nlohmann::json const weights =
        modules.is_object() ? value_of(modules, "weights") : nlohmann::json();
    if (!weights.is_object()) c.refuse("config_groups has a group without weights");
    only(c, weights, "num_bits", 4);
    only(c, weights, "type", "int");
    std::uint64_t const group = group_of(c, weights);
    if (!first && group != q.group) c.refuse("config_groups has weights of several group_size");
    q.group = group;
    first = false;
  }
  if (first) c.refuse("config_groups is left out, or has no group");
  return q;
}

}  // namespace detail
}  // namespace checkpoint
