#include "counters/counters.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <utility>

#include "counters/fields.hpp"

namespace softgpu {
namespace {

struct ledger {
  std::mutex mutex;
  std::vector<launch_counts> kept;
  // By kernel, for the end of the process; only where the environment asks.
  std::map<kernel const*, std::size_t> known;
  std::deque<std::pair<kernel const*, launch_counts>> total;
};
ledger& the_ledger() {
  static ledger* const l = new ledger;
  return *l;
}

constexpr std::size_t most_kept = 100000;

std::string environment(char const* name) {
  char const* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::vector<std::string> asked_architectures() {
  std::string const asked = environment("SOFTGPU_PTXAS");
  if (asked.empty() || asked == "0") return {};
  if (asked == "1") return {"sm_80", "sm_90a", "sm_100"};
  std::vector<std::string> out(1);
  for (char c : asked) {
    if (c == ',')
      out.emplace_back();
    else
      out.back() += c;
  }
  return out;
}

launch_counts counts_of(launch const& l, double seconds) {
  launch_counts c;
  c.kernel = l.kernel->name;
  c.grid[0] = l.grid.x, c.grid[1] = l.grid.y, c.grid[2] = l.grid.z;
  c.block[0] = l.block.x, c.block[1] = l.block.y, c.block[2] = l.block.z;
  c.static_shared = static_cast<std::uint64_t>(l.kernel->shared_static);
  c.dynamic_shared = static_cast<std::uint64_t>(l.dynamic_shared);
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
  auto const& [read, write, atomic] = l.counts.global;
  c.bytes_read = read.bytes, c.bytes_written = write.bytes, c.bytes_atomic = atomic.bytes;
  c.sectors_read = read.sectors, c.least_sectors_read = read.least;
  c.sectors_written = write.sectors, c.least_sectors_written = write.least;
  c.sectors_atomic = atomic.sectors, c.least_sectors_atomic = atomic.least;
  c.unique_bytes_read = read.fresh;
  c.unique_bytes_written = write.fresh + atomic.fresh;
  c.local_bytes = l.counts.local_bytes;
  c.shared_accesses = l.counts.shared_accesses;
  c.shared_wavefronts = l.counts.shared_wavefronts;
  c.bank_conflicts = l.counts.shared_wavefronts - l.counts.shared_least;
  c.seconds = seconds;
  return c;
}

}  // namespace

void counters::add(launch_counts& a, launch_counts const& b) {
  for (field const& f : fields) a.*f.value += b.*f.value;
  a.seconds += b.seconds;
}

void counters::record(launch const& l, double seconds) {
  static bool const total = !environment("SOFTGPU_COUNTS").empty();
  launch_counts c = counts_of(l, seconds);
  ledger& book = the_ledger();
  std::lock_guard const lock(book.mutex);
  if (total) {
    auto const [at, fresh] = book.known.try_emplace(l.kernel, book.total.size());
    if (fresh)
      book.total.emplace_back(l.kernel, c);
    else
      add(book.total[at->second].second, c);
  }
  if (book.kept.size() < most_kept) book.kept.push_back(std::move(c));
}

void counters::at_exit() {
  std::string where = environment("SOFTGPU_COUNTS");
  if (where.empty()) return;
  std::vector<summary> kernels;
  {
    std::lock_guard const lock(the_ledger().mutex);
    for (auto const& [kernel, counts] : the_ledger().total) {
      summary s{counts, {}};
      for (std::string const& a : asked_architectures())
        s.resources.push_back(ask_ptxas(*kernel, a));
      kernels.push_back(std::move(s));
    }
  }
  if (where == "table") {
    std::fputs(table(kernels).c_str(), stderr);
    return;
  }
  if (std::size_t const at = where.find("%p"); at != std::string::npos)
    where.replace(at, 2, std::to_string(getpid()));
  std::FILE* const file =
      where.size() > 5 && where.ends_with(".json") ? std::fopen(where.c_str(), "w") : nullptr;
  if (file == nullptr) {
    std::fprintf(stderr,
                 "softgpu: SOFTGPU_COUNTS is neither \"table\" nor a .json file that can be "
                 "written: %s\n",
                 where.c_str());
    return;
  }
  std::fputs(json(kernels).c_str(), file);
  std::fclose(file);
}

std::vector<launch_counts> take_counts() {
  std::lock_guard const lock(the_ledger().mutex);
  return std::exchange(the_ledger().kept, {});
}

std::vector<launch_counts> by_kernel(std::vector<launch_counts> const& launches) {
  std::vector<launch_counts> out;
  std::map<std::string, std::size_t> known;
  for (launch_counts const& c : launches) {
    auto const [at, fresh] = known.try_emplace(c.kernel, out.size());
    if (fresh)
      out.push_back(c);
    else
      counters::add(out[at->second], c);
  }
  return out;
}

settings& configure() {
  static settings s = [] {
    settings from_environment;
    from_environment.count_unique_bytes = !environment("SOFTGPU_COUNTS").empty();
    if (std::string const w = environment("SOFTGPU_WATCHDOG"); !w.empty())
      from_environment.watchdog_seconds = std::atof(w.c_str());
    return from_environment;
  }();
  return s;
}

}  // namespace softgpu
