#include "machine/families/families.hpp"

#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace softgpu {
namespace {

bool has_avx512() {
#ifdef SOFTGPU_WITH_avx512
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
  return false;
#endif
}

bool has_avx2() {
#ifdef SOFTGPU_WITH_avx2
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
#else
  return false;
#endif
}

enum class instruction_set { baseline, avx2, avx512 };

instruction_set best() {
  return has_avx512() ? instruction_set::avx512
         : has_avx2() ? instruction_set::avx2
                      : instruction_set::baseline;
}

/// The best one that the machine has and this was built for, or the one SOFTGPU_ISA names; without
/// that one the program ends with 77, which CTest takes for a skipped test.
instruction_set chosen() {
  char const* const wanted = std::getenv("SOFTGPU_ISA");
  if (wanted == nullptr || *wanted == '\0') return best();
  constexpr std::string_view names[] = {"baseline", "avx2", "avx512"};
  for (int i = 0; i < 3; ++i) {
    if (names[i] != wanted) continue;
    if (i <= static_cast<int>(best())) return static_cast<instruction_set>(i);
    std::fprintf(stderr, "softgpu: there is no %s here, which SOFTGPU_ISA asks for\n", wanted);
    std::_Exit(77);
  }
  std::fprintf(stderr, "softgpu: SOFTGPU_ISA is %s: it may be baseline, avx2 or avx512\n", wanted);
  std::_Exit(2);
}

}  // namespace

#define SOFTGPU_ROWS(isa)                                    \
  {isa::integer(), isa::bits(), isa::real(), isa::compare(), \
   isa::convert(), isa::move(), isa::mma()}

std::vector<std::span<form const>> all_families() {
  using rows = std::vector<std::span<form const>>;
  rows out;
  switch (chosen()) {
#ifdef SOFTGPU_WITH_avx512
    case instruction_set::avx512: out = rows SOFTGPU_ROWS(avx512); break;
#endif
#ifdef SOFTGPU_WITH_avx2
    case instruction_set::avx2: out = rows SOFTGPU_ROWS(avx2); break;
#endif
    default: out = rows SOFTGPU_ROWS(baseline);
  }
  for (auto family : {carry_family(), rounding_family(), special_family(), half_family(),
                      narrow_family(), memory_family(), space_family(), atomic_family(),
                      control_family(), barrier_family(), warp_family(), matrix_family(),
                      async_family(), mbarrier_family(), wmma_family(), cluster_family()})
    out.push_back(family);
  return out;
}

#undef SOFTGPU_ROWS

static lane_tools chosen_tools() {
  switch (chosen()) {
#ifdef SOFTGPU_WITH_avx512
    case instruction_set::avx512: return avx512::tools();
#endif
#ifdef SOFTGPU_WITH_avx2
    case instruction_set::avx2: return avx2::tools();
#endif
    default: return baseline::tools();
  }
}

lane_tools const loops = chosen_tools();

}  // namespace softgpu
