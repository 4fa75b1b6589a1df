// Loads two shared libraries that both include Shunt, compiled with different options, into one
// process, and runs each after the other was loaded:
//   program local|global own|any LIBRARY LIBRARY
// Both must compute the same bits. `own`: each must launch its own kernels, as where an interpreter
// loads its modules (local), or one library exports its own functions alone; the software device
// tells by the instructions executed. `any`: the dynamic linker joins the inline functions of global
// libraries, here as in all C++, and the kernels that the joined one knows are right for both.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <vector>
#ifdef SHUNT_TEST_COUNTS
#include "softgpu/softgpu.hpp"
#endif

namespace {

constexpr int tokens = 37, hidden = 40, experts = 16, top_k = 3;

using function = int(float const*, float const*, float*, int, int, int, int);
/// Instructions of each kernel.
using trace = std::map<std::string, std::uint64_t>;
struct outcome {
  std::vector<float> y;
  trace executed;
};

std::vector<float> numbers(int count, std::uint32_t seed) {
  std::vector<float> v(static_cast<std::size_t>(count));
  for (float& x : v) {
    seed = seed * 1664525u + 1013904223u;
    x = static_cast<float>(seed >> 8) * 0x1p-23f - 1.0f;
  }
  return v;
}

bool run(function* f, outcome& to) {
  auto const logits = numbers(tokens * experts, 1), x = numbers(tokens * hidden, 2);
  to.y.assign(static_cast<std::size_t>(tokens * hidden), -7.0f);
  int const code = f(logits.data(), x.data(), to.y.data(), tokens, hidden, experts, top_k);
  if (code != 0) std::printf("FAILED: the library answered %d\n", code);
#ifdef SHUNT_TEST_COUNTS
  for (auto const& launch : softgpu::take_counts()) {
    to.executed[launch.kernel] += launch.warp_instructions;
  }
#endif
  return code == 0;
}

bool same(std::vector<float> const& a, std::vector<float> const& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

int main(int count, char** word) {
  if (count != 5) return 2;
  bool const local = std::strcmp(word[1], "local") == 0;
  [[maybe_unused]] bool const own = std::strcmp(word[2], "own") == 0;
  function* f[2] = {};
  outcome alone, both[2];
  for (int i : {0, 1}) {
    void* const library = dlopen(word[3 + i], RTLD_NOW | (local ? RTLD_LOCAL : RTLD_GLOBAL));
    void* const symbol = library ? dlsym(library, "run") : nullptr;
    if (!symbol) {
      std::printf("FAILED: %s\n", dlerror());
      return 1;
    }
    std::memcpy(&f[i], &symbol, sizeof symbol);
    if (i == 0 && !run(f[0], alone)) return 1;
  }
  // The second one first: were it the first one's kernels that it launches, now is when.
  if (!run(f[1], both[1]) || !run(f[0], both[0])) return 1;
  float largest = 0;
  for (float v : alone.y) largest = v > largest ? v : largest;
  if (!(largest > 0.1f && largest < 10.0f)) {
    std::printf("FAILED: the largest output is %g: this proves nothing\n", double(largest));
    return 1;
  }
  if (!same(alone.y, both[0].y) || !same(alone.y, both[1].y)) {
    std::printf("FAILED: the libraries' bits differ\n");
    return 1;
  }
#ifdef SHUNT_TEST_COUNTS
  bool const first_keeps_its_own = alone.executed == both[0].executed;
  bool const second_has_its_own = both[0].executed != both[1].executed;
  std::printf("%zu kernels; the second library's are %s\n", alone.executed.size(),
              second_has_its_own ? "its own" : "the first one's");
  if (alone.executed.empty() || !first_keeps_its_own || (own && !second_has_its_own)) {
    std::printf("FAILED: a library launched another one's kernels\n");
    return 1;
  }
#endif
  return 0;
}
