// Dispatch: the plan (a counting sort) and the permute with its gradient, over published shapes and
// skews. Bytes are the least that must move: each input read once, each output written once.
#include <cstring>
#include <memory>
#include <numeric>
#include <shunt/dispatch.hpp>
#include <string>
#include <vector>

#include "support/bench.hpp"
#include "support/inputs.hpp"
#include "support/moves.hpp"

namespace {

using shunt::bf16;
using shunt::index_t;
using shunt::offset_t;
using shunt::on_host;
using shunt::shape;
using shunt::to_float;
using shunt::view;

/// A choice of experts, its plan, and the memory of both.
struct plan_fixture {
  shape s;
  std::vector<index_t> ids;
  std::vector<std::byte> memory, scratch;
  shunt::dispatch_plan<> plan;

  plan_fixture(shape const& is, bench::skew how) : s(is), ids(bench::chosen_experts(s, how, 1)) {
    auto measure = shunt::arena<>::measuring();
    (void)shunt::carve_plan(measure, s);
    memory.resize(measure.needed());
    scratch.resize(shunt::plan_scratch_bytes(on_host{}, s));
    shunt::arena<> work(memory);
    plan = shunt::carve_plan(work, s);
  }
  shunt::status make(on_host const& on) {
    return shunt::plan_dispatch(on, view<index_t const, 2>(ids.data(), {{s.tokens, s.top_k}}), plan,
                                scratch);
  }
  offset_t rows() const { return offset_t{s.tokens} * s.top_k; }
};

/// Rows of each expert in slot order, each slot once, under the expert that it chose.
std::string wrong_plan(plan_fixture const& p) {
  for (index_t e = 0; e < p.s.experts; ++e) {
    for (index_t r = p.plan.offset[e]; r < p.plan.offset[e + 1]; ++r) {
      index_t const slot = p.plan.row_slot[r];
      if (slot < 0 || p.ids[static_cast<std::size_t>(slot)] != e || p.plan.slot_row[slot] != r ||
          (r > p.plan.offset[e] && p.plan.row_slot[r - 1] >= slot)) {
        return "row " + std::to_string(r) + " has slot " + std::to_string(slot);
      }
    }
  }
  return p.plan.offset[p.s.experts] == p.rows() ? "" : "rows are missing";
}

void plan(benchmark::State& state, shape const& s, bench::skew how, int threads) {
  plan_fixture p(s, how);
  on_host const on{.threads = threads};
  double const bytes = 4.0 * (3.0 * static_cast<double>(p.rows()) + s.experts);
  bench::measure(
      state, threads, {.bytes = bytes}, [&] { return wrong_plan(p); },
      [&] { benchmark::DoNotOptimize(p.make(on)); });
}

template <class T> std::size_t count(offset_t rows, shape const& s) {
  return static_cast<std::size_t>(rows * s.hidden);
}

template <class T> void permute(benchmark::State& state, shape const& s, int threads, bool gated) {
  plan_fixture p(s, bench::skew::uniform);
  on_host const on{.threads = threads};
  (void)p.make(on);
  auto const x = bench::noise<T>(count<T>(s.tokens, s), 1, 2);
  std::vector<float> const gate(static_cast<std::size_t>(p.rows()), 2.0f);
  std::vector<T> rows(count<T>(p.rows(), s));
  view<T const, 2> const from(x.data(), {{s.tokens, s.hidden}});
  view<T, 2> const to(rows.data(), {{p.rows(), s.hidden}});
  shunt::dispatch_options<> o;
  if (gated) o.gate = view<float const, 2>(gate.data(), {{s.tokens, s.top_k}});
  auto const verify = [&]() -> std::string {
    for (offset_t r = 0; r < p.rows(); ++r) {
      for (offset_t c = 0; c < s.hidden; ++c) {
        float const want = to_float(from(p.plan.row_slot[r] / s.top_k, c)) * (gated ? 2.0f : 1.0f);
        if (to_float(to(r, c)) != want) return "row " + std::to_string(r) + " is wrong";
      }
    }
    return {};
  };
  double const bytes = static_cast<double>((x.size() + rows.size()) * sizeof(T));
  bench::measure(state, threads, {.bytes = bytes}, verify,
                 [&] { benchmark::DoNotOptimize(shunt::dispatch(on, from, p.plan, to, o)); });
}

template <class T> void gradient(benchmark::State& state, shape const& s, int threads) {
  plan_fixture p(s, bench::skew::uniform);
  on_host const on{.threads = threads};
  (void)p.make(on);
  auto const rows = bench::noise<T>(count<T>(p.rows(), s), 1, 3);
  std::vector<T> d_x(count<T>(s.tokens, s));
  view<T const, 2> const from(rows.data(), {{p.rows(), s.hidden}});
  view<T, 2> const to(d_x.data(), {{s.tokens, s.hidden}});
  auto const verify = [&]() -> std::string {
    for (offset_t t = 0; t < s.tokens; ++t) {
      for (offset_t c = 0; c < s.hidden; ++c) {
        float sum = 0;
        for (offset_t k = 0; k < s.top_k; ++k) {
          sum += to_float(from(p.plan.slot_row[t * s.top_k + k], c));
        }
        if (to_float(to(t, c)) != to_float(shunt::from_float<T>(sum))) {
          return "token " + std::to_string(t) + " is wrong";
        }
      }
    }
    return {};
  };
  double const bytes = static_cast<double>((d_x.size() + rows.size()) * sizeof(T));
  bench::measure(state, threads, {.bytes = bytes}, verify,
                 [&] { benchmark::DoNotOptimize(shunt::dispatch_backward(on, from, p.plan, to)); });
}

}  // namespace

void bench::register_all() {
  bench::for_each_move([](shape const& s, bool all_rows, auto const& add) {
    for (bench::skew const how : bench::skews) {
      if (how != bench::skew::uniform && s.tokens != 4096) continue;
      add("plan", "int32", bench::to_string(how),
          [how](auto& state, auto const& is, int n) { plan(state, is, how, n); });
    }
    if (!all_rows) return;
    add("dispatch", "f32", "",
        [](auto& state, auto const& is, int n) { permute<float>(state, is, n, false); });
    add("dispatch", "bf16", "",
        [](auto& state, auto const& is, int n) { permute<bf16>(state, is, n, false); });
    add("dispatch_gated", "bf16", "",
        [](auto& state, auto const& is, int n) { permute<bf16>(state, is, n, true); });
    add("dispatch_backward", "f32", "",
        [](auto& state, auto const& is, int n) { gradient<float>(state, is, n); });
    add("dispatch_backward", "bf16", "",
        [](auto& state, auto const& is, int n) { gradient<bf16>(state, is, n); });
  });
}
