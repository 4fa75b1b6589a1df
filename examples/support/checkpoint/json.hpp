#pragma once
#include <cstddef>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "../problem.hpp"

/// JSON that came from anywhere, read with nothing taken on trust.
namespace checkpoint {

inline constexpr std::size_t longest_json = 100'000'000;  // as the format's own reader allows
inline constexpr int deepest_json = 32;

/// Text of a file's, fit to stand in a sentence: control characters escaped, the long ones cut.
[[nodiscard]] inline std::string quotable(std::string_view text) {
  std::string const whole(text.substr(0, 160));
  std::string said =
      nlohmann::json(whole).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  said = said.substr(1, said.size() - 2);
  return text.size() > whole.size() ? said + "..." : said;
}

/// Parses an object. `who` begins the sentence of a refusal: what is not JSON, not an object, nested
/// too deep, or names something twice (of which a parser would silently keep one).
[[nodiscard]] inline nlohmann::json parse_object(std::string_view text, std::string const& who) {
  if (text.size() > longest_json) {
    throw lm::problem(who + " has " + std::to_string(text.size()) + " bytes; at most " +
                      std::to_string(longest_json) + " are allowed");
  }
  std::vector<std::set<std::string>> open;
  using event = nlohmann::json::parse_event_t;
  auto const watch = [&](int depth, event what, nlohmann::json& value) {
    if (depth > deepest_json) {
      throw lm::problem(who + " nests deeper than " + std::to_string(deepest_json) + " levels");
    }
    if (what == event::object_start) open.emplace_back();
    if (what == event::object_end) open.pop_back();
    if (what == event::key && !open.back().insert(value.get<std::string>()).second) {
      throw lm::problem(who + " names something twice: " + quotable(value.get<std::string>()));
    }
    return true;
  };
  nlohmann::json result = nlohmann::json::parse(text, watch, false);
  if (!result.is_object()) throw lm::problem(who + " is not a JSON object");
  return result;
}

}  // namespace checkpoint
