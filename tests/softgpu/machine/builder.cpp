#include "machine/builder.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

namespace softgpu {
namespace {

using ptx::operand_kind;

void broadcast(std::byte* row, std::uint64_t bits, int width) {
  for (int i = 0; i < lanes_per_warp; ++i)
    std::memcpy(row + i * (width / 8), &bits, std::size_t(width / 8));
}

}  // namespace

bool builder::has(std::string_view modifier) const {
  return std::find(in->modifiers.begin(), in->modifiers.end(), modifier) != in->modifiers.end();
}

std::string_view builder::one_of(std::initializer_list<std::string_view> words) const {
  for (std::string_view m : in->modifiers)
    if (std::find(words.begin(), words.end(), m) != words.end()) return m;
  return {};
}

std::string_view builder::type_word(int from_end) const {
  static constexpr std::string_view packed[] = {"bf16",   "bf16x2", "tf32",   "e4m3",   "e5m2",
                                                "e4m3x2", "e5m2x2", "f16x2",  "u16x2",  "s16x2",
                                                "e2m1x2", "e2m3x2", "e3m2x2", "ue8m0x2"};
  for (auto m = in->modifiers.rbegin(); m != in->modifiers.rend(); ++m) {
    ptx::scalar ignored;
    bool const is_type = ptx::read_scalar(*m, ignored) ||
                         std::find(std::begin(packed), std::end(packed), *m) != std::end(packed);
    if (is_type && from_end-- == 0) return *m;
  }
  return {};
}

ptx::scalar builder::type(int from_end) const {
  std::string_view const word = type_word(from_end);
  ptx::scalar out;
  if (ptx::read_scalar(word, out)) return out;
  if (word == "bf16") return {'b', 16};
  if (word == "e4m3" || word == "e5m2") return {'b', 8};
  if (word == "e4m3x2" || word == "e5m2x2") return {'b', 16};
  if (!word.empty()) return {'b', 32};
  fail("an instruction without a type");
}

ptx::operand const& builder::operand(std::size_t i) const {
  if (i >= in->operands.size()) fail("an operand is missing");
  return in->operands[i];
}

void builder::fail(std::string const& what) const {
  throw ptx::error(in->line, what + ": " + std::string(in->text));
}

ref builder::constant(std::uint64_t bits, int width) {
  if (width < 64) bits &= (std::uint64_t{1} << width) - 1;
  auto const [found, fresh] = constants_.try_emplace({bits, width}, 0);
  if (fresh) {
    found->second = static_cast<std::int32_t>(constant_rows_.size());
    std::size_t const row = std::max<std::size_t>(64, std::size_t(width / 8 * lanes_per_warp));
    constant_rows_.resize(constant_rows_.size() + row);
    broadcast(constant_rows_.data() + found->second, bits, width);
  }
  return {found->second + 1};
}

ref builder::scratch() { return {scratch_}; }
ref builder::carry() { return {scratch_ + 16 * lanes_per_warp}; }

bool builder::symbol_value(ptx::operand const& o, std::uint64_t& value) const {
  auto const offset = static_cast<std::uint64_t>(o.value);
  std::string_view const name = o.name;
  if (auto const s = kernel_.shared_offsets.find(name); s != kernel_.shared_offsets.end())
    return value = static_cast<std::uint64_t>(s->second) + offset, true;
  if (std::uint64_t const at = program_.variable(name); at != 0) return value = at + offset, true;
  if (int const id = program_.function_id(name); id >= 0) return value = function_handle(id), true;
  return false;
}

ref builder::any_row(ptx::operand const& o, int& bits) {
  if (o.kind == operand_kind::sink) return bits = 128, scratch();
  if (o.kind != operand_kind::reg) fail("expected a register");
  ptx::scalar const t = function().registers[std::size_t(o.index)];
  if (t.kind == 'p') fail("a predicate where a value is expected");
  bits = t.bits;
  return {register_offsets_[std::size_t(o.index)]};
}

ref builder::input(ptx::operand const& o, ptx::scalar type) {
  switch (o.kind) {
    case operand_kind::reg: {
      int bits = 0;
      ref const r = any_row(o, bits);
      if (bits != type.bits)
        fail("register " + std::string(o.name) + " has " + std::to_string(bits) +
             " bits where the instruction takes " + std::to_string(type.bits));
      return r;
    }
    case operand_kind::integer: {
      auto bits = static_cast<std::uint64_t>(o.value);
      if (type.kind == 'f' && type.bits == 32)
        bits = std::bit_cast<std::uint32_t>(static_cast<float>(o.value));
      if (type.kind == 'f' && type.bits == 64)
        bits = std::bit_cast<std::uint64_t>(static_cast<double>(o.value));
      return constant(bits, type.bits);
    }
    case operand_kind::real32:
      if (type.bits == 64) {
        double const wide = std::bit_cast<float>(static_cast<std::uint32_t>(o.value));
        return constant(std::bit_cast<std::uint64_t>(wide), 64);
      }
      return constant(static_cast<std::uint64_t>(o.value), type.bits);
    case operand_kind::real64:
      if (type.bits == 32) {
        auto const narrow = static_cast<float>(std::bit_cast<double>(o.value));
        return constant(std::bit_cast<std::uint32_t>(narrow), 32);
      }
      return constant(static_cast<std::uint64_t>(o.value), type.bits);
    case operand_kind::special:
      if (o.name == "WARP_SZ") return constant(lanes_per_warp, type.bits);
      fail("special register " + std::string(o.name) + " is only supported in mov");
    case operand_kind::local:
    case operand_kind::symbol: {
      std::uint64_t value = 0;
      if (symbol_value(o, value)) return constant(value, type.bits);
      fail("unknown symbol " + std::string(o.name));
    }
    default: fail("unsupported kind of operand");
  }
}

ref builder::output(ptx::operand const& o, ptx::scalar type) {
  if (o.kind == operand_kind::sink) return scratch();
  if (o.kind != operand_kind::reg) fail("the destination is no register");
  return input(o, type);
}

ref builder::predicate_input(ptx::operand const& o, std::uint32_t& flip) {
  flip = o.kind == operand_kind::negated ? ~0u : 0u;
  if (o.kind == operand_kind::integer) return flip = o.value != 0 ? 0u : ~0u, always();
  if (o.kind != operand_kind::reg && o.kind != operand_kind::negated) fail("expected a predicate");
  if (function().registers[std::size_t(o.index)].kind != 'p')
    fail(std::string(o.name) + " is no predicate");
  return {register_offsets_[std::size_t(o.index)]};
}

ref builder::predicate_output(ptx::operand const& o) {
  if (o.kind == operand_kind::sink) return scratch();
  std::uint32_t flip = 0;
  if (o.kind != operand_kind::reg) fail("the destination is no predicate");
  return predicate_input(o, flip);
}

void builder::address(op& o, ptx::operand const& at, ptx::space where) {
  if (at.kind != operand_kind::address) fail("expected an address in brackets");
  if (at.parts.size() != 1) fail("tensor coordinates are not supported");
  ptx::operand const& base = at.parts[0];
  o.value = at.value;
  auto const mode = [&](addressing m) { o.flags = static_cast<std::uint8_t>(m); };
  if (base.kind == operand_kind::reg) {
    int bits = 0;
    o.a = any_row(base, bits);
    if (bits != 32 && bits != 64) fail("an address register must have 32 or 64 bits");
    return mode(bits == 64 ? addressing::wide : addressing::narrow);
  }
  if (base.kind == operand_kind::integer) return mode(addressing::absolute);
  std::uint64_t value = 0;
  if (base.kind == operand_kind::local) {
    std::size_t const index = std::size_t(base.index);
    ptx::variable const& v = function().locals[index];
    if (v.space == ptx::space::parameter && function().is_entry &&
        index < function().parameters.size()) {
      o.value += kernel_.parameter_offsets[index];
      return mode(addressing::parameter);
    }
    if (v.space != ptx::space::shared) {
      o.value += code_.local_offsets[index];
      return mode(addressing::frame);
    }
  }
  if (!symbol_value(base, value)) fail("unknown symbol " + std::string(base.name));
  if (where == ptx::space::generic && kernel_.shared_offsets.count(base.name) != 0)
    value += map::shared_window;
  o.value += static_cast<std::int64_t>(value);
  mode(addressing::absolute);
}

void builder::extra(op& o, ref r) {
  if (o.extra_count == 0) o.extra = static_cast<std::int32_t>(code_.extras.size());
  code_.extras.push_back(r);
  ++o.extra_count;
}

op& builder::emit(handlers h) {
  op o;
  o.full = h.full;
  o.some = h.some;
  o.kind = current_kind;
  o.guard = always();
  o.source = static_cast<std::int32_t>(in - function().body.data());
  if (in->guard >= 0) {
    if (function().registers[std::size_t(in->guard)].kind != 'p') fail("the guard is no predicate");
    o.guard = {register_offsets_[std::size_t(in->guard)]};
    o.flip = in->guard_negated ? ~0u : 0u;
  }
  code_.ops.push_back(o);
  return code_.ops.back();
}

void builder::branch_to(op const& o, std::string_view label) {
  if (function().labels.count(label) == 0) fail("unknown label " + std::string(label));
  branches_.emplace_back(std::size_t(&o - code_.ops.data()), label);
}

std::int64_t builder::branch_table(std::string_view name) {
  auto const found = function().branch_targets.find(name);
  if (found == function().branch_targets.end()) fail("unknown branch table " + std::string(name));
  auto const first = static_cast<std::int64_t>(code_.tables.size());
  for (std::string_view label : found->second) {
    if (function().labels.count(label) == 0) fail("unknown label " + std::string(label));
    table_entries_.emplace_back(code_.tables.size(), label);
    code_.tables.push_back(0);
  }
  return first;
}

void builder::begin(std::vector<std::int32_t> register_offsets, std::int32_t register_bytes) {
  register_offsets_ = std::move(register_offsets);
  scratch_ = register_bytes;
  code_.frame_bytes = register_bytes + 16 * lanes_per_warp + 64;  // the carry flags come last
  constant(~0u, 32);                                              // row 0: always true
}

void builder::finish(std::vector<std::int32_t> const& op_of) {
  auto const target = [&](std::string_view label) {
    return op_of[std::size_t(function().labels.at(label))];
  };
  for (auto const& [index, label] : branches_) code_.ops[index].value = target(label);
  for (auto const& [index, label] : table_entries_) code_.tables[index] = target(label);
  std::size_t const bytes = (constant_rows_.size() + 63) / 64 * 64;
  code_.constants_owner = std::shared_ptr<void>(std::aligned_alloc(64, bytes), std::free);
  code_.constants = static_cast<std::byte*>(code_.constants_owner.get());
  std::memcpy(code_.constants, constant_rows_.data(), constant_rows_.size());
}

}  // namespace softgpu
