// Function bodies: registers, labels, tables and instructions.
#include "ptx/parser.hpp"

namespace softgpu::ptx {

void parser::body(function& f) {
  function_ = &f;
  f.has_body = true;
  location_ = -1;
  scopes_.assign(1, {});
  auto const name_parameters = [&](std::vector<variable> const& list) {
    for (variable const& v : list) {
      scopes_[0].locals[v.name] = static_cast<int>(f.locals.size());
      f.locals.push_back(v);
    }
  };
  name_parameters(f.returns);  // locals begin with the returns, then the parameters
  name_parameters(f.parameters);
  expect('{', "before a function's body");
  while (!scopes_.empty()) {
    if (now_.kind == token_kind::end) fail("a function's body is never closed");
    if (accept('{')) {
      scopes_.emplace_back();
      if (scopes_.size() > 256) fail("blocks are nested too deep");
    } else if (accept('}')) {
      scopes_.pop_back();
    } else {
      statement();
    }
  }
  function_ = nullptr;
}

void parser::statement() {
  char const* const begin = now_.text.data();
  if (accept(';')) return;
  int guard = -1;
  bool negated = false;
  if (accept('@')) {
    negated = accept('!');
    std::string_view const name = word("a predicate");
    guard = find_register(name);
    if (guard < 0) fail("unknown register " + std::string(name));
    return read_instruction(word("an instruction"), guard, negated, begin);
  }
  std::string_view const first = word("a statement");
  if (first == ".loc") return loc_directive();
  if (first == ".pragma") return skip_statement();
  if (first == ".reg") return reg_directive();
  if (first == ".shared") return local_directive(space::shared);
  if (first == ".local") return local_directive(space::local);
  if (first == ".param") return local_directive(space::parameter);
  if (first == ".global") return local_directive(space::global);
  if (first == ".const") return local_directive(space::constant);
  if (first[0] == '.') fail("unsupported directive " + std::string(first) + " in a function");
  if (accept(':')) return label_or_table(first);
  read_instruction(first, guard, negated, begin);
}

void parser::reg_directive() {
  std::string_view const type_name = word("a register's type");
  scalar type;
  int vector = 1;
  std::string_view name_of_type = type_name;
  if (type_name == ".v2" || type_name == ".v4") {
    vector = type_name[2] - '0';
    name_of_type = word("a register's type");
  }
  if (vector != 1) fail("vector registers are not supported");
  if (!read_scalar(name_of_type.substr(1), type))
    fail("unsupported register type " + std::string(type_name));
  do {
    std::string_view const name = word("a register's name");
    auto const first = static_cast<int>(function_->registers.size());
    if (accept('<')) {
      std::int64_t const count = integer("a register count");
      expect('>', "after a register count");
      if (count < 0 || count > (1 << 22)) fail("a register count out of range");
      scopes_.back().ranges[name] = {first, static_cast<int>(count)};
      for (std::int64_t i = 0; i < count; ++i) {
        function_->registers.push_back(type);
        function_->register_names.push_back(std::string(name) + std::to_string(i));
      }
    } else {
      scopes_.back().registers[name] = first;
      function_->registers.push_back(type);
      function_->register_names.emplace_back(name);
    }
  } while (accept(','));
  expect(';', "after registers");
}

void parser::local_directive(space where) {
  for (variable& v : declarations(where, false)) {
    if (where == space::global || where == space::constant) {
      module_.variables.push_back(std::move(v));  // static: nvcc makes its name unique
      continue;
    }
    scopes_.back().locals[v.name] = static_cast<int>(function_->locals.size());
    function_->locals.push_back(std::move(v));
  }
}

void parser::label_or_table(std::string_view name) {
  if (now_.is(".branchtargets")) {
    advance();
    auto& targets = function_->branch_targets[name];
    do targets.push_back(word("a label"));
    while (accept(','));
    expect(';', "after branch targets");
  } else if (now_.is(".callprototype")) {
    advance();
    prototype p;
    if (now_.is('(')) p.returns = parameter_list();
    word("_");
    p.parameters = parameter_list();
    if (now_.is(".noreturn")) advance();
    expect(';', "after a prototype");
    function_->prototypes[name] = std::move(p);
  } else if (now_.is(".calltargets")) {
    skip_statement();
  } else if (!function_->labels.emplace(name, int(function_->body.size())).second) {
    fail("label " + std::string(name) + " is defined twice");
  }
}

void parser::read_instruction(std::string_view first, int guard, bool negated, char const* begin) {
  instruction i;
  i.guard = guard;
  i.guard_negated = negated;
  i.line = now_.line;
  i.location = location_;
  i.modifiers = split(first, '.');
  if (i.modifiers.empty()) fail("expected an instruction");
  i.opcode = i.modifiers.front();
  i.modifiers.erase(i.modifiers.begin());
  if (!now_.is(';')) do
      i.operands.push_back(read_operand());
    while (accept(','));
  i.text = {begin, static_cast<std::size_t>(last_end_ - begin)};
  expect(';', "after an instruction");
  function_->body.push_back(std::move(i));
}

int parser::find_register(std::string_view name) const {
  std::size_t digits = name.size();
  while (digits > 0 && name[digits - 1] >= '0' && name[digits - 1] <= '9') --digits;
  std::string_view const prefix = name.substr(0, digits), suffix = name.substr(digits);
  for (auto s = scopes_.rbegin(); s != scopes_.rend(); ++s) {
    if (auto const found = s->registers.find(name); found != s->registers.end())
      return found->second;
    auto const range = s->ranges.find(prefix);
    if (range == s->ranges.end() || suffix.empty() || suffix.size() > 7) continue;
    int number = 0;
    for (char c : suffix) number = number * 10 + (c - '0');
    if (number < range->second.second) return range->second.first + number;
  }
  return -1;
}

operand parser::named_operand(std::string_view name) {
  if (name == "_") return {};
  if (int const index = find_register(name); index >= 0)
    return {operand_kind::reg, index, 0, name, {}};
  if (name[0] == '%' || name == "WARP_SZ") return {operand_kind::special, -1, 0, name, {}};
  operand out{operand_kind::symbol, -1, 0, name, {}};
  for (auto s = scopes_.rbegin(); s != scopes_.rend(); ++s)
    if (auto const found = s->locals.find(name); found != s->locals.end()) {
      out.kind = operand_kind::local;
      out.index = found->second;
      break;
    }
  if (now_.is('+') || now_.is('-')) {
    bool const minus = now_.is('-');
    if (!minus) advance();  // "sym+-8": integer() reads the sign
    out.value = integer("an offset");
  }
  return out;
}

operand parser::simple_operand() {
  if (now_.is('{')) return advance(), list('}', operand_kind::vector);
  if (now_.is('(')) return advance(), list(')', operand_kind::list);
  if (now_.is('[')) return address();
  if (accept('!')) {
    std::string_view const name = word("a predicate");
    int const index = find_register(name);
    if (index < 0) fail("unknown register " + std::string(name));
    return {operand_kind::negated, index, 0, name, {}};
  }
  if (now_.kind == token_kind::real32 || now_.kind == token_kind::real64) {
    operand out{now_.kind == token_kind::real32 ? operand_kind::real32 : operand_kind::real64,
                -1,
                static_cast<std::int64_t>(now_.value),
                now_.text,
                {}};
    advance();
    return out;
  }
  if (now_.is('-') || now_.kind == token_kind::integer)
    return {operand_kind::integer, -1, integer("a number"), {}, {}};
  return named_operand(word("an operand"));
}

operand parser::read_operand() {
  operand first = simple_operand();
  if (!accept('|')) return first;
  operand pair{operand_kind::pair, -1, 0, {}, {}};
  pair.parts.push_back(std::move(first));
  pair.parts.push_back(simple_operand());
  return pair;
}

operand parser::list(char close, operand_kind kind) {
  operand out{kind, -1, 0, {}, {}};
  while (!accept(close)) {
    out.parts.push_back(read_operand());
    if (out.parts.size() > 4096) fail("a list is too long");
    if (!accept(',') && !now_.is(close)) fail("expected ',' in a list");
  }
  return out;
}

operand parser::address() {
  expect('[', "before an address");
  operand out{operand_kind::address, -1, 0, {}, {}};
  out.parts.push_back(simple_operand());
  operand& base = out.parts[0];
  if (base.kind != operand_kind::reg && base.kind != operand_kind::symbol &&
      base.kind != operand_kind::local && base.kind != operand_kind::integer)
    fail("an address must begin with a register, a variable or a number");
  out.value = base.kind == operand_kind::reg ? 0 : base.value;
  base.value = 0;
  if (accept('+'))
    out.value += integer("an offset");
  else if (now_.is('-'))
    out.value += integer("an offset");
  while (accept(',')) out.parts.push_back(simple_operand());  // tensor coordinates
  expect(']', "after an address");
  return out;
}

}  // namespace softgpu::ptx
