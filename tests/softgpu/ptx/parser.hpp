#pragma once
// The recursive-descent parser behind ptx::parse: declarations in parser.cpp and variables.cpp,
// statements in statements.cpp.

#include <unordered_map>

#include "ptx/lexer.hpp"
#include "ptx/module.hpp"

namespace softgpu::ptx {

std::vector<std::string_view> split(std::string_view word, char separator);

class parser {
 public:
  explicit parser(module& out) : module_(out), lexer_(*out.text) { advance(); }
  void run();

 private:
  // Tokens.
  void advance();
  bool accept(char c);
  void expect(char c, char const* where);
  std::string_view word(char const* what);
  std::int64_t integer(char const* what);
  [[noreturn]] void fail(std::string const& what) const;
  void skip_statement();  // to the ';' or through a balanced {…}
  void skip_braces();

  // Declarations (parser.cpp, variables.cpp).
  void file_directive();
  void loc_directive();
  void function_or_entry(bool is_entry, bool is_extern);
  std::vector<variable> parameter_list();
  variable declaration(space where, bool is_extern);
  std::vector<variable> declarations(space where, bool is_extern);
  void initializer(variable& v);
  void initializer_element(variable& v, std::int64_t& offset);
  void performance_directive(function& f, std::string_view name);

  // Function bodies (statements.cpp).
  void body(function& f);
  void statement();
  void reg_directive();
  void local_directive(space where);
  void label_or_table(std::string_view name);
  void read_instruction(std::string_view first, int guard, bool negated, char const* begin);
  operand read_operand();
  operand simple_operand();
  operand named_operand(std::string_view name);
  operand address();
  operand list(char close, operand_kind kind);
  int find_register(std::string_view name) const;

  struct scope {
    std::unordered_map<std::string_view, int> registers;
    std::unordered_map<std::string_view, std::pair<int, int>> ranges;  // prefix → first, count
    std::unordered_map<std::string_view, int> locals;
  };

  module& module_;
  lexer lexer_;
  token now_, ahead_;
  bool has_ahead_ = false;
  token const& peek();
  char const* last_end_ = nullptr;
  function* function_ = nullptr;
  std::vector<scope> scopes_;
  int location_ = -1;
};

}  // namespace softgpu::ptx
