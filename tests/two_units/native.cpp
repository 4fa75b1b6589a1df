// The unit compiled with -march=native.
#include "two_units/digest.hpp"

std::uint64_t native_digest(shunt::isa which, int threads) {
  return digest_on({.threads = threads, .instructions = which});
}
