#pragma once
// A row of the instruction table, written as the PTX manual writes an instruction:
//
//   {"add{.rn|rz|rm|rp}{.ftz}{.sat}.f32 d, a, b", kind::real, build_add}
//
// A dot begins a modifier, a bar separates what it may be, braces make it optional; operands are
// counted, "{, c}" may be left out. A form that no row accepts is refused with a sentence.

#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "machine/op.hpp"
#include "ptx/module.hpp"

namespace softgpu {

class builder;

struct form {
  char const* syntax;
  softgpu::kind kind;
  void (*build)(builder&);
};

/// A form's syntax taken apart.
struct parsed_form {
  explicit parsed_form(form const& f);
  [[nodiscard]] bool accepts(ptx::instruction const& i) const;
  struct slot {
    bool optional = false;
    std::vector<std::string_view> alternatives;
  };
  form const* row;
  std::string_view opcode;
  std::vector<slot> slots;
  std::size_t least_operands = 0, most_operands = 0;
};

/// All rows of all families for the instruction set this machine runs, by opcode.
class instruction_table {
 public:
  static instruction_table const& get();
  /// The row for an instruction, or null.
  [[nodiscard]] form const* find(ptx::instruction const& i) const;
  [[nodiscard]] bool knows(std::string_view opcode) const { return rows_.count(opcode) != 0; }
  [[nodiscard]] std::size_t size() const;

 private:
  instruction_table();
  void add(std::span<form const> rows);
  std::unordered_map<std::string_view, std::vector<parsed_form>> rows_;
};

}  // namespace softgpu
