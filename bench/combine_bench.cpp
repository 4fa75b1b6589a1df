// Combine: rows back to tokens, with what stands beside the experts, and the gradients. Bytes are the
// least that must move: each input read once, each output written once.
#include <cmath>
#include <shunt/combine.hpp>
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

template <class T> struct scene {
  shape s;
  offset_t row_count;
  std::vector<std::byte> memory;
  shunt::dispatch_plan<> plan;
  std::vector<T> rows, shared, y, d_rows;
  std::vector<float> gate, d_gate;

  scene(shape const& is, bench::skew how)
      : s(is), row_count(offset_t{s.tokens} * s.top_k), rows(count(row_count)) {
    auto const ids = bench::chosen_experts(s, how, 1);
    auto measure = shunt::arena<>::measuring();
    (void)shunt::carve_plan(measure, s);
    memory.resize(measure.needed());
    shunt::arena<> work(memory);
    plan = shunt::carve_plan(work, s);
    std::vector<std::byte> scratch(shunt::plan_scratch_bytes(on_host{}, s));
    (void)shunt::plan_dispatch(on_host{}, view<index_t const, 2>(ids.data(), {{s.tokens, s.top_k}}),
                               plan, scratch);
    rows = bench::noise<T>(rows.size(), 1, 2);
    shared = bench::noise<T>(count(s.tokens), 1, 3);
    gate = bench::noise<float>(static_cast<std::size_t>(row_count), 1, 4);
    y.resize(shared.size());
  }
  std::size_t count(offset_t n) const { return static_cast<std::size_t>(n * s.hidden); }
  view<T const, 2> row_view() const { return {rows.data(), {{row_count, s.hidden}}}; }
  view<T const, 2> tokens(std::vector<T> const& v) const {
    return {v.data(), {{s.tokens, s.hidden}}};
  }
  view<float const, 2> gates() const { return {gate.data(), {{s.tokens, s.top_k}}}; }
};

template <class T>
void forward(benchmark::State& state, shape const& s, bench::skew how, int threads, bool beside) {
  scene<T> in(s, how);
  on_host const on{.threads = threads};
  view<T, 2> const y(in.y.data(), {{s.tokens, s.hidden}});
  shunt::combine_options<T> o;
  if (beside) o.shared = o.residual = in.tokens(in.shared);
  auto const verify = [&]() -> std::string {
    auto const rows = in.row_view();
    for (offset_t t = 0; t < s.tokens; ++t) {
      for (offset_t c = 0; c < s.hidden; c += 7) {
        float sum = 0;
        for (offset_t k = 0; k < s.top_k; ++k) {
          sum =
              std::fma(in.gates()(t, k), to_float(rows(in.plan.slot_row[t * s.top_k + k], c)), sum);
        }
        if (beside) sum = sum + to_float(o.shared(t, c)) + to_float(o.residual(t, c));
        if (to_float(y(t, c)) != to_float(shunt::from_float<T>(sum))) {
          return "token " + std::to_string(t) + " is wrong";
        }
      }
    }
    return {};
  };
  std::size_t const moved = in.rows.size() + in.y.size() + (beside ? in.shared.size() : 0);
  double const flops = 2.0 * static_cast<double>(in.rows.size());
  bench::measure(
      state, threads, {.flops = flops, .bytes = static_cast<double>(moved * sizeof(T))}, verify,
      [&] {
        benchmark::DoNotOptimize(shunt::combine(on, in.row_view(), in.plan, in.gates(), y, o));
      });
}

template <class T> void backward(benchmark::State& state, shape const& s, int threads) {
  scene<T> in(s, bench::skew::uniform);
  on_host const on{.threads = threads};
  in.d_rows.resize(in.rows.size());
  in.d_gate.resize(in.gate.size());
  view<T, 2> const d_rows(in.d_rows.data(), {{in.row_count, s.hidden}});
  view<float, 2> const d_gate(in.d_gate.data(), {{s.tokens, s.top_k}});
  auto const d_y = in.tokens(in.shared);
  auto const verify = [&]() -> std::string {
    for (offset_t slot = 0; slot < in.row_count; ++slot) {
      offset_t const t = slot / s.top_k, row = in.plan.slot_row[slot];
      double dot = 0, size = 0;
      for (offset_t c = 0; c < s.hidden; ++c) {
        float const g = to_float(d_y(t, c));
        double const term = double(g) * to_float(in.row_view()(row, c));
        dot += term;
        size += std::abs(term);
        if (to_float(d_rows(row, c)) !=
            to_float(shunt::from_float<T>(in.gates()(t, slot % s.top_k) * g))) {
          return "row " + std::to_string(row) + " is wrong";
        }
      }
      if (!(std::abs(in.d_gate[static_cast<std::size_t>(slot)] - dot) <= 1e-5 * size)) {
        return "the gradient of gate " + std::to_string(slot) + " is wrong";
      }
    }
    return {};
  };
  std::size_t const moved = 2 * in.rows.size() + in.y.size();
  double const flops = 3.0 * static_cast<double>(in.rows.size());
  bench::measure(state, threads, {.flops = flops, .bytes = static_cast<double>(moved * sizeof(T))},
                 verify, [&] {
                   benchmark::DoNotOptimize(shunt::combine_backward(
                       on, d_y, in.plan, in.gates(), in.row_view(), d_rows, {.d_gate = d_gate}));
                 });
}

}  // namespace

void bench::register_all() {
  bench::for_each_move([](shape const& s, bool all_rows, auto const& add) {
    if (!all_rows) return;
    for (bench::skew const how : bench::skews) {
      if (how != bench::skew::uniform && s.tokens != 512) continue;
      add("combine", "f32", bench::to_string(how),
          [how](auto& state, auto const& is, int n) { forward<float>(state, is, how, n, false); });
      add("combine", "bf16", bench::to_string(how),
          [how](auto& state, auto const& is, int n) { forward<bf16>(state, is, how, n, false); });
    }
    add("combine_shared_residual", "bf16", "", [](auto& state, auto const& is, int n) {
      forward<bf16>(state, is, bench::skew::uniform, n, true);
    });
    add("combine_backward", "f32", "",
        [](auto& state, auto const& is, int n) { backward<float>(state, is, n); });
    add("combine_backward", "bf16", "",
        [](auto& state, auto const& is, int n) { backward<bf16>(state, is, n); });
  });
}
