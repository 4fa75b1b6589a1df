#pragma once
// How memory instructions find their space and their lanes' addresses.

#include "machine/builder.hpp"
#include "memory/access.hpp"

namespace softgpu {

/// The state space an instruction names (generic where it names none).
ptx::space space_of(builder const& b);

/// The space that bounds and checks a PTX space's addresses: entry parameters lie in global memory,
/// parameters of device functions in local memory. (Constants are checked as global memory is, but
/// not counted with it.)
ptx::space checked_space(ptx::space s, bool is_entry);

/// Fills the addresses of all 32 lanes from the op's addressing, a and value.
void fill_addresses(access& a);

/// The space and everything else of an access that a memory op carries in aux.
struct memory_traits {
  ptx::space space = ptx::space::generic;
  bool strong = false;
  unsigned element_bytes = 4, elements = 1, register_bits = 32;
  bool sign = false;
};
std::uint32_t pack(memory_traits t);
memory_traits unpack(std::uint32_t aux);

}  // namespace softgpu
