#include "machine/families/addresses.hpp"

#include <bit>

#include "machine/lane_tools.hpp"

namespace softgpu {

ptx::space space_of(builder const& b) {
  std::string_view const word =
      b.one_of({"global", "shared", "shared::cta", "shared::cluster", "local", "const", "param",
                "param::entry", "param::func"});
  if (word == "global") return ptx::space::global;
  if (word.starts_with("shared")) return ptx::space::shared;
  if (word == "local") return ptx::space::local;
  if (word == "const") return ptx::space::constant;
  if (word.starts_with("param")) return ptx::space::parameter;
  return ptx::space::generic;
}

ptx::space checked_space(ptx::space s, bool is_entry) {
  if (s == ptx::space::parameter) return is_entry ? ptx::space::global : ptx::space::local;
  return s;
}

void fill_addresses(access& a) {
  warp const& w = a.w;
  op const& o = a.o;
  auto const offset = static_cast<std::uint64_t>(o.value);
  switch (static_cast<addressing>(o.flags)) {
    case addressing::wide:
      return loops.add_wide(a.address, w.row<std::uint64_t>(o.a), offset, a.lanes);
    case addressing::narrow:
      return loops.add_narrow(a.address, w.row<std::uint32_t>(o.a),
                              static_cast<std::uint32_t>(offset), a.lanes);
    case addressing::absolute:
      for (int i = 0; i < lanes_per_warp; ++i) a.address[i] = offset;
      return;
    case addressing::frame:
      for (int i = 0; i < lanes_per_warp; ++i) a.address[i] = offset + w.here.local;
      return;
    case addressing::parameter:
      for (int i = 0; i < lanes_per_warp; ++i) a.address[i] = offset + w.block->launch->parameters;
      return;
  }
}

std::uint32_t pack(memory_traits t) {
  return static_cast<std::uint32_t>(t.space) | (t.strong ? 8u : 0u) | (t.sign ? 16u : 0u) |
         static_cast<std::uint32_t>(std::countr_zero(t.element_bytes)) << 5 | t.elements << 8 |
         t.register_bits << 12;
}

memory_traits unpack(std::uint32_t aux) {
  memory_traits t;
  t.space = static_cast<ptx::space>(aux & 7);
  t.strong = (aux & 8) != 0;
  t.sign = (aux & 16) != 0;
  t.element_bytes = 1u << (aux >> 5 & 7);
  t.elements = aux >> 8 & 15;
  t.register_bits = aux >> 12;
  return t;
}

}  // namespace softgpu
