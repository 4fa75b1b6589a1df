// The unit compiled for any processor, and main: two_units prints the digest of each instruction set
// that this machine has, from both units, and fails where two differ.
//   two_units            both units
//   two_units plain      this unit alone: what an older processor can run
#include <cstdio>
#include <cstring>

#include "two_units/digest.hpp"

std::uint64_t native_digest(shunt::isa which, int threads);

int main(int argc, char** argv) {
  bool const alone = argc > 1 && std::strcmp(argv[1], "plain") == 0;
  std::uint64_t const expected = digest_on({.threads = 1, .instructions = shunt::isa::portable});
  std::printf("%016llx\n", static_cast<unsigned long long>(expected));
  bool equal = true;
  for (shunt::isa const which :
       {shunt::isa::portable, shunt::isa::avx2, shunt::isa::avx512, shunt::isa::avx512_vnni,
        shunt::isa::avx512_bf16, shunt::isa::amx}) {
    for (int const threads : {1, 2, 7}) {
      shunt::on_host const on{.threads = threads, .instructions = which};
      if (shunt::instructions_of(on) != which) continue;  // this processor lacks it
      std::uint64_t const mine = digest_on(on);
      std::uint64_t const theirs = alone ? expected : native_digest(which, threads);
      if (mine == expected && theirs == expected) continue;
      equal = false;
      std::printf("%s, %d threads: the plain unit %016llx, the native one %016llx\n",
                  shunt::to_string(which), threads, static_cast<unsigned long long>(mine),
                  static_cast<unsigned long long>(theirs));
    }
  }
  return equal ? 0 : 1;
}
