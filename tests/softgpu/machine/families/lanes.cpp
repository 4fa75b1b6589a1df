// The loops of lane_tools.
#include <bit>

#include "machine/families/lanewise.hpp"
#include "machine/families/vector_families.hpp"

namespace softgpu::SOFTGPU_ISA {
namespace {

void add_wide(u64* to, u64 const* base, u64 offset, lane_mask m) {
  if (m == all_lanes) {
    for (int i = 0; i < lanes_per_warp; ++i) to[i] = base[i] + offset;
    return;
  }
  u64 const lead = base[std::countr_zero(m)];
  for (int i = 0; i < lanes_per_warp; ++i) to[i] = ((m >> i & 1) != 0 ? base[i] : lead) + offset;
}

void add_narrow(u64* to, u32 const* base, u32 offset, lane_mask m) {
  if (m == all_lanes) {
    for (int i = 0; i < lanes_per_warp; ++i) to[i] = u32(base[i] + offset);
    return;
  }
  u32 const lead = base[std::countr_zero(m)];
  for (int i = 0; i < lanes_per_warp; ++i)
    to[i] = u32(((m >> i & 1) != 0 ? base[i] : lead) + offset);
}

address_summary summarize(u64 const* address, unsigned bytes) {
  address_summary s;
  u64 any = 0, differs = 0, low = ~u64{0}, high = 0;
  for (int i = 0; i < lanes_per_warp; ++i) {
    any |= address[i];
    differs |= address[i] ^ (address[0] + static_cast<u64>(i) * bytes);
    low = address[i] < low ? address[i] : low;
    high = address[i] > high ? address[i] : high;
  }
  s.any = any, s.low = low, s.high = high, s.consecutive = differs == 0;
  return s;
}

void offset(std::byte** to, u64 const* address, u64 by) {
  auto* const out = reinterpret_cast<u64*>(to);
  for (int i = 0; i < lanes_per_warp; ++i) out[i] = address[i] + by;
}

// Lanes that do not ask point where another one does: reading there is harmless.
void gather32(u32* row, std::byte* const* from, lane_mask m) {
  for (int i = 0; i < lanes_per_warp; ++i) {
    u32 const v = __atomic_load_n(reinterpret_cast<u32 const*>(from[i]), __ATOMIC_RELAXED);
    row[i] = (m >> i & 1) != 0 ? v : row[i];
  }
}
void gather64(u64* row, std::byte* const* from, lane_mask m) {
  for (int i = 0; i < lanes_per_warp; ++i) {
    u64 const v = __atomic_load_n(reinterpret_cast<u64 const*>(from[i]), __ATOMIC_RELAXED);
    row[i] = (m >> i & 1) != 0 ? v : row[i];
  }
}
void scatter32(std::byte* const* to, u32 const* row, lane_mask m) {
  if (m == all_lanes) {
    for (int i = 0; i < lanes_per_warp; ++i)
      __atomic_store_n(reinterpret_cast<u32*>(to[i]), row[i], __ATOMIC_RELAXED);
    return;
  }
  for (; m != 0; m &= m - 1) {
    int const i = std::countr_zero(m);
    __atomic_store_n(reinterpret_cast<u32*>(to[i]), row[i], __ATOMIC_RELAXED);
  }
}

}  // namespace

lane_tools tools() {
  return {&add_wide, &add_narrow, &summarize, &offset, &gather32, &gather64, &scatter32};
}

}  // namespace softgpu::SOFTGPU_ISA
