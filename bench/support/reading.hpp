#pragma once
#include <cstddef>
#include <cstdint>

namespace bench {

/// All of `count` words folded into one, `Parts` parts of them side by side: some processors read several
/// streams faster than one.
template <std::size_t Parts>
std::uint64_t read_in_parts(std::uint64_t const* data, std::size_t count) {
  using two = std::uint64_t __attribute__((vector_size(16)));  // of every processor, in registers
  std::size_t const part = count / Parts;
  two sum[4] = {};
  for (std::size_t i = 0; i + 16 <= part; i += 16) {
#pragma GCC unroll 8
    for (std::size_t p = 0; p < Parts; ++p) {
#pragma GCC unroll 8
      for (std::size_t j = 0; j < 8; ++j) {
        two v;
        __builtin_memcpy(&v, data + p * part + i + 2 * j, sizeof v);
        sum[j % 4] |= v;
      }
    }
  }
  two const all = (sum[0] | sum[1]) | (sum[2] | sum[3]);
  return all[0] | all[1];
}

}  // namespace bench
