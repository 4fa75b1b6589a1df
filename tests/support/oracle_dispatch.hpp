#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

/// Dispatch from its definition, one slot at a time, sharing nothing with the library.
namespace shunt::test::oracle {

enum class refuse { later, later_choices, lower_gates };

struct plan_inputs {
  int tokens = 0, top_k = 0, local = 0;  // local experts
  std::vector<int> expert = {};          // [T·K]
  std::vector<int> valid = {};           // [T], empty: all
  std::vector<float> gate = {};          // [T·K]
  int first = 0, real = 0, zero = 0;     // real 0: first + local
  int capacity = 0, multiple = 1;
  refuse drop = refuse::later;
};

struct plan_answer {
  std::vector<int> offset, row_slot, slot_row, wanted, kept;
  int rows = 0, padding = 0, dropped = 0, unrouted = 0, foreign = 0, zero = 0, out_of_range = 0,
      repeated = 0, invalid = 0;
};

/// Segments from each expert's kept slots: in slot order, then padding.
inline void lay(plan_answer& a, std::vector<std::vector<int>> kept, int multiple,
                std::size_t slots) {
  a.slot_row.assign(slots, -1);
  a.offset.push_back(0);
  for (auto& list : kept) {
    std::sort(list.begin(), list.end());
    a.kept.push_back(static_cast<int>(list.size()));
    a.rows += static_cast<int>(list.size());
    for (int slot : list) {
      a.slot_row[static_cast<std::size_t>(slot)] = static_cast<int>(a.row_slot.size());
      a.row_slot.push_back(slot);
    }
    while (static_cast<int>(a.row_slot.size()) % multiple != 0) {
      a.row_slot.push_back(-1);
      ++a.padding;
    }
    a.offset.push_back(static_cast<int>(a.row_slot.size()));
  }
}

inline plan_answer plan(plan_inputs const& q) {
  plan_answer a;
  int const real = q.real > 0 ? q.real : q.first + q.local;
  std::vector<std::vector<int>> wanted(static_cast<std::size_t>(q.local));
  for (int slot = 0; slot < q.tokens * q.top_k; ++slot) {
    auto const at = static_cast<std::size_t>(slot);
    int const id = q.expert[at];
    if (!q.valid.empty() && q.valid[at / static_cast<std::size_t>(q.top_k)] == 0) {
      ++a.invalid;
    } else if (id == -1) {
      ++a.unrouted;
    } else if (id >= q.first && id - q.first < q.local) {
      wanted[static_cast<std::size_t>(id - q.first)].push_back(slot);
    } else if (id >= 0 && id < real) {
      ++a.foreign;
    } else if (id >= real && id - real < q.zero) {
      ++a.zero;
    } else {
      ++a.out_of_range;
    }
  }
  for (auto& list : wanted) {
    a.wanted.push_back(static_cast<int>(list.size()));
    auto const gate = [&](int slot) {
      float const g = q.gate[static_cast<std::size_t>(slot)];
      return std::isnan(g) ? -std::numeric_limits<double>::infinity() : static_cast<double>(g);
    };
    auto const is_nan = [&](int slot) {
      return std::isnan(q.gate[static_cast<std::size_t>(slot)]);
    };
    if (q.capacity > 0 && static_cast<int>(list.size()) > q.capacity) {
      std::stable_sort(list.begin(), list.end(), [&](int x, int y) {
        if (q.drop == refuse::later_choices) return x % q.top_k < y % q.top_k;
        if (q.drop == refuse::later) return false;
        if (is_nan(x) != is_nan(y)) return is_nan(y);
        return gate(x) > gate(y);
      });
      a.dropped += static_cast<int>(list.size()) - q.capacity;
      list.resize(static_cast<std::size_t>(q.capacity));
    }
  }
  lay(a, wanted, q.multiple, q.expert.size());
  return a;
}

/// Tokens [E·C] chosen by experts; slots are token·E + e.
inline plan_answer choice_plan(int tokens, int experts, int chosen, std::vector<int> const& token,
                               std::vector<int> const& valid, int multiple) {
  plan_answer a;
  std::vector<std::vector<int>> wanted(static_cast<std::size_t>(experts));
  for (int e = 0; e < experts; ++e) {
    auto& list = wanted[static_cast<std::size_t>(e)];
    for (int c = 0; c < chosen; ++c) {
      int const t = token[static_cast<std::size_t>(e * chosen + c)];
      auto const slot = static_cast<int>(std::int64_t{t} * experts + e);
      if (t == -1) {
        ++a.unrouted;
      } else if (t < 0 || t >= tokens) {
        ++a.out_of_range;
      } else if (!valid.empty() && valid[static_cast<std::size_t>(t)] == 0) {
        ++a.invalid;
      } else if (std::find(list.begin(), list.end(), slot) != list.end()) {
        ++a.repeated;
      } else {
        list.push_back(slot);
      }
    }
    a.wanted.push_back(static_cast<int>(list.size()));
  }
  lay(a, wanted, multiple, static_cast<std::size_t>(tokens * experts));
  return a;
}

}  // namespace shunt::test::oracle
