#pragma once
// One computation over the library, compiled into each translation unit of the program: what it
// answers must not depend on the flags, the instruction set or the number of threads.
#include <cstddef>
#include <cstdint>
#include <vector>

#include <shunt/backend/host/simd/regions.hpp>
#include <shunt/shunt.hpp>

#define SHUNT_REGION_FILE "two_units/kernels.inl"
#include "shunt/backend/host/simd/for_each_region.inl"

// Products of bf16, whose bits are others on isa::avx512_bf16: not in the digest, but the check reads their code.
template shunt::status shunt::detail::experts_backend<shunt::on_host>::forward<
    shunt::bf16, shunt::bf16, float, shunt::identity>(shunt::on_host const&,
                                                      shunt::view<shunt::bf16 const, 2>,
                                                      shunt::expert_matrix<shunt::bf16> const&,
                                                      shunt::segments<>, shunt::view<float, 2>,
                                                      shunt::identity const&,
                                                      shunt::gemm_options<> const&) noexcept;

namespace {

struct folder {
  std::uint64_t value = 0xcbf29ce484222325u;
  template <class T> void add(std::vector<T> const& data) {
    auto const* const bytes = reinterpret_cast<unsigned char const*>(data.data());
    for (std::size_t i = 0; i < data.size() * sizeof(T); ++i) {
      value = (value ^ bytes[i]) * 0x100000001b3u;
    }
  }
};

// Reproducible numbers in (-range, range).
std::vector<float> numbers(std::size_t count, float range) {
  std::vector<float> x(count);
  std::uint32_t draw = static_cast<std::uint32_t>(count);
  for (float& v : x) {
    draw = draw * 1664525u + 1013904223u;
    v = range * static_cast<float>(static_cast<std::int32_t>(draw)) * 0x1p-31f;
  }
  return x;
}

// The regions' lanes and functions, straight.
void lanes(shunt::on_host const& on, folder& digest) {
  constexpr std::int64_t count = 1003;
  std::vector<float> const x = numbers(count, 8);
  std::vector<float> y(count);
  std::vector<shunt::bf16> b(count);
  std::vector<shunt::fp16> h(count);
  digest.add(
      std::vector{SHUNT_ISA_PICK(on, lanes_digest)(x.data(), y.data(), b.data(), h.data(), count)});
}

// The modules, through their public functions: logits to gates, tokens to rows and back.
bool modules(shunt::on_host const& on, folder& digest) {
  constexpr shunt::index_t T = 37, H = 45, E = 9, K = 3, R = T * K;
  std::vector<float> logits = numbers(T * E, 4), x = numbers(T * H, 2);
  std::vector<float> gate(R), rows(R * H), y(T * H), d_logits(T * E), d_gate(R);
  std::vector<shunt::index_t> expert(R), offset(E + 1), row_slot(R), slot_row(R);
  std::vector<std::byte> scratch(1 << 20);
  shunt::arena<> const work(scratch);
  shunt::view<float, 2> const z(logits.data(), {{T, E}}), tokens(x.data(), {{T, H}}),
      moved(rows.data(), {{R, H}}), out(y.data(), {{T, H}}), dz(d_logits.data(), {{T, E}});
  shunt::routing<> chosen;
  chosen.expert = {expert.data(), {{T, K}}};
  chosen.gate = {gate.data(), {{T, K}}};
  shunt::dispatch_plan<> plan{.offset = offset, .row_slot = row_slot, .slot_row = slot_row};
  plan.tokens = T;
  plan.top_k = K;
  for (auto const score :
       {shunt::score_kind::softmax, shunt::score_kind::sigmoid, shunt::score_kind::sqrt_softplus}) {
    shunt::route_options const options{.score = score, .gates = shunt::gate_kind::renormalized};
    if (!shunt::route(on, z, chosen, work, options).ok()) return false;
    if (!shunt::plan_dispatch(on, chosen.expert, plan, work).ok()) return false;
    if (!shunt::dispatch(on, tokens, plan, moved).ok()) return false;
    if (!shunt::combine(on, moved, plan, chosen.gate, out).ok()) return false;
    shunt::combine_gradients<float> wanted;
    wanted.d_gate = {d_gate.data(), {{T, K}}};
    if (!shunt::combine_backward(on, out, plan, chosen.gate, moved, shunt::view<float, 2>{}, wanted)
             .ok()) {
      return false;
    }
    shunt::route_gradients<> to_logits;
    to_logits.gate = wanted.d_gate;
    if (!shunt::route_backward(on, z, chosen, to_logits, dz, work, options).ok()) return false;
    for (auto const* result : {&gate, &rows, &y, &d_gate, &d_logits}) digest.add(*result);
    digest.add(expert);
  }
  return true;
}

// The layer, forward and backward: all modules and the grouped products.
bool layer(shunt::on_host const& on, folder& digest) {
  constexpr shunt::index_t T = 43, H = 37, I = 70, E = 5, K = 2;
  std::vector<float> x = numbers(T * H, 1), gate = numbers(E * H, 1),
                     up = numbers(E * 2 * I * H, 1), down = numbers(E * H * I, 1), y(T * H),
                     d_x(T * H), d_up(up.size()), d_gate(gate.size());
  shunt::moe_weights<float> const weights{
      .gate = shunt::view<float const, 2>(gate.data(), {{E, H}}),
      .up = shunt::view<float const, 3>(up.data(), {{E, 2 * I, H}}),
      .down = shunt::view<float const, 3>(down.data(), {{E, H, I}})};
  shunt::layer_options<> const options{.top_k = K};
  shunt::view<float, 2> const in(x.data(), {{T, H}}), out(y.data(), {{T, H}}),
      back(d_x.data(), {{T, H}});
  std::vector<std::byte> kept(shunt::moe_saved_bytes(T, weights, options));
  shunt::arena<> memory(kept);
  auto const saved = shunt::carve_moe_saved(memory, T, weights, options);
  std::vector<std::byte> work(shunt::moe_layer_scratch_bytes(on, T, weights, options) +
                              shunt::moe_layer_backward_scratch_bytes(on, T, weights, options));
  shunt::moe_gradients<> d;
  d.gate = shunt::view<float, 2>(d_gate.data(), {{E, H}});
  d.up = shunt::view<float, 3>(d_up.data(), {{E, 2 * I, H}});
  if (!shunt::moe_layer(on, in, weights, out, {.saved = &saved}, work, options).ok()) return false;
  if (!shunt::moe_layer_backward(on, in, weights, out, saved, back, d, work, options).ok()) {
    return false;
  }
  for (auto const* result : {&y, &d_x, &d_up, &d_gate}) digest.add(*result);
  return true;
}

// Products with weights in a format, of rows as they are or in int8.
template <class F> bool formats(shunt::on_host const& on, folder& digest, bool int8_rows) {
  constexpr shunt::index_t R = 29, N = 45, K = 130, E = 3;
  std::vector<float> const w = numbers(E * N * K, 1), x = numbers(R * K, 3);
  std::vector<float> y(R * N);
  std::vector<shunt::index_t> const offset{0, 1, 3, R};
  auto const shape = shunt::expert_matrix<F>::packed(nullptr, E, N, K);
  std::vector<F> bytes(static_cast<std::size_t>(shape.packed_elements()));
  shunt::view<float const, 3> const weights(w.data(), {{E, N, K}});
  shunt::view<float const, 2> const rows(x.data(), {{R, K}});
  shunt::view<float, 2> const out(y.data(), {{R, N}});
  if (!shunt::quantize_weights(on, weights, bytes).ok()) return false;
  auto const packed = shunt::expert_matrix<F>::packed(bytes.data(), E, N, K);
  if (!shunt::grouped_gemm(on, rows, packed, {offset}, out, {}, {.int8_rows = int8_rows}).ok()) {
    return false;
  }
  digest.add(y);
  return true;
}

// Both units have their own copy: it is the library's functions that must get along.
std::uint64_t digest_on(shunt::on_host const& on) {
  folder digest;
  lanes(on, digest);
  bool const done =
      modules(on, digest) && layer(on, digest) && formats<shunt::int8_channel>(on, digest, true) &&
      formats<shunt::mxfp4>(on, digest, true) && formats<shunt::nvfp4>(on, digest, false) &&
      formats<shunt::int4_group<32>>(on, digest, false);
  return done ? digest.value : 0;
}

}  // namespace
