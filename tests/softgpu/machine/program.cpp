#include "machine/program.hpp"

#include <cxxabi.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <set>

#include "memory/arena.hpp"

namespace softgpu {
namespace {

std::int64_t aligned(std::int64_t at, std::int64_t to) { return (at + to - 1) / to * to; }

void mentions(ptx::operand const& o, std::set<std::string_view>& names) {
  if (o.kind == ptx::operand_kind::symbol) names.insert(o.name);
  for (ptx::operand const& part : o.parts) mentions(part, names);
}

}  // namespace

std::string demangle(std::string_view name) {
  std::string const text(name);
  int status = 1;
  char* const plain = abi::__cxa_demangle(text.c_str(), nullptr, nullptr, &status);
  if (status != 0) return text;
  std::string out(plain);
  std::free(plain);
  return out;
}

program::program(std::string text) : module_(ptx::parse(std::move(text))) {
  for (std::size_t i = 0; i < module_.functions.size(); ++i) {
    ptx::function const& f = module_.functions[i];
    auto const [known, fresh] = function_ids_.try_emplace(f.name, static_cast<int>(i));
    if (!fresh && f.has_body) known->second = static_cast<int>(i);  // a declaration came first
  }
  place_variables();
}

void program::place_variables() {
  for (ptx::variable const& v : module_.variables) {
    if (v.space == ptx::space::shared || v.is_extern) continue;
    allocation kind;
    kind.internal = true;
    kind.constant = v.space == ptx::space::constant;
    kind.host_visible = kind.managed = v.is_managed;
    kind.what = "a variable";
    auto const bytes = static_cast<std::uint64_t>(std::max<std::int64_t>(v.bytes, 1));
    std::uint64_t const at = arena::allocate(bytes, kind);
    if (at == 0) throw ptx::error(v.line, "no device memory left for " + std::string(v.name));
    std::memset(map::host(at), 0, bytes);
    std::copy(v.initial.begin(), v.initial.end(), reinterpret_cast<std::uint8_t*>(map::host(at)));
    arena::mark_written(at, bytes);
    addresses_[v.name] = at;
  }
  for (ptx::variable const& v : module_.variables) relocate(v);
}

void program::relocate(ptx::variable const& v) {
  for (ptx::relocation const& r : v.relocations) {
    std::uint64_t const target = symbol_address(r.symbol);
    if (target == 0) throw ptx::error(v.line, "unknown symbol " + std::string(r.symbol));
    std::uint64_t const value = (target + static_cast<std::uint64_t>(r.addend)) >> r.shift;
    std::memcpy(map::host(addresses_.at(v.name)) + r.offset, &value, std::size_t(r.size));
  }
}

std::uint64_t program::symbol_address(std::string_view name) const {
  if (std::uint64_t const at = variable(name); at != 0) return at;
  int const id = function_id(name);
  return id < 0 ? 0 : function_handle(id);
}

std::uint64_t program::variable(std::string_view name) const {
  auto const found = addresses_.find(name);
  return found == addresses_.end() ? 0 : found->second;
}

int program::function_id(std::string_view name) const {
  auto const found = function_ids_.find(name);
  return found == function_ids_.end() ? -1 : found->second;
}

/// Shared variables of the entry and of all it may call, static ones first.
void program::lay_out_shared(kernel& k) {
  std::set<std::string_view> names;
  for (auto const& [id, unused] : k.functions)
    for (ptx::instruction const& i : module_.functions[std::size_t(id)].body)
      for (ptx::operand const& o : i.operands) mentions(o, names);
  std::vector<ptx::variable const*> used;
  for (ptx::variable const& v : module_.variables)
    if (v.space == ptx::space::shared && names.count(v.name) != 0) used.push_back(&v);
  for (auto const& [id, unused] : k.functions)
    for (ptx::variable const& v : module_.functions[std::size_t(id)].locals)
      if (v.space == ptx::space::shared) used.push_back(&v);
  std::int64_t at = map::first_shared, dynamic_alignment = 16;
  for (ptx::variable const* v : used) {
    if (v->is_extern || v->bytes == 0) {
      dynamic_alignment = std::max<std::int64_t>(dynamic_alignment, v->alignment);
      continue;
    }
    at = aligned(at, v->alignment);
    k.shared_offsets[v->name] = at;
    at += v->bytes;
  }
  k.shared_static = at - map::first_shared;
  k.shared_dynamic_at = aligned(at, dynamic_alignment);
  for (ptx::variable const* v : used)
    if (v->is_extern || v->bytes == 0) k.shared_offsets[v->name] = k.shared_dynamic_at;
}

kernel const* program::find_kernel(std::string_view name) {
  std::lock_guard const lock(mutex_);
  if (auto const found = kernels_.find(name); found != kernels_.end()) return found->second.get();
  int const entry = function_id(name);
  if (entry < 0 || !module_.functions[std::size_t(entry)].is_entry) return nullptr;
  auto k = std::make_unique<kernel>();
  k->module = &module_;
  k->source = &module_.functions[std::size_t(entry)];
  k->name = demangle(name);
  // All functions it may reach: every mention of a function may be a call of it.
  std::vector<int> open{entry};
  for (ptx::variable const& v : module_.variables)
    for (ptx::relocation const& r : v.relocations)
      if (int const id = function_id(r.symbol); id >= 0) open.push_back(id);
  while (!open.empty()) {
    int const id = open.back();
    open.pop_back();
    ptx::function const& f = module_.functions[std::size_t(id)];
    if (!f.has_body || !k->functions.try_emplace(id).second) continue;
    std::set<std::string_view> names;
    for (ptx::instruction const& i : f.body)
      for (ptx::operand const& o : i.operands) mentions(o, names);
    for (std::string_view n : names)
      if (int const next = function_id(n); next >= 0) open.push_back(next);
  }
  for (ptx::variable const& p : k->source->parameters) {
    k->parameter_bytes = aligned(k->parameter_bytes, p.alignment);
    k->parameter_offsets.push_back(k->parameter_bytes);
    k->parameter_bytes += p.bytes;
  }
  lay_out_shared(*k);
  std::int64_t most_local = 0, all_local = 0;
  for (auto& [id, c] : k->functions) {
    c = decode(*this, *k, module_.functions[std::size_t(id)], id);
    most_local = std::max(most_local, c->local_bytes);
    all_local += c->local_bytes;
  }
  k->entry = k->functions.at(entry).get();
  // Without calls a thread needs the entry's; with them room for some recursion is added.
  k->local_bytes = k->functions.size() == 1 ? all_local : aligned(all_local + 64 * most_local, 16);
  k->local_bytes = std::max<std::int64_t>(k->local_bytes, 16);
  for (char const* limit : {"maxntid", "reqntid"})
    if (auto const d = k->source->directives.find(limit); d != k->source->directives.end()) {
      std::int64_t product = 1;
      for (std::int64_t n : d->second) product *= n;
      k->max_threads = static_cast<int>(product);
    }
  return kernels_.emplace(k->source->name, std::move(k)).first->second.get();
}

}  // namespace softgpu
