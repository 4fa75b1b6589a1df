#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

#include "../problem.hpp"
#include "json.hpp"
#include "mapped_file.hpp"
#include "shunt/core/shape.hpp"

namespace checkpoint {

/// A model's config.json: of a multi-modal one the part about the language model. Every question
/// names its key; a value of the wrong kind is refused with a sentence.
class config {
 public:
  config(std::string who, std::string_view text) : who_(std::move(who)) {
    nlohmann::json whole = parse_object(text, who_ + " is refused: it");
    auto const inner = whole.find("text_config");
    if (inner != whole.end() && inner->is_object()) {
      values_ = *inner;
      if (!values_.contains("model_type") && whole.contains("model_type")) {
        values_["model_type"] = whole["model_type"];
      }
      if (!values_.contains("quantization_config") && whole.contains("quantization_config")) {
        values_["quantization_config"] = whole["quantization_config"];
      }
    } else {
      values_ = std::move(whole);
    }
  }
  [[nodiscard]] static config of_folder(std::filesystem::path const& folder) {
    mapped_file const file(folder / "config.json");
    return {(folder / "config.json").string(),
            {reinterpret_cast<char const*>(file.bytes().data()), file.bytes().size()}};
  }

  /// A null counts as nothing.
  [[nodiscard]] bool has(char const* key) const {
    auto const found = values_.find(key);
    return found != values_.end() && !found->is_null();
  }
  /// A count of at least `least`.
  [[nodiscard]] shunt::index_t count(char const* key, shunt::index_t least = 1) const {
    nlohmann::json const& value = at(key);
    bool const fits = value.is_number_integer() &&
                      (value.is_number_unsigned() ? value.get<std::uint64_t>() <=
                                                        std::numeric_limits<shunt::index_t>::max()
                                                  : value.get<std::int64_t>() >= least) &&
                      value.get<std::int64_t>() >= least;
    if (!fits) {
      refuse(std::string(key) + " is " + quotable(value.dump()) +
             "; it must be a count of at least " + std::to_string(least) + " and less than 2^31");
    }
    return static_cast<shunt::index_t>(value.get<std::int64_t>());
  }
  [[nodiscard]] shunt::index_t count_or(char const* key, shunt::index_t otherwise) const {
    return has(key) ? count(key, 0) : otherwise;
  }
  [[nodiscard]] float number_or(char const* key, float otherwise) const {
    if (!has(key)) return otherwise;
    if (!at(key).is_number()) refuse(std::string(key) + " is not a number");
    return at(key).get<float>();
  }
  [[nodiscard]] bool flag_or(char const* key, bool otherwise) const {
    if (!has(key)) return otherwise;
    if (!at(key).is_boolean()) refuse(std::string(key) + " is neither true nor false");
    return at(key).get<bool>();
  }
  [[nodiscard]] std::string text_or(char const* key, char const* otherwise) const {
    if (!has(key)) return otherwise;
    if (!at(key).is_string()) refuse(std::string(key) + " is not a string");
    return at(key).get<std::string>();
  }
  /// What this reader can do nothing else with.
  void must_be(char const* key, char const* value) const {
    std::string const found = text_or(key, value);
    if (found != value) {
      refuse(std::string(key) + " is " + quotable(found) + "; only " + value + " is known here");
    }
  }
  /// Null where there is none.
  [[nodiscard]] nlohmann::json const* object(char const* key) const {
    auto const found = values_.find(key);
    return found != values_.end() && found->is_object() ? &*found : nullptr;
  }

  [[noreturn]] void refuse(std::string const& why) const {
    throw lm::problem(who_ + " is refused: " + why);
  }

 private:
  [[nodiscard]] nlohmann::json const& at(char const* key) const {
    if (!has(key)) refuse(std::string("it has no ") + key);
    return values_.at(key);
  }

  std::string who_;
  nlohmann::json values_;
};

}  // namespace checkpoint
