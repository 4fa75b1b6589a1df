#pragma once
#include <cctype>
#include <cmath>
#include <cstddef>
#include <limits>
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

/// `python`: the numbers NaN, Infinity and -Infinity too, as Python's json module writes them.
enum class json_dialect { strict, python };

namespace detail {

struct number_word {
  std::string_view word;
  double value;
};
inline constexpr number_word number_words[] = {
    {"NaN", std::numeric_limits<double>::quiet_NaN()},
    {"Infinity", std::numeric_limits<double>::infinity()},
    {"-Infinity", -std::numeric_limits<double>::infinity()}};

/// The word that begins at text[at], as a token of its own; null where there is none.
[[nodiscard]] inline number_word const* word_at(std::string_view text, std::size_t at) {
  auto const joins = [&](std::size_t i) {
    auto const c = i < text.size() ? static_cast<unsigned char>(text[i]) : ' ';
    return std::isalnum(c) != 0 || c == '+' || c == '-' || c == '.' || c == '_';
  };
  if (at > 0 && joins(at - 1)) return nullptr;
  for (number_word const& n : number_words) {
    if (text.substr(at, n.word.size()) == n.word && !joins(at + n.word.size())) return &n;
  }
  return nullptr;
}

/// The text with each of these words as a string that begins with a zero character, which a strict
/// parser takes.
[[nodiscard]] inline std::string words_as_strings(std::string_view text) {
  std::string strict;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size();) {
    if (number_word const* const n = in_string ? nullptr : word_at(text, i)) {
      strict += "\"\\u0000" + std::string(n->word) + '"';
      i += n->word.size();
      continue;
    }
    if (text[i] == '"') in_string = !in_string;
    std::size_t const length = in_string && text[i] == '\\' ? 2 : 1;  // with what it escapes
    strict += text.substr(i, length);
    i += length;
  }
  return strict;
}
/// What such a string stands for; null where it stands for itself.
[[nodiscard]] inline double const* word_of(nlohmann::json const& value) {
  auto const* const text = value.get_ptr<std::string const*>();
  if (text == nullptr || text->empty() || text->front() != '\0') return nullptr;
  for (number_word const& n : number_words) {
    if (std::string_view(*text).substr(1) == n.word) return &n.value;
  }
  return nullptr;
}

}  // namespace detail

/// A value as its file writes it.
[[nodiscard]] inline std::string text_of(nlohmann::json const& value) {
  double const x = value.is_number_float() ? value.get<double>() : 0.0;
  if (std::isnan(x)) return "NaN";
  if (std::isinf(x)) return x > 0 ? "Infinity" : "-Infinity";
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

/// Parses an object. `who` begins the sentence of a refusal: what is not JSON, not an object, nested
/// too deep, or names something twice (of which a parser would silently keep one).
[[nodiscard]] inline nlohmann::json parse_object(std::string_view text, std::string const& who,
                                                 json_dialect dialect = json_dialect::strict) {
  if (text.size() > longest_json) {
    throw lm::problem(who + " has " + std::to_string(text.size()) + " bytes; at most " +
                      std::to_string(longest_json) + " are allowed");
  }
  bool const python = dialect == json_dialect::python;
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
    if (python && (what == event::key || what == event::value)) {
      double const* const number = detail::word_of(value);
      if (number != nullptr && what == event::key) throw lm::problem(who + " is not a JSON object");
      if (number != nullptr) value = *number;
    }
    return true;
  };
  nlohmann::json result = python
                              ? nlohmann::json::parse(detail::words_as_strings(text), watch, false)
                              : nlohmann::json::parse(text, watch, false);
  if (!result.is_object()) throw lm::problem(who + " is not a JSON object");
  return result;
}

}  // namespace checkpoint
