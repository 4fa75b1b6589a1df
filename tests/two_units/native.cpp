// The unit compiled with -march=native.
#include "two_units/digest.hpp"

std::uint64_t native_digest(shunt::on_host const& on) { return digest_on(on); }
