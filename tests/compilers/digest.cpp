// Prints the digest of the regions' functions, of routing, dispatch and combine; and, unless compiled with
// SHUNT_SHORT_DIGEST, that of everything. Both are equal on each instruction set of this machine.
#include <cstdio>

#include "two_units/digest.hpp"

namespace {

std::uint64_t short_digest_on(shunt::on_host const& on) {
  folder digest;
  lanes(on, digest);
  return modules(on, digest) ? digest.value : 0;
}

bool print(char const* name, std::uint64_t (*digest)(shunt::on_host const&)) {
  std::uint64_t const expected = digest({.threads = 1, .instructions = shunt::isa::portable});
  std::printf("%s %016llx\n", name, static_cast<unsigned long long>(expected));
  bool equal = expected != 0;
  for (shunt::isa const which :
       {shunt::isa::avx2, shunt::isa::avx512, shunt::isa::avx512_vnni, shunt::isa::avx512_bf16}) {
    shunt::on_host const on{.threads = 2, .instructions = which};
    if (shunt::instructions_of(on) != which) continue;  // this processor lacks it
    std::uint64_t const other = digest(on);
    if (other == expected) continue;
    equal = false;
    std::printf("%s on %s %016llx\n", name, shunt::to_string(which),
                static_cast<unsigned long long>(other));
  }
  return equal;
}

}  // namespace

int main() {
  bool equal = print("short", short_digest_on);
#if !defined(SHUNT_SHORT_DIGEST)
  equal = print("full", digest_on) && equal;
#endif
  return equal ? 0 : 1;
}
