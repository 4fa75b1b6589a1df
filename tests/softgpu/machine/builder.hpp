#pragma once
// What a row of the instruction table uses to turn its instruction into ops.

#include <initializer_list>
#include <map>
#include <string>
#include <string_view>

#include "machine/code.hpp"
#include "machine/form.hpp"
#include "machine/program.hpp"

namespace softgpu {

/// How an op finds its addresses (op::flags of memory instructions).
enum class addressing : std::uint8_t {
  wide,       // 64-bit row a + value
  narrow,     // 32-bit row a + value
  absolute,   // value
  frame,      // value + the frame's local memory
  parameter,  // value + the launch's parameters
};

class builder {
 public:
  builder(program const& p, kernel const& k, code& out) : program_(p), kernel_(k), code_(out) {}

  // The instruction at hand.
  ptx::instruction const* in = nullptr;
  [[nodiscard]] bool has(std::string_view modifier) const;
  /// The one of these the instruction carries; empty where none.
  [[nodiscard]] std::string_view one_of(std::initializer_list<std::string_view> words) const;
  /// Its last type modifier, or the one `from_end` before it.
  [[nodiscard]] std::string_view type_word(int from_end = 0) const;
  [[nodiscard]] ptx::scalar type(int from_end = 0) const;
  [[nodiscard]] std::size_t operand_count() const { return in->operands.size(); }
  [[nodiscard]] ptx::operand const& operand(std::size_t i) const;
  [[noreturn]] void fail(std::string const& what) const;

  // Operands to refs. A register must have the width of the type, unless `any_width`.
  ref input(ptx::operand const& o, ptx::scalar type);
  ref input(std::size_t i, ptx::scalar type) { return input(operand(i), type); }
  ref output(ptx::operand const& o, ptx::scalar type);
  ref output(std::size_t i, ptx::scalar type) { return output(operand(i), type); }
  ref predicate_input(ptx::operand const& o, std::uint32_t& flip);  // flip: ~0 where negated
  ref predicate_output(ptx::operand const& o);
  /// A register's row whatever its width, and that width.
  ref any_row(ptx::operand const& o, int& bits);
  ref constant(std::uint64_t bits, int width_in_bits);
  ref always() const { return {1}; }
  ref scratch();  // a row nobody reads
  ref carry();    // the frame's carry flags, a predicate
  /// Fills a, value and flags (an addressing) from an address operand in a space.
  void address(op& o, ptx::operand const& address, ptx::space where);
  /// The value of a symbol, where it is the same for all lanes.
  bool symbol_value(ptx::operand const& o, std::uint64_t& value) const;
  /// Adds refs beyond d, a, b, c to the op.
  void extra(op& o, ref r);

  /// Appends an op with the instruction's guard.
  op& emit(handlers h);
  op& emit(handler both) { return emit(handlers{both, both}); }
  /// Makes the op's value the index of a label's op, once that is known.
  void branch_to(op const& o, std::string_view label);

  [[nodiscard]] program const& owner() const { return program_; }
  [[nodiscard]] kernel const& owning_kernel() const { return kernel_; }
  [[nodiscard]] code& out() { return code_; }
  [[nodiscard]] ptx::function const& function() const { return *code_.source; }
  /// Called once, after the last instruction.
  void finish(std::vector<std::int32_t> const& op_of_instruction);
  void begin(std::vector<std::int32_t> register_offsets, std::int32_t register_bytes);
  softgpu::kind current_kind = softgpu::kind::integer;

 private:
  program const& program_;
  kernel const& kernel_;
  code& code_;
  std::vector<std::int32_t> register_offsets_;
  std::map<std::pair<std::uint64_t, int>, std::int32_t> constants_;
  std::vector<std::byte> constant_rows_;
  std::vector<std::pair<std::size_t, std::string_view>> branches_;
  std::vector<std::pair<std::size_t, std::string_view>> table_entries_;
  std::int32_t scratch_ = 0;

 public:
  /// Appends a branch table; returns its first entry's index in code::tables.
  std::int64_t branch_table(std::string_view name);
};

}  // namespace softgpu
