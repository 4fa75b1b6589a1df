#pragma once
// What the parser makes of a PTX file: names resolved to registers, nothing interpreted yet.

#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace softgpu::ptx {

/// A PTX text that cannot be read, or an instruction that cannot be executed; says where and why.
struct error : std::runtime_error {
  error(int at, std::string const& what)
      : std::runtime_error("PTX line " + std::to_string(at) + ": " + what), line(at) {}
  int line;
};

/// A fundamental type: its letter (u, s, f, b; p for predicates) and its width.
struct scalar {
  char kind = 'b';
  int bits = 32;
  [[nodiscard]] int bytes() const { return kind == 'p' ? 4 : bits / 8; }
  friend bool operator==(scalar, scalar) = default;
};

/// Reads "u32", "f16x2", "pred", …; false where the word is no fundamental type.
bool read_scalar(std::string_view word, scalar& out);

enum class space : std::uint8_t { generic, global, shared, local, constant, parameter };

/// An address written into an initializer: bytes [offset, offset + size) hold symbol + addend.
struct relocation {
  std::int64_t offset = 0;
  int size = 8;
  std::string_view symbol;
  std::int64_t addend = 0;
  bool generic = false;
  int shift = 0;  // mask operator: the address is shifted right by this many bits first
};

struct variable {
  std::string_view name;
  ptx::space space = ptx::space::global;
  scalar type;
  std::int64_t bytes = 0;  // 0 for the unsized array of dynamic shared memory
  int alignment = 1;
  bool is_extern = false;
  bool is_array = false;
  bool is_managed = false;            // .attribute(.managed)
  std::vector<std::uint8_t> initial;  // shorter than bytes: the rest is zero
  std::vector<relocation> relocations;
  bool initialized = false;
  int line = 0;
};

enum class operand_kind : std::uint8_t {
  reg,      // index
  negated,  // !predicate: index
  integer,  // value
  real32,   // value holds the bits
  real64,   // value holds the bits
  symbol,   // name + value; a variable, function, label or table
  local,    // index: a variable of the function (shared, local, param) + value
  special,  // name: %tid.x, WARP_SZ
  address,  // parts[0] (reg, symbol, local or integer) + value
  vector,   // parts
  pair,     // parts[0]|parts[1]
  list,     // parts in parentheses
  sink,     // _
};

struct operand {
  operand_kind kind = operand_kind::sink;
  int index = -1;
  std::int64_t value = 0;
  std::string_view name;
  std::vector<operand> parts;
};

struct instruction {
  std::string_view opcode;                  // "ld"
  std::vector<std::string_view> modifiers;  // "global", "v4", "f32"
  std::string_view text;                    // the whole statement
  std::vector<operand> operands;
  int guard = -1;  // register index of the guarding predicate
  bool guard_negated = false;
  int line = 0;
  int location = -1;  // index into module::locations
};

/// A source position and the position it was inlined at (file 0: none).
struct location {
  int file = 0, line = 0, column = 0;
  int inlined_file = 0, inlined_line = 0;
};

struct prototype {
  std::vector<variable> returns, parameters;
};

struct function {
  std::string_view name;
  bool is_entry = false, is_extern = false, has_body = false, no_return = false;
  std::vector<variable> returns, parameters;
  std::vector<scalar> registers;
  std::vector<std::string> register_names;
  std::vector<variable> locals;  // shared, local, and the params of calls, in order
  std::vector<instruction> body;
  std::map<std::string_view, int> labels;  // → index into body
  std::map<std::string_view, std::vector<std::string_view>> branch_targets;
  std::map<std::string_view, prototype> prototypes;
  std::map<std::string_view, std::vector<std::int64_t>> directives;  // maxntid, reqntid, …
  int line = 0;
};

struct module {
  std::shared_ptr<std::string const> text;  // every string_view points into it
  int version = 0;                          // 90 for .version 9.0
  std::string_view target;
  std::map<int, std::string> files;
  std::vector<location> locations;
  std::vector<variable> variables;
  std::vector<function> functions;
};

/// Parses one PTX file. Throws ptx::error.
module parse(std::string text);

}  // namespace softgpu::ptx
