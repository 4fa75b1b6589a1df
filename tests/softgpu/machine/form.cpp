#include "machine/form.hpp"

#include <algorithm>

#include "machine/families/families.hpp"

namespace softgpu {

parsed_form::parsed_form(form const& f) : row(&f) {
  std::string_view rest = f.syntax;
  std::size_t const blank = rest.find(' ');
  std::string_view head = rest.substr(0, blank);
  std::string_view const operands =
      blank == std::string_view::npos ? std::string_view{} : rest.substr(blank + 1);
  std::size_t const name_end = head.find_first_of(".{");
  opcode = head.substr(0, name_end);
  head = name_end == std::string_view::npos ? std::string_view{} : head.substr(name_end);
  while (!head.empty()) {
    slot s;
    if (head[0] == '{') s.optional = true, head.remove_prefix(1);
    head.remove_prefix(1);  // the dot
    std::size_t const end = std::min(head.find_first_of(".{}"), head.size());
    std::string_view word = head.substr(0, end);
    while (true) {
      std::size_t const bar = word.find('|');
      s.alternatives.push_back(word.substr(0, bar));
      if (bar == std::string_view::npos) break;
      word.remove_prefix(bar + 1);
    }
    head.remove_prefix(end);
    if (!head.empty() && head[0] == '}') head.remove_prefix(1);
    slots.push_back(std::move(s));
  }
  if (operands.empty()) return;
  int depth = 0;
  least_operands = most_operands = operands[0] == '{' ? 0 : 1;
  for (std::size_t i = 0; i < operands.size(); ++i) {
    depth += operands[i] == '{' ? 1 : operands[i] == '}' ? -1 : 0;
    if (i == 0 && operands[0] == '{') ++most_operands;
    if (operands[i] != ',') continue;
    ++most_operands;
    if (depth == 0) ++least_operands;
  }
}

bool parsed_form::accepts(ptx::instruction const& i) const {
  if (i.operands.size() < least_operands || i.operands.size() > most_operands) return false;
  std::size_t at = 0;
  for (slot const& s : slots) {
    bool const fits = at < i.modifiers.size() &&
                      std::find(s.alternatives.begin(), s.alternatives.end(), i.modifiers[at]) !=
                          s.alternatives.end();
    if (fits)
      ++at;
    else if (!s.optional)
      return false;
  }
  return at == i.modifiers.size();
}

instruction_table const& instruction_table::get() {
  static instruction_table const table;
  return table;
}

instruction_table::instruction_table() {
  for (std::span<form const> rows : all_families()) add(rows);
}

void instruction_table::add(std::span<form const> rows) {
  for (form const& f : rows) {
    parsed_form parsed(f);
    rows_[parsed.opcode].push_back(std::move(parsed));
  }
}

form const* instruction_table::find(ptx::instruction const& i) const {
  auto const found = rows_.find(i.opcode);
  if (found == rows_.end()) return nullptr;
  for (parsed_form const& f : found->second)
    if (f.accepts(i)) return f.row;
  return nullptr;
}

std::size_t instruction_table::size() const {
  std::size_t n = 0;
  for (auto const& [opcode, rows] : rows_) n += rows.size();
  return n;
}

}  // namespace softgpu
