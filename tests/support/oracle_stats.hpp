#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

/// The figures of a load from their definitions, in long double.
namespace shunt::test::oracle {

struct load_answer {
  std::int64_t slots = 0;
  double utilization = 1, active_fraction = 1, max_violation = 0, entropy = 0, jsd = 0;
};

inline load_answer load(std::vector<std::int64_t> count) {
  load_answer a;
  auto const experts = static_cast<long double>(count.size());
  for (std::int64_t n : count) a.slots += n;
  if (count.empty()) return a;
  if (a.slots == 0) std::fill(count.begin(), count.end(), 1);  // no load: as if uniform
  long double total = 0, most = 0;
  int busy = 0;
  for (std::int64_t n : count) {
    total += static_cast<long double>(n);
    most = std::max(most, static_cast<long double>(n));
  }
  long double entropy = 0, divergence = 0;
  for (std::int64_t n : count) {
    long double const p = static_cast<long double>(n) / total, u = 1 / experts, m = (p + u) / 2;
    if (p > 0) entropy -= p * std::log2(p);
    if (p > 0) divergence += p * std::log2(p / m) / 2;
    divergence += u * std::log2(u / m) / 2;
    busy += p >= u / 2 * (1 - 1e-15L) ? 1 : 0;
  }
  a.utilization = static_cast<double>(total / experts / most);
  a.active_fraction = static_cast<double>(busy / experts);
  a.max_violation = static_cast<double>(most / (total / experts) - 1);
  a.entropy = static_cast<double>(entropy);
  a.jsd = static_cast<double>(divergence);
  return a;
}

}  // namespace shunt::test::oracle
