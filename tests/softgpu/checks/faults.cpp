#include "checks/faults.hpp"

#include <bit>

#include "checks/report.hpp"

namespace softgpu {

bool fatal(fault what) {
  switch (what) {
    case fault::uninitialised:
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
  file_report(std::move(r));
  if (fatal(what)) {
    b.launch->failed = what;
    b.launch->has_failed = true;
    if (what == fault::assertion || what == fault::trap) b.launch->stop = true;
  }
}

void report_deadlock(block& b) {
  std::string where;
  op const* first = nullptr;
  warp* whose = nullptr;
  lane_mask lanes = 0;
  for (auto const& w : b.warps)
    for (int i = 0; i < w->group_count; ++i) {
      group const& g = w->groups[std::size_t(i)];
      std::size_t const back = g.state == state::at_barrier ? 1 : 0;
      op const& o = g.at.code->ops[g.at.pc - back];
      if (where.size() < 400)
        where += "; warp " + std::to_string(w->index) + ": " +
                 std::to_string(std::popcount(g.lanes)) + " lanes " +
                 (g.state == state::at_barrier ? "at barrier " + std::to_string(g.barrier)
                                               : std::string("at a warp instruction"));
      if (first == nullptr) {
        first = &o, whose = w.get(), lanes = g.lanes;
        w->here = g.at;
      }
    }
  if (first == nullptr) return;
  raise_fault(*whose, *first, lanes, fault::deadlock, "no thread of the block can go on" + where);
  b.launch->stop = true;
}

}  // namespace softgpu
