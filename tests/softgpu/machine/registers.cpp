#include "machine/registers.hpp"

namespace softgpu {

register_layout lay_out_registers(ptx::function const& f) {
  register_layout out;
  out.offsets.resize(f.registers.size());
  std::int32_t at = 0;
  for (std::size_t i = 0; i < f.registers.size(); ++i) {
    ptx::scalar const t = f.registers[i];
    if (t.kind == 'p') continue;
    out.offsets[i] = at;
    at += t.bits / 8 * 32 < 64 ? 64 : t.bits / 8 * 32;
  }
  for (std::size_t i = 0; i < f.registers.size(); ++i)
    if (f.registers[i].kind == 'p') out.offsets[i] = at, at += 4;
  out.bytes = (at + 63) / 64 * 64;
  return out;
}

}  // namespace softgpu
