// PTX functions to ops.
#include "machine/builder.hpp"
#include "machine/families/control.hpp"
#include "machine/registers.hpp"

namespace softgpu {
namespace {

std::int64_t aligned(std::int64_t at, std::int64_t to) { return (at + to - 1) / to * to; }

/// Places what lives in a thread's local memory: .local variables, and the .param variables of a
/// device function and of the calls a function makes.
void lay_out_locals(code& c) {
  ptx::function const& f = *c.source;
  std::int64_t at = 0;
  c.local_offsets.assign(f.locals.size(), -1);
  for (std::size_t i = 0; i < f.locals.size(); ++i) {
    ptx::variable const& v = f.locals[i];
    bool const kernel_parameter = f.is_entry && i < f.parameters.size();
    if (v.space == ptx::space::shared || kernel_parameter) continue;
    at = aligned(at, v.alignment);
    c.local_offsets[i] = at;
    at += v.bytes;
  }
  c.local_bytes = aligned(at, 16);
}

}  // namespace

std::unique_ptr<code> decode(program const& p, kernel const& k, ptx::function const& f, int id) {
  auto c = std::make_unique<code>();
  c->source = &f;
  c->id = id;
  lay_out_locals(*c);
  register_layout layout = lay_out_registers(f);
  builder b(p, k, *c);
  b.begin(std::move(layout.offsets), layout.bytes);
  std::vector<std::int32_t> op_of;
  for (ptx::instruction const& i : f.body) {
    op_of.push_back(static_cast<std::int32_t>(c->ops.size()));
    b.in = &i;
    form const* const row = instruction_table::get().find(i);
    if (row == nullptr)
      b.fail(instruction_table::get().knows(i.opcode)
                 ? "this form of " + std::string(i.opcode) + " is not supported"
                 : "instruction " + std::string(i.opcode) + " is not supported");
    b.current_kind = row->kind;
    row->build(b);
  }
  op_of.push_back(static_cast<std::int32_t>(c->ops.size()));
  op end;  // running off a function's end is a fault
  end.full = end.some = run_off_the_end;
  end.guard = b.always();
  end.kind = kind::control;
  end.source = f.body.empty() ? -1 : static_cast<std::int32_t>(f.body.size() - 1);
  c->ops.push_back(end);
  b.finish(op_of);
  return c;
}

}  // namespace softgpu
