// Liveness over basic blocks, then one linear scan. A register's interval is the hull of where it
// is live, ends included, so a destination never shares a row with a source of the same
// instruction unless it is the same register: the lane loops may then assume either all or nothing.
#include "machine/registers.hpp"

#include <algorithm>
#include <cstdint>
#include <map>

namespace softgpu {
namespace {

using bits = std::vector<std::uint64_t>;

struct touched {
  std::vector<int> reads, writes;
};

void read(ptx::operand const& o, std::vector<int>& out) {
  if (o.index >= 0 && (o.kind == ptx::operand_kind::reg || o.kind == ptx::operand_kind::negated))
    out.push_back(o.index);
  for (ptx::operand const& part : o.parts) read(part, out);
}

/// What an instruction reads and writes. A write that may not happen (guarded) counts as a read
/// too. Stores and the like have no destination; where in doubt all operands are read and written.
touched operands_of(ptx::instruction const& i) {
  touched t;
  static constexpr std::string_view no_result[] = {
      "st",     "red",   "bra",       "brx", "call",     "ret",      "exit", "trap",
      "membar", "fence", "nanosleep", "cp",  "prefetch", "stmatrix", "wmma"};
  bool const pure_read =
      std::find(std::begin(no_result), std::end(no_result), i.opcode) != std::end(no_result);
  for (std::size_t k = 0; k < i.operands.size(); ++k) {
    ptx::operand const& o = i.operands[k];
    read(o, t.reads);
    if (k == 0 && o.kind != ptx::operand_kind::address && !(pure_read && i.opcode != "wmma")) {
      std::vector<int> results;
      read(o, results);
      // A plain overwrite is no read: only then does the register's life begin here.
      bool const whole =
          i.guard < 0 && i.opcode != "wmma" && i.opcode != "bar" && i.opcode != "barrier";
      if (whole) t.reads.clear();
      t.writes = std::move(results);
    }
  }
  if (i.guard >= 0) t.reads.push_back(i.guard);
  return t;
}

struct basic_block {
  int begin = 0, end = 0;
  std::vector<int> next;
  bits in, out, defined, used;
};

std::vector<basic_block> blocks_of(ptx::function const& f) {
  auto const n = static_cast<int>(f.body.size());
  std::vector<char> leader(static_cast<std::size_t>(n) + 1, 0);
  leader[0] = 1;
  for (auto const& [name, at] : f.labels) leader[std::size_t(at)] = 1;
  for (int i = 0; i < n; ++i) {
    std::string_view const o = f.body[std::size_t(i)].opcode;
    if (o == "bra" || o == "brx" || o == "ret" || o == "exit" || o == "trap")
      leader[std::size_t(i) + 1] = 1;
  }
  std::vector<basic_block> out;
  std::vector<int> block_of(std::size_t(n) + 1, -1);
  for (int i = 0; i < n; ++i) {
    if (leader[std::size_t(i)]) out.push_back({i, i, {}, {}, {}, {}, {}});
    out.back().end = i + 1;
    block_of[std::size_t(i)] = static_cast<int>(out.size()) - 1;
  }
  auto const target = [&](basic_block& b, std::string_view label) {
    auto const found = f.labels.find(label);
    if (found != f.labels.end() && found->second < n)
      b.next.push_back(block_of[std::size_t(found->second)]);
  };
  for (basic_block& b : out) {
    ptx::instruction const& last = f.body[std::size_t(b.end) - 1];
    bool falls = true;
    if (last.opcode == "bra") {
      target(b, last.operands.empty() ? std::string_view{} : last.operands[0].name);
      falls = last.guard >= 0;
    } else if (last.opcode == "brx") {
      if (last.operands.size() > 1)
        if (auto const t = f.branch_targets.find(last.operands[1].name);
            t != f.branch_targets.end())
          for (std::string_view label : t->second) target(b, label);
      falls = last.guard >= 0;
    } else if (last.opcode == "ret" || last.opcode == "exit") {
      falls = last.guard >= 0;
    }
    if (falls && b.end < n) b.next.push_back(block_of[std::size_t(b.end)]);
  }
  return out;
}

void set(bits& b, int i) { b[std::size_t(i) / 64] |= std::uint64_t{1} << (i % 64); }
bool test(bits const& b, int i) { return (b[std::size_t(i) / 64] >> (i % 64) & 1) != 0; }

struct interval {
  int begin = INT32_MAX, end = -1;
  void include(int at) {
    begin = std::min(begin, at);
    end = std::max(end, at);
  }
};

std::vector<interval> intervals_of(ptx::function const& f) {
  std::size_t const words = f.registers.size() / 64 + 1;
  std::vector<basic_block> blocks = blocks_of(f);
  std::vector<touched> touches;
  touches.reserve(f.body.size());
  for (ptx::instruction const& i : f.body) touches.push_back(operands_of(i));
  for (basic_block& b : blocks) {
    b.in.assign(words, 0), b.out.assign(words, 0), b.defined.assign(words, 0),
        b.used.assign(words, 0);
    for (int i = b.begin; i < b.end; ++i) {
      for (int r : touches[std::size_t(i)].reads)
        if (!test(b.defined, r)) set(b.used, r);
      for (int r : touches[std::size_t(i)].writes)
        if (f.body[std::size_t(i)].guard < 0)
          set(b.defined, r);
        else if (!test(b.defined, r))
          set(b.used, r);
    }
  }
  for (bool changed = true; changed;) {
    changed = false;
    for (auto b = blocks.rbegin(); b != blocks.rend(); ++b) {
      for (std::size_t w = 0; w < words; ++w) {
        std::uint64_t out = 0;
        for (int next : b->next) out |= blocks[std::size_t(next)].in[w];
        std::uint64_t const in = b->used[w] | (out & ~b->defined[w]);
        changed |= in != b->in[w];
        b->out[w] = out, b->in[w] = in;
      }
    }
  }
  std::vector<interval> out(f.registers.size());
  for (basic_block const& b : blocks) {
    for (std::size_t w = 0; w < words; ++w)
      for (std::uint64_t live = b.in[w] | b.out[w]; live != 0; live &= live - 1) {
        std::size_t const r = w * 64 + static_cast<std::size_t>(__builtin_ctzll(live));
        if (b.in[w] >> (r % 64) & 1) out[r].include(b.begin);
        if (b.out[w] >> (r % 64) & 1) out[r].include(b.end);
      }
    for (int i = b.begin; i < b.end; ++i) {
      for (int r : touches[std::size_t(i)].reads) out[std::size_t(r)].include(i);
      for (int r : touches[std::size_t(i)].writes) out[std::size_t(r)].include(i);
    }
  }
  return out;
}

/// Hands out rows of one width, reusing those whose interval has ended.
void place(ptx::function const& f, std::vector<interval> const& live, std::int32_t row_bytes,
           std::int32_t& at, std::vector<std::int32_t>& offsets, auto&& is_wanted) {
  std::vector<int> order;
  for (std::size_t i = 0; i < f.registers.size(); ++i)
    if (live[i].end >= 0 && is_wanted(f.registers[i])) order.push_back(static_cast<int>(i));
  std::sort(order.begin(), order.end(),
            [&](int a, int b) { return live[std::size_t(a)].begin < live[std::size_t(b)].begin; });
  std::multimap<int, std::int32_t> busy;  // end → offset
  std::vector<std::int32_t> unused;
  for (int r : order) {
    while (!busy.empty() && busy.begin()->first < live[std::size_t(r)].begin) {
      unused.push_back(busy.begin()->second);
      busy.erase(busy.begin());
    }
    if (unused.empty()) unused.push_back(at), at += row_bytes;
    offsets[std::size_t(r)] = unused.back();
    unused.pop_back();
    busy.emplace(live[std::size_t(r)].end, offsets[std::size_t(r)]);
  }
}

}  // namespace

register_layout lay_out_registers(ptx::function const& f) {
  register_layout out;
  out.offsets.assign(f.registers.size(), 0);
  if (f.body.empty()) return out;
  std::vector<interval> const live = intervals_of(f);
  std::int32_t at = 0;
  for (int const width : {128, 64, 32, 16}) {
    std::int32_t const row = width / 8 * 32;
    place(f, live, row, at, out.offsets, [&](ptx::scalar t) {
      return t.kind != 'p' && (t.bits == width || (width == 16 && t.bits == 8));
    });
  }
  place(f, live, 4, at, out.offsets, [](ptx::scalar t) { return t.kind == 'p'; });
  out.bytes = (at + 63) / 64 * 64;
  return out;
}

}  // namespace softgpu
