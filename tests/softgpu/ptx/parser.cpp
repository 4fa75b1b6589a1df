#include "ptx/parser.hpp"

#include <bit>

namespace softgpu::ptx {

std::vector<std::string_view> split(std::string_view word, char separator) {
  std::vector<std::string_view> parts;
  while (!word.empty()) {
    std::size_t const at = word.find(separator);
    if (at != 0) parts.push_back(word.substr(0, at));
    if (at == std::string_view::npos) break;
    word.remove_prefix(at + 1);
  }
  return parts;
}

bool read_scalar(std::string_view word, scalar& out) {
  if (word == "pred") return out = {'p', 1}, true;
  if (word == "f16x2") return out = {'b', 32}, true;
  static constexpr std::string_view known[] = {"u8",   "u16", "u32", "u64", "s8",  "s16",
                                               "s32",  "s64", "b8",  "b16", "b32", "b64",
                                               "b128", "f16", "f32", "f64"};
  for (std::string_view name : known)
    if (word == name) return out = {word[0], std::stoi(std::string(word.substr(1)))}, true;
  return false;
}

void parser::fail(std::string const& what) const { throw error(now_.line, what); }

void parser::advance() {
  if (now_.text.data() != nullptr) last_end_ = now_.text.data() + now_.text.size();
  now_ = has_ahead_ ? ahead_ : lexer_.next();
  has_ahead_ = false;
}

token const& parser::peek() {
  if (!has_ahead_) ahead_ = lexer_.next(), has_ahead_ = true;
  return ahead_;
}

bool parser::accept(char c) {
  if (!now_.is(c)) return false;
  advance();
  return true;
}

void parser::expect(char c, char const* where) {
  if (!accept(c))
    fail(std::string("expected '") + c + "' " + where + ", found '" + std::string(now_.text) + "'");
}

std::string_view parser::word(char const* what) {
  if (now_.kind != token_kind::word)
    fail(std::string("expected ") + what + ", found '" + std::string(now_.text) + "'");
  std::string_view const text = now_.text;
  advance();
  return text;
}

std::int64_t parser::integer(char const* what) {
  bool const negative = accept('-');
  if (now_.kind != token_kind::integer)
    fail(std::string("expected ") + what + ", found '" + std::string(now_.text) + "'");
  std::uint64_t const value = now_.value;
  advance();
  return static_cast<std::int64_t>(negative ? 0 - value : value);
}

void parser::skip_braces() {
  expect('{', "before a block");
  for (int depth = 1; depth > 0; advance()) {
    if (now_.kind == token_kind::end) fail("a block is never closed");
    if (now_.is('{')) ++depth;
    if (now_.is('}')) --depth;
  }
}

void parser::skip_statement() {
  while (!now_.is(';')) {
    if (now_.kind == token_kind::end) fail("a statement is never ended by ';'");
    advance();
  }
  advance();
}

void parser::file_directive() {
  auto const index = static_cast<int>(integer("a file number"));
  if (now_.kind != token_kind::string) fail("expected a file name in quotes");
  module_.files[index] = std::string(now_.text);
  advance();
  while (accept(',')) integer("a file's time or size");
}

void parser::loc_directive() {
  location at;
  at.file = static_cast<int>(integer("a file number"));
  at.line = static_cast<int>(integer("a line"));
  at.column = static_cast<int>(integer("a column"));
  while (accept(',')) {
    std::string_view const what = word("function_name or inlined_at");
    if (what == "function_name") {
      word("a label");
      if (accept('+')) integer("an offset");
    } else if (what == "inlined_at") {
      at.inlined_file = static_cast<int>(integer("a file number"));
      at.inlined_line = static_cast<int>(integer("a line"));
      integer("a column");
    } else {
      fail("unknown attribute of .loc: " + std::string(what));
    }
  }
  location_ = static_cast<int>(module_.locations.size());
  module_.locations.push_back(at);
}

std::vector<variable> parser::parameter_list() {
  std::vector<variable> out;
  if (!accept('(')) return out;
  while (!accept(')')) {
    std::string_view const where = word(".param or .reg");
    if (where != ".param" && where != ".reg") fail("expected .param, found " + std::string(where));
    out.push_back(declaration(space::parameter, false));
    if (!accept(',') && !now_.is(')')) fail("expected ',' or ')' after a parameter");
  }
  return out;
}

void parser::performance_directive(function& f, std::string_view name) {
  auto& values = f.directives[name.substr(1)];
  if (now_.kind == token_kind::integer) do
      values.push_back(integer("a number"));
    while (accept(','));
  if (now_.kind == token_kind::string) advance();  // .pragma "…";
  accept(';');
}

void parser::function_or_entry(bool is_entry, bool is_extern) {
  function f;
  f.is_entry = is_entry;
  f.is_extern = is_extern;
  f.line = now_.line;
  if (now_.is(".attribute")) {
    advance();
    while (!accept(')')) advance();
  }
  if (!is_entry && now_.is('(')) f.returns = parameter_list();
  f.name = word("a function's name");
  f.parameters = parameter_list();
  while (now_.kind == token_kind::word && now_.text[0] == '.') {
    std::string_view const name = word("a directive");
    if (name == ".noreturn")
      f.no_return = true;
    else
      performance_directive(f, name);
  }
  if (!accept(';')) body(f);
  module_.functions.push_back(std::move(f));
}

void parser::run() {
  bool is_extern = false;
  while (now_.kind != token_kind::end) {
    std::string_view const what = word("a directive");
    if (what == ".version") {
      if (now_.kind != token_kind::real64) fail("expected a version such as 9.0");
      double const version = std::bit_cast<double>(now_.value);
      if (!(version < 1000)) fail("there is no such version");
      module_.version = static_cast<int>(version * 10 + 0.5);
      advance();
    } else if (what == ".target") {
      module_.target = word("a target");
      while (accept(',')) word("a target's option");
    } else if (what == ".address_size") {
      if (integer("an address size") != 64) fail("only .address_size 64 is supported");
    } else if (what == ".file") {
      file_directive();
    } else if (what == ".loc") {
      loc_directive();
    } else if (what == ".section") {
      word("a section's name");
      skip_braces();
    } else if (what == ".pragma") {
      skip_statement();
    } else if (what == ".extern") {
      is_extern = true;
      continue;
    } else if (what == ".visible" || what == ".weak" || what == ".common") {
      continue;
    } else if (what == ".func" || what == ".entry") {
      function_or_entry(what == ".entry", is_extern);
    } else if (what == ".global" || what == ".const" || what == ".shared") {
      space const where = what == ".global"  ? space::global
                          : what == ".const" ? space::constant
                                             : space::shared;
      for (variable& v : declarations(where, is_extern)) module_.variables.push_back(std::move(v));
    } else {
      fail("unsupported directive " + std::string(what));
    }
    is_extern = false;
  }
}

module parse(std::string text) {
  module out;
  out.text = std::make_shared<std::string const>(std::move(text));
  parser(out).run();
  return out;
}

}  // namespace softgpu::ptx
