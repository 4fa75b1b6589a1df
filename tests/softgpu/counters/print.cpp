// Counts as a table and as JSON.
#include <algorithm>
#include <cstdio>

#include "counters/counters.hpp"
#include "counters/fields.hpp"

namespace softgpu {
namespace counters {
namespace {

/// A count in at most six characters: 1234, 56.7k, 8.90G.
std::string brief(std::uint64_t n) {
  if (n < 10000) return std::to_string(n);
  char const* unit = "kMGTPE";
  auto v = static_cast<double>(n) / 1000;
  for (; v >= 999.5; v /= 1000) ++unit;
  char text[32];
  std::snprintf(text, sizeof text, "%.*f%c", v < 10 ? 2 : v < 100 ? 1 : 0, v, *unit);
  return text;
}

/// How much of `of`; "-" where there is none of it.
std::string ratio(std::uint64_t n, std::uint64_t of) {
  if (of == 0) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", static_cast<double>(n) / static_cast<double>(of));
  return text;
}

std::string percent(std::uint64_t n, std::uint64_t of) {
  if (n == 0 || of == 0) return "-";
  return std::to_string((n * 100 + of / 2) / of);
}

using line = std::vector<std::string>;

std::string spills(kernel_resources const& r) {
  if (!r.error.empty()) return "?";
  return std::to_string(r.registers) + "/" +
         std::to_string(r.spill_store_bytes + r.spill_load_bytes) + "/" +
         std::to_string(r.shared_bytes);
}

line header(std::vector<kernel_resources> const& resources) {
  line out{"launch", "warp-i", "lanes", "int%",   "real%", "spec%",  "mma%",  "mem%",
           "ctl%",   "cvt%",   "mov%",  "diverg", "bar",   "rd-sec", "x",     "wr-sec",
           "x",      "atom",   "dram",  "x",      "local", "smem",   "confl", "sec"};
  for (kernel_resources const& r : resources) out.push_back(r.architecture);
  return out;
}

line values(summary const& s) {
  launch_counts const& c = s.counts;
  auto const share = [&](std::uint64_t n) { return percent(n, c.lane_instructions); };
  char seconds[32];
  std::snprintf(seconds, sizeof seconds, "%.3f", c.seconds);
  line out{brief(c.launches),
           brief(c.warp_instructions),
           ratio(c.lane_instructions, c.warp_instructions),
           share(c.integer),
           share(c.real),
           share(c.special),
           share(c.mma),
           share(c.memory),
           share(c.control),
           share(c.convert),
           share(c.move),
           brief(c.divergent_branches),
           brief(c.barriers),
           brief(c.sectors_read),
           ratio(c.sectors_read, c.least_sectors_read),
           brief(c.sectors_written),
           ratio(c.sectors_written, c.least_sectors_written),
           brief(c.sectors_atomic),
           brief(c.dram_bytes()),
           ratio(c.dram_bytes(), c.unique_bytes_read + c.unique_bytes_written),
           brief(c.local_bytes),
           brief(c.shared_accesses),
           brief(c.bank_conflicts),
           seconds};
  for (kernel_resources const& r : s.resources) out.push_back(spills(r));
  return out;
}

std::string quoted(std::string const& text) {
  std::string out = "\"";
  for (char const c : text) {
    char escaped[8];
    if (c == '"' || c == '\\')
      out += {'\\', c};
    else if (static_cast<unsigned char>(c) < 0x20)
      std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(c)), out += escaped;
    else
      out += c;
  }
  return out + '"';
}

std::string triple(std::uint32_t const* v) {
  return "[" + std::to_string(v[0]) + ", " + std::to_string(v[1]) + ", " + std::to_string(v[2]) +
         "]";
}

std::string object(kernel_resources const& r) {
  if (!r.error.empty())
    return "{\"architecture\": " + quoted(r.architecture) + ", \"error\": " + quoted(r.error) + "}";
  auto const number = [](char const* name, int n) {
    return std::string(", \"") + name + "\": " + std::to_string(n);
  };
  return "{\"architecture\": " + quoted(r.architecture) + number("registers", r.registers) +
         number("barriers", r.barriers) + number("stack_bytes", r.stack_bytes) +
         number("spill_store_bytes", r.spill_store_bytes) +
         number("spill_load_bytes", r.spill_load_bytes) + number("shared_bytes", r.shared_bytes) +
         "}";
}

std::string object(summary const& s) {
  launch_counts const& c = s.counts;
  std::string out = "  {\"kernel\": " + quoted(c.kernel) + ", \"grid\": " + triple(c.grid) +
                    ", \"block\": " + triple(c.block) +
                    ", \"static_shared\": " + std::to_string(c.static_shared) +
                    ", \"dynamic_shared\": " + std::to_string(c.dynamic_shared);
  for (field const& f : fields)
    out += std::string(", \"") + f.name + "\": " + std::to_string(c.*f.value);
  char seconds[32];
  std::snprintf(seconds, sizeof seconds, "%.6f", c.seconds);
  out += ", \"dram_bytes\": " + std::to_string(c.dram_bytes()) + ", \"seconds\": " + seconds;
  if (!s.resources.empty()) {
    out += ", \"ptxas\": [";
    for (std::size_t i = 0; i < s.resources.size(); ++i)
      out += (i == 0 ? "" : ", ") + object(s.resources[i]);
    out += "]";
  }
  return out + "}";
}

std::vector<summary> plain(std::vector<launch_counts> const& counts) {
  std::vector<summary> out;
  for (launch_counts const& c : counts) out.push_back({c, {}});
  return out;
}

}  // namespace

std::string table(std::vector<summary> const& kernels) {
  if (kernels.empty()) return "softgpu: no kernel was launched\n";
  std::vector<line> lines{header(kernels[0].resources)};
  for (summary const& s : kernels) lines.push_back(values(s));
  std::vector<std::size_t> width(lines[0].size());
  for (line const& l : lines)
    for (std::size_t i = 0; i < l.size(); ++i) width[i] = std::max(width[i], l[i].size());
  std::string out;
  for (std::size_t k = 0; k < lines.size(); ++k) {
    for (std::size_t i = 0; i < lines[k].size(); ++i)
      out += std::string(width[i] - lines[k][i].size() + (i == 0 ? 0 : 1), ' ') + lines[k][i];
    out += "  " + (k == 0 ? std::string("kernel") : kernels[k - 1].counts.kernel) + "\n";
  }
  out += "x: sectors of 32 bytes over the least; DRAM bytes without a cache over unique bytes.";
  if (!kernels[0].resources.empty()) out += " sm_…: registers/spill bytes/static shared bytes.";
  return out + "\n";
}

std::string json(std::vector<summary> const& kernels) {
  std::string out = "[\n";
  for (std::size_t i = 0; i < kernels.size(); ++i)
    out += object(kernels[i]) + (i + 1 < kernels.size() ? ",\n" : "\n");
  return out + "]\n";
}

}  // namespace counters

std::string table_of(std::vector<launch_counts> const& counts) {
  return counters::table(counters::plain(counts));
}

std::string json_of(std::vector<launch_counts> const& counts) {
  return counters::json(counters::plain(counts));
}

}  // namespace softgpu
