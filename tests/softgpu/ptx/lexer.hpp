#pragma once
// PTX text to tokens. A word keeps its dots ("ld.global.v4.f32", "%tid.x"): the parser splits it.

#include <cstdint>
#include <string_view>

namespace softgpu::ptx {

enum class token_kind : std::uint8_t { end, word, integer, real32, real64, string, punctuation };

struct token {
  token_kind kind = token_kind::end;
  std::string_view text;
  std::uint64_t value = 0;  // an integer's value or a float's bits
  int line = 1;
  [[nodiscard]] bool is(char c) const {
    return kind == token_kind::punctuation && text.size() == 1 && text[0] == c;
  }
  [[nodiscard]] bool is(std::string_view word) const {
    return kind == token_kind::word && text == word;
  }
};

class lexer {
 public:
  explicit lexer(std::string_view text) : text_(text) {}
  /// The next token; throws ptx::error on a character PTX does not have.
  token next();

 private:
  void skip_blanks();
  token number();
  std::string_view text_;
  std::size_t at_ = 0;
  int line_ = 1;
};

}  // namespace softgpu::ptx
