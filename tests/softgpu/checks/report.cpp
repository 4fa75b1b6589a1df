#include "checks/report.hpp"

#include <cstdio>
#include <mutex>
#include <utility>

namespace softgpu {
namespace {

struct ledger {
  std::mutex mutex;
  std::vector<report> kept;
};
ledger& the_ledger() {
  static ledger* const l = new ledger;
  return *l;
}

constexpr std::size_t most_kept = 1000;

}  // namespace

char const* name_of(fault f) {
  switch (f) {
    case fault::out_of_bounds: return "out of bounds";
    case fault::use_after_free: return "use after free";
    case fault::misaligned: return "misaligned";
    case fault::read_only: return "read only";
    case fault::uninitialized: return "uninitialized";
    case fault::shared_race: return "shared race";
    case fault::divergent_barrier: return "divergent barrier";
    case fault::deadlock: return "deadlock";
    case fault::inactive_lane: return "inactive lane";
    case fault::assertion: return "assertion";
    case fault::trap: return "trap";
    case fault::stack_overflow: return "stack overflow";
    case fault::leak: return "leak";
    case fault::invalid_use: return "invalid use";
  }
  return "fault";
}

std::string report::to_string() const {
  std::string out = std::string("softgpu: ") + name_of(what) + ": " + sentence;
  if (count > 1) out += " (" + std::to_string(count) + " times)";
  auto const triple = [](std::uint32_t const* v) {
    return "(" + std::to_string(v[0]) + ", " + std::to_string(v[1]) + ", " + std::to_string(v[2]) +
           ")";
  };
  if (!kernel.empty())
    out += "\n  in " + kernel + ", block " + triple(block) + ", thread " + triple(thread);
  if (!file.empty()) out += "\n  at " + file + ":" + std::to_string(line);
  if (!inlined_file.empty())
    out += "\n  inlined at " + inlined_file + ":" + std::to_string(inlined_line);
  if (ptx_line > 0) out += "\n  PTX line " + std::to_string(ptx_line) + ": " + ptx;
  return out;
}

void file_report(report r) {
  ledger& l = the_ledger();
  std::lock_guard const lock(l.mutex);
  for (report& known : l.kept)
    if (known.what == r.what && known.ptx_line == r.ptx_line && known.kernel == r.kernel &&
        r.ptx_line != 0) {
      ++known.count;
      return;
    }
  if (configure().print_reports) std::fprintf(stderr, "%s\n", r.to_string().c_str());
  if (l.kept.size() < most_kept) l.kept.push_back(std::move(r));
}

std::vector<report> take_reports() {
  ledger& l = the_ledger();
  std::lock_guard const lock(l.mutex);
  return std::exchange(l.kept, {});
}

}  // namespace softgpu
