#include "ptx/lexer.hpp"

#include <bit>
#include <charconv>
#include <string>

#include "ptx/module.hpp"

namespace softgpu::ptx {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool starts_word(char c) { return is_letter(c) || c == '_' || c == '$' || c == '%' || c == '.'; }
bool in_word(char c) { return is_letter(c) || is_digit(c) || c == '_' || c == '$' || c == '.'; }

int digit_of(char c) {
  if (is_digit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 99;
}

}  // namespace

void lexer::skip_blanks() {
  while (at_ < text_.size()) {
    char const c = text_[at_];
    if (c == '\n') {
      ++line_, ++at_;
    } else if (c == ' ' || c == '\t' || c == '\r' || c == '\0') {
      ++at_;
    } else if (text_.substr(at_, 2) == "//") {
      while (at_ < text_.size() && text_[at_] != '\n') ++at_;
    } else if (text_.substr(at_, 2) == "/*") {
      int const opened = line_;
      std::size_t const close = text_.find("*/", at_ + 2);
      if (close == std::string_view::npos) throw error(opened, "a comment is never closed");
      for (; at_ < close + 2; ++at_) line_ += text_[at_] == '\n';
    } else {
      return;
    }
  }
}

token lexer::number() {
  std::size_t const begin = at_;
  auto const rest = [&](std::size_t n) { return text_.substr(begin, n); };
  auto const finish = [&](token_kind kind, std::uint64_t value) {
    return token{kind, text_.substr(begin, at_ - begin), value, line_};
  };
  auto const digits = [&](int base, std::size_t most) {
    std::uint64_t value = 0;
    std::size_t count = 0;
    for (; at_ < text_.size() && digit_of(text_[at_]) < base && count < most; ++at_, ++count)
      value = value * static_cast<std::uint64_t>(base) +
              static_cast<std::uint64_t>(digit_of(text_[at_]));
    if (count == 0) throw error(line_, "a number without digits");
    return value;
  };
  std::string_view const prefix = rest(2);
  if (prefix == "0f" || prefix == "0F") {
    at_ += 2;
    return finish(token_kind::real32, digits(16, 8));
  }
  if (prefix == "0d" || prefix == "0D") {
    at_ += 2;
    return finish(token_kind::real64, digits(16, 16));
  }
  std::uint64_t value = 0;
  if (prefix == "0x" || prefix == "0X") {
    at_ += 2;
    value = digits(16, 16);
  } else if (prefix == "0b" || prefix == "0B") {
    at_ += 2;
    value = digits(2, 64);
  } else {
    std::size_t end = at_;
    while (end < text_.size() && is_digit(text_[end])) ++end;
    bool const fraction = end + 1 < text_.size() && text_[end] == '.' && is_digit(text_[end + 1]);
    if (fraction) {
      double real = 0;
      auto const read = std::from_chars(text_.data() + at_, text_.data() + text_.size(), real);
      at_ = static_cast<std::size_t>(read.ptr - text_.data());
      return finish(token_kind::real64, std::bit_cast<std::uint64_t>(real));
    }
    bool const octal = text_[at_] == '0' && end - at_ > 1;
    value = digits(octal ? 8 : 10, 22);
  }
  if (at_ < text_.size() && (text_[at_] == 'U' || text_[at_] == 'u')) ++at_;
  return finish(token_kind::integer, value);
}

token lexer::next() {
  skip_blanks();
  if (at_ >= text_.size()) return {token_kind::end, "end of file", 0, line_};
  std::size_t const begin = at_;
  char const c = text_[at_];
  if (is_digit(c)) return number();
  if (starts_word(c)) {
    ++at_;
    while (at_ < text_.size()) {
      bool const scope = text_.substr(at_, 2) == "::" && at_ + 2 < text_.size() &&
                         (is_letter(text_[at_ + 2]) || is_digit(text_[at_ + 2]));
      if (scope)
        at_ += 2;
      else if (in_word(text_[at_]))
        ++at_;
      else
        break;
    }
    return {token_kind::word, text_.substr(begin, at_ - begin), 0, line_};
  }
  if (c == '"') {
    std::size_t const close = text_.find('"', at_ + 1);
    if (close == std::string_view::npos) throw error(line_, "a string is never closed");
    at_ = close + 1;
    return {token_kind::string, text_.substr(begin + 1, close - begin - 1), 0, line_};
  }
  constexpr std::string_view punctuation = "{}()[]<>,;:+-*|!@=~&";
  if (punctuation.find(c) == std::string_view::npos)
    throw error(line_, std::string("unexpected character '") + c + "'");
  ++at_;
  return {token_kind::punctuation, text_.substr(begin, 1), 0, line_};
}

}  // namespace softgpu::ptx
