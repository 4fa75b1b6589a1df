// libFuzzer's target for the PTX front end: any text is either read or refused with a sentence, and
// what was read holds together: names point into the text, indices into their lists.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "ptx/module.hpp"

namespace {

namespace ptx = softgpu::ptx;

void must(bool holds, char const* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

void check(ptx::operand const& o, ptx::function const& f, std::string_view text) {
  if (o.kind == ptx::operand_kind::reg)
    must(o.index >= 0 && std::size_t(o.index) < f.registers.size(), "a register that is not there");
  bool const inside =
      o.name.empty() ||
      (o.name.data() >= text.data() && o.name.data() + o.name.size() <= text.data() + text.size());
  must(inside, "a name outside the text");
  for (ptx::operand const& part : o.parts) check(part, f, text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  try {
    ptx::module const m = ptx::parse(std::string(reinterpret_cast<char const*>(data), size));
    for (ptx::function const& f : m.functions)
      for (ptx::instruction const& i : f.body) {
        must(!i.opcode.empty(), "an instruction without a name");
        must(i.guard < static_cast<int>(f.registers.size()), "a guard that is not there");
        for (ptx::operand const& o : i.operands) check(o, f, *m.text);
      }
    for (ptx::variable const& v : m.variables)
      must(v.bytes >= 0 && v.initial.size() <= std::size_t(v.bytes),
           "an initializer beyond its variable");
  } catch (ptx::error const& e) { must(e.what()[0] != 0, "refused without a sentence"); }
  return 0;
}
