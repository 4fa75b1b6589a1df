// Router, plan, permutation and combination on a GPU. The least bytes are each input read once and
// each output written once; every output is compared with the host backend's bits.
#include <cstring>

#include "cuda/timed.hpp"
#include "shunt/combine.cuh"
#include "shunt/dispatch.cuh"
#include "shunt/route.cuh"
#include "shunt/route/presets.hpp"
#include "support/inputs.hpp"

namespace bench::cuda {
namespace {

using shunt::bf16, shunt::index_t, shunt::offset_t, shunt::space;
constexpr shunt::route_options router{.gates = shunt::gate_kind::renormalized};

template <class T>
std::string same(char const* what, std::vector<T> const& a, std::vector<T> const& b) {
  bool const equal =
      a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
  return equal ? "" : std::string(what) + " is not the host's";
}

/// A batch and, on both sides, all that its stages make of it.
struct batch {
  shunt::shape s;
  offset_t T, H, E, K, R;
  std::vector<float> logits;
  std::vector<bf16> x;
  std::vector<index_t> expert, offset, row_slot, slot_row;
  std::vector<float> gate;
  std::vector<bf16> rows, y;

  batch(shunt::shape const& is, skew how)
      : s(is),
        T(is.tokens),
        H(is.hidden),
        E(is.experts),
        K(is.top_k),
        R(T * K),
        logits(bench::logits(is, how, 1)),
        x(noise<bf16>(static_cast<std::size_t>(T * H), 1, 2)),
        expert(static_cast<std::size_t>(R)),
        offset(static_cast<std::size_t>(E + 1)),
        row_slot(expert),
        slot_row(expert),
        gate(static_cast<std::size_t>(R)),
        rows(static_cast<std::size_t>(R * H)),
        y(x.size()) {
    shunt::on_host const on;
    std::vector<std::byte> work(
        std::max(shunt::route_scratch_bytes(on, s), shunt::plan_scratch_bytes(on, s)));
    shunt::routing<> out;
    out.expert = {expert.data(), {{T, K}}};
    out.gate = {gate.data(), {{T, K}}};
    shunt::dispatch_plan<> const plan{offset, row_slot, slot_row, s.tokens, s.top_k};
    shunt::view<bf16, 2> const in(x.data(), {{T, H}}), packed(rows.data(), {{R, H}});
    (void)shunt::route(on, shunt::view<float, 2>(logits.data(), {{T, E}}), out, work, router);
    (void)shunt::plan_dispatch(on, out.expert, plan, work);
    (void)shunt::dispatch(on, in, plan, packed);
    (void)shunt::combine(on, packed, plan, out.gate, shunt::view<bf16, 2>(y.data(), {{T, H}}));
  }
};

/// Memory for `like`, holding it only where a benchmark reads it: no output is there beforehand.
template <class T> buffer<T> of(std::vector<T> const& like, int copies, bool filled) {
  return filled ? buffer<T>(like, copies) : buffer<T>(static_cast<offset_t>(like.size()), copies);
}

struct plan_memory {
  buffer<index_t> offset, row_slot, slot_row;
  /// Of the plan's sizes, or filled with the host's plan.
  plan_memory(batch const& b, int copies, bool filled)
      : offset(of(b.offset, copies, filled)),
        row_slot(of(b.row_slot, copies, filled)),
        slot_row(of(b.slot_row, copies, filled)) {}
  [[nodiscard]] shunt::dispatch_plan<space::device> plan(batch const& b, int i) const {
    return {offset.as(i, b.E + 1), row_slot.as(i, b.R), slot_row.as(i, b.R), b.s.tokens, b.s.top_k};
  }
};

void route_of(benchmark::State& state, batch const& b) {
  double const bytes = 4.0 * double(b.T * b.E) + 8.0 * double(b.R);
  int const copies = copies_of(bytes);
  buffer<float> const logits(b.logits, copies), gate(b.R, copies);
  buffer<index_t> const expert(b.R, copies);
  auto const size = shunt::route_scratch_bytes(shunt::on_cuda{}, b.s);
  buffer<std::byte> const work(static_cast<offset_t>(size) + 1);
  measure(
      state, 0, bytes, copies,
      [&] {
        auto const wrong = same("expert", expert.host(), b.expert);
        return wrong.empty() ? same("gate", gate.host(), b.gate) : wrong;
      },
      [&](shunt::on_cuda on, int i) {
        shunt::routing<space::device> out;
        out.expert = expert.as(i, b.T, b.K);
        out.gate = gate.as(i, b.T, b.K);
        return said(shunt::route(on, logits.as(i, b.T, b.E), out, {work.data(), size}, router));
      });
}

void plan_of(benchmark::State& state, batch const& b) {
  double const bytes = 4.0 * double(3 * b.R + b.E + 1);
  int const copies = copies_of(bytes);
  buffer<index_t> const expert(b.expert, copies);
  plan_memory const memory(b, copies, false);
  auto const size = shunt::plan_scratch_bytes(shunt::on_cuda{}, b.s);
  buffer<std::byte> const work(static_cast<offset_t>(size) + 1);
  measure(
      state, 0, bytes, copies, [&] { return same("slot_row", memory.slot_row.host(), b.slot_row); },
      [&](shunt::on_cuda on, int i) {
        return said(shunt::plan_dispatch(on, expert.as(i, b.T, b.K), memory.plan(b, i),
                                         {work.data(), size}));
      });
}

void moves_of(benchmark::State& state, batch const& b, bool back) {
  double const bytes = 2.0 * double((b.R + b.T) * b.H) + 4.0 * double(2 * b.R);
  int const copies = copies_of(bytes);
  buffer<bf16> const tokens(back ? of(b.y, copies, false) : of(b.x, copies, true));
  buffer<bf16> const rows(of(b.rows, copies, back));
  buffer<float> const gate(b.gate, copies);
  plan_memory const memory(b, copies, true);
  measure(
      state, back ? 2.0 * double(b.R * b.H) : 0, bytes, copies,
      [&] { return back ? same("y", tokens.host(), b.y) : same("rows", rows.host(), b.rows); },
      [&](shunt::on_cuda on, int i) {
        auto const plan = memory.plan(b, i);
        auto const t = tokens.as(i, b.T, b.H);
        auto const r = rows.as(i, b.R, b.H);
        return said(back ? shunt::combine(on, r, plan, gate.as(i, b.T, b.K), t)
                         : shunt::dispatch(on, t, plan, r));
      });
}

void register_all() {
  for (shunt::preset const* const preset :
       {&shunt::presets::deepseek_v2_lite, &shunt::presets::qwen3_30b_a3b,
        &shunt::presets::deepseek_v3}) {
    for (index_t const tokens : {1, 8, 64, 512, 4096, 16384}) {
      for (skew const how : {skew::uniform, skew::zipf}) {
        shunt::shape s = preset->sizes;
        s.tokens = tokens;
        std::string const name = "/E" + std::to_string(s.experts) + "_K" + std::to_string(s.top_k) +
                                 "_H" + std::to_string(s.hidden) + "/T" + std::to_string(tokens) +
                                 "/" + to_string(how);
        bool const small = tokens == 8 && how == skew::zipf;
        add("route" + name, small, [=](auto& state) { route_of(state, batch(s, how)); });
        add("plan" + name, small, [=](auto& state) { plan_of(state, batch(s, how)); });
        add("dispatch" + name, small, [=](auto& state) { moves_of(state, batch(s, how), false); });
        add("combine" + name, small, [=](auto& state) { moves_of(state, batch(s, how), true); });
      }
    }
  }
}

}  // namespace
}  // namespace bench::cuda

int main(int count, char** words) {
  return bench::cuda::run(count, words, bench::cuda::register_all);
}
