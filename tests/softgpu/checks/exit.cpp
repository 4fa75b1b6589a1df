#include "checks/exit.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "checks/report.hpp"
#include "counters/counters.hpp"
#include "memory/arena.hpp"

namespace softgpu {
namespace {

void at_exit() {
  counters::at_exit();
  for (allocation const& a : arena::live()) {
    if (a.internal) continue;
    report r;
    r.what = fault::leak;
    char place[32];
    std::snprintf(place, sizeof place, "0x%llx", static_cast<unsigned long long>(a.address));
    r.sentence =
        std::to_string(a.bytes) + " bytes of " + a.what + " at " + place + " are never freed";
    file_report(std::move(r));
  }
  std::size_t const left = take_reports().size();
  if (left == 0) return;
  std::fprintf(stderr, "softgpu: %zu reports were left at exit\n", left);
  std::fflush(nullptr);
  _exit(86);
}

}  // namespace

void watch_exit() {
  static int const once = std::atexit(at_exit);
  static_cast<void>(once);
}

}  // namespace softgpu
