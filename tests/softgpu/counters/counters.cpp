#include "counters/counters.hpp"

#include <cstdlib>
#include <mutex>
#include <utility>

namespace softgpu {
namespace {
struct ledger {
  std::mutex mutex;
  std::vector<launch_counts> kept;
};
ledger& the_ledger() {
  static ledger* const l = new ledger;
  return *l;
}
}  // namespace

void counters::record(launch const& l, double seconds) {
  launch_counts c;
  c.kernel = l.kernel->name;
  for (auto const& n : l.executed) c.warp_instructions += n;
  for (auto const& n : l.executed_lanes) c.lane_instructions += n;
  auto const lanes = [&](kind k) { return l.executed_lanes[static_cast<int>(k)].load(); };
  c.integer = lanes(kind::integer);
  c.real = lanes(kind::real);
  c.special = lanes(kind::special);
  c.mma = lanes(kind::mma);
  c.memory = lanes(kind::memory);
  c.control = lanes(kind::control);
  c.convert = lanes(kind::convert);
  c.move = lanes(kind::move);
  c.divergent_branches = l.divergent_branches;
  c.barriers = l.barriers;
  c.seconds = seconds;
  std::lock_guard const lock(the_ledger().mutex);
  if (the_ledger().kept.size() < 100000) the_ledger().kept.push_back(std::move(c));
}

std::vector<launch_counts> take_counts() {
  std::lock_guard const lock(the_ledger().mutex);
  return std::exchange(the_ledger().kept, {});
}

settings& configure() {
  static settings s = [] {
    settings first;
    char const* const eager = std::getenv("SOFTGPU_EAGER");
    first.eager = eager != nullptr && *eager != '\0' && *eager != '0';
    return first;
  }();
  return s;
}

}  // namespace softgpu
