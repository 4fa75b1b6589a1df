#include "checks/faults.hpp"

#include <bit>
#include <chrono>
#include <cstdio>

#include "checks/known.hpp"
#include "checks/report.hpp"

namespace softgpu {

bool fatal(fault what) {
  switch (what) {
    case fault::uninitialized:
    case fault::shared_race:
    case fault::inactive_lane:
    case fault::divergent_barrier:
    case fault::leak: return false;
    default: return true;
  }
}

void raise_fault(warp& w, op const& o, lane_mask lanes, fault what, std::string const& sentence) {
  report r;
  r.what = what;
  r.sentence = sentence;
  block const& b = *w.block;
  r.kernel = b.launch->kernel->name;
  dim const thread = b.thread(w, lanes == 0 ? 0 : std::countr_zero(lanes));
  r.block[0] = b.index.x, r.block[1] = b.index.y, r.block[2] = b.index.z;
  r.thread[0] = thread.x, r.thread[1] = thread.y, r.thread[2] = thread.z;
  ptx::function const& f = *w.here.code->source;
  if (o.source >= 0) {
    ptx::instruction const& i = f.body[std::size_t(o.source)];
    r.ptx_line = i.line;
    r.ptx = std::string(i.text);
    if (i.location >= 0) {
      ptx::module const& m = *b.launch->kernel->module;
      ptx::location const& at = m.locations[std::size_t(i.location)];
      auto const file = [&](int index) {
        auto const found = m.files.find(index);
        return found == m.files.end() ? std::string() : found->second;
      };
      r.file = file(at.file);
      r.line = at.line;
      // Each .loc names one step; the step it was inlined at has its own .loc before it.
      ptx::location outer = at;
      for (int k = i.location - 1; k >= 0 && outer.inlined_file != 0; --k) {
        ptx::location const& before = m.locations[std::size_t(k)];
        if (before.file == outer.inlined_file && before.line == outer.inlined_line) outer = before;
      }
      if (at.inlined_file != 0) {
        bool const known = outer.inlined_file == 0;
        r.inlined_file = file(known ? outer.file : outer.inlined_file);
        r.inlined_line = known ? outer.line : outer.inlined_line;
      }
    }
  }
  if (known_harmless(r)) return;
  file_report(std::move(r));
  if (fatal(what)) {
    b.launch->failed = what;
    b.launch->has_failed = true;
    if (what == fault::assertion || what == fault::trap) b.launch->stop = true;
  }
}

namespace {

/// Where a group that waits or was left stands: its op.
op const& standing(group const& g) {
  std::size_t const back = g.state == state::at_barrier || g.anywhere ? 1 : 0;
  return g.at.code->ops[g.at.pc - back];
}

std::string why(group const& g) {
  switch (g.state) {
    case state::at_barrier: return "wait at barrier " + std::to_string(g.barrier);
    case state::meeting: return "wait for the others at a warp instruction";
    case state::runnable: break;
  }
  return "are";
}

/// Source and PTX line of an op.
std::string place_of(block const& b, code const& c, op const& o) {
  if (o.source < 0) return "";
  ptx::instruction const& i = c.source->body[std::size_t(o.source)];
  std::string out = " at ";
  if (i.location >= 0) {
    ptx::module const& m = *b.launch->kernel->module;
    ptx::location const& at = m.locations[std::size_t(i.location)];
    if (auto const file = m.files.find(at.file); file != m.files.end())
      out +=
          file->second.substr(file->second.rfind('/') + 1) + ":" + std::to_string(at.line) + ", ";
  }
  return out + "PTX line " + std::to_string(i.line);
}

/// Reports that a block does not go on, with where each of its warps stands; ends the launch.
void report_standstill(block& b, std::string const& sentence) {
  constexpr std::size_t longest = 1500;
  std::string where;
  group const* first = nullptr;
  warp* whose = nullptr;
  std::size_t untold = 0;
  for (auto const& w : b.warps)
    for (int i = 0; i < w->group_count; ++i) {
      group const& g = w->groups[std::size_t(i)];
      if (first == nullptr) first = &g, whose = w.get();
      if (where.size() < longest)
        where += "; warp " + std::to_string(w->index) + ": " +
                 std::to_string(std::popcount(g.lanes)) + " lanes " + why(g) +
                 place_of(b, *g.at.code, standing(g));
      else
        ++untold;
    }
  if (untold != 0) where += "; and " + std::to_string(untold) + " more";
  if (first != nullptr) {
    whose->here = first->at;
    raise_fault(*whose, standing(*first), first->lanes, fault::deadlock, sentence + where);
  }
  b.launch->stop = true;
}

std::int64_t now() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

}  // namespace

void report_deadlock(block& b) { report_standstill(b, "no thread of the block can go on"); }

void note_progress(launch& l) { l.alive_at.store(now(), std::memory_order_relaxed); }

bool ended_as_hung(block& b) {
  launch& l = *b.launch;
  double const limit = configure().watchdog_seconds;
  std::chrono::steady_clock::duration const quiet(now() -
                                                  l.alive_at.load(std::memory_order_relaxed));
  if (limit <= 0 || std::chrono::duration<double>(quiet).count() < limit) return false;
  if (l.stop.exchange(true)) return true;  // another host thread has reported it
  char seconds[32];
  std::snprintf(seconds, sizeof seconds, "%.3g", limit);
  report_standstill(b, std::string("no thread of the launch has exited for ") + seconds +
                           " seconds (settings::watchdog_seconds): it seems to hang");
  return true;
}

}  // namespace softgpu
