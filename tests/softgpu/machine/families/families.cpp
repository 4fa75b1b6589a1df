#include "machine/families/families.hpp"

namespace softgpu {
namespace {

bool has_avx512() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

bool has_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
#else
  return false;
#endif
}

}  // namespace

#define SOFTGPU_ROWS(isa)                                                                  \
  {                                                                                        \
    isa::integer(), isa::bits(), isa::real(), isa::compare(), isa::convert(), isa::move(), \
        isa::mma()                                                                         \
  }

std::vector<std::span<form const>> all_families() {
  using rows = std::vector<std::span<form const>>;
  rows out = has_avx512() ? rows SOFTGPU_ROWS(avx512)
             : has_avx2() ? rows SOFTGPU_ROWS(avx2)
                          : rows SOFTGPU_ROWS(baseline);
  for (auto family : {rounding_family(), special_family(), half_family(), narrow_family(),
                      memory_family(), atomic_family(), control_family(), barrier_family(),
                      warp_family(), matrix_family(), async_family()})
    out.push_back(family);
  return out;
}

#undef SOFTGPU_ROWS

lane_tools const loops = has_avx512() ? avx512::tools()
                         : has_avx2() ? avx2::tools()
                                      : baseline::tools();

}  // namespace softgpu
