#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
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
/// names its key; a value of the wrong kind is refused with a sentence. Python's json module writes
/// such files: NaN and the infinities are numbers.
/// A key that is left out and a null are different things, as they are to the reference: `..._or`
/// gives `otherwise` for the former only.
class config {
 public:
  config(std::string who, std::string_view text) : who_(std::move(who)) {
    nlohmann::json whole = parse_object(text, who_ + " is refused: it", json_dialect::python);
    auto const inner = whole.find("text_config");
    if (inner == whole.end() || !inner->is_object()) {
      values_ = std::move(whole);
      return;
    }
    values_ = *inner;
    for (char const* key : {"model_type", "quantization_config"}) {  // the outer one's are for all
      if (!has(key) && whole.contains(key)) values_[key] = whole[key];
    }
  }
  [[nodiscard]] static config of_folder(std::filesystem::path const& folder) {
    mapped_file const file(folder / "config.json");
    return {(folder / "config.json").string(),
            {reinterpret_cast<char const*>(file.bytes().data()), file.bytes().size()}};
  }

  /// Neither left out nor null.
  [[nodiscard]] bool has(char const* key) const {
    auto const found = values_.find(key);
    return found != values_.end() && !found->is_null();
  }
  [[nodiscard]] bool left_out(char const* key) const { return !values_.contains(key); }
  /// Which of these names of one key the file uses; the first where it uses none. Two that say
  /// different things are refused.
  [[nodiscard]] char const* name_of(std::initializer_list<char const*> names) const {
    char const* found = nullptr;
    for (char const* name : names) {
      if (left_out(name)) continue;
      if (found != nullptr && values_.at(found) != values_.at(name)) {
        refuse(std::string(found) + " is " + quotable(text_of(values_.at(found))) + ", but " +
               name + ", the same key, is " + quotable(text_of(values_.at(name))));
      }
      if (found == nullptr) found = name;
    }
    return found != nullptr ? found : *names.begin();
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
      refuse(std::string(key) + " is " + quotable(text_of(value)) +
             "; it must be a count of at least " + std::to_string(least) + " and less than 2^31");
    }
    return static_cast<shunt::index_t>(value.get<std::int64_t>());
  }
  [[nodiscard]] shunt::index_t count_or(char const* key, shunt::index_t otherwise,
                                        shunt::index_t least = 1) const {
    return left_out(key) ? otherwise : count(key, least);
  }
  /// The same where there may be none: 0 or null.
  [[nodiscard]] shunt::index_t count_or_none(char const* key, shunt::index_t otherwise) const {
    return left_out(key) ? otherwise : has(key) ? count(key, 0) : 0;
  }
  /// Finite, and within float's range.
  [[nodiscard]] float number_or(char const* key, float otherwise) const {
    if (left_out(key)) return otherwise;
    if (!at(key).is_number()) refuse(std::string(key) + " is not a number");
    auto const value = at(key).get<double>();
    if (!(std::abs(value) <= double{std::numeric_limits<float>::max()})) {
      refuse(std::string(key) + " is " + text_of(at(key)) +
             "; it must be a finite number within the range of float");
    }
    return static_cast<float>(value);
  }
  [[nodiscard]] bool flag_or(char const* key, bool otherwise) const {
    if (left_out(key)) return otherwise;
    if (!at(key).is_boolean()) refuse(std::string(key) + " is neither true nor false");
    return at(key).get<bool>();
  }
  [[nodiscard]] std::string text_or(char const* key, char const* otherwise) const {
    if (left_out(key)) return otherwise;
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
    if (!has(key)) return nullptr;
    if (!at(key).is_object()) refuse(std::string(key) + " is not an object");
    return &at(key);
  }

  [[noreturn]] void refuse(std::string const& why) const {
    throw lm::problem(who_ + " is refused: " + why);
  }

 private:
  [[nodiscard]] nlohmann::json const& at(char const* key) const {
    if (!has(key)) {
      refuse("it has no " + std::string(key) + (left_out(key) ? "" : ", but a null in its place"));
    }
    return values_.at(key);
  }

  std::string who_;
  nlohmann::json values_;
};

}  // namespace checkpoint
