#pragma once
#include <atomic>
#include <cstdint>

#include "shunt/backend/host/pool.hpp"
#include "shunt/backend/host/route/balance.hpp"
#include "shunt/backend/host/route/types.hpp"
#include "shunt/backend/host/simd/regions.hpp"
#include "shunt/core/arena.hpp"
#include "shunt/core/math.hpp"
#include "shunt/core/random.hpp"
#include "shunt/route/routing.hpp"

#define SHUNT_REGION_FILE "shunt/backend/host/route/kernels.inl"
#include "shunt/backend/host/simd/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_ABI {

using shunt::detail::route_block;

/// Scratch of route() and of its backward: one row set a worker, one row of sums a block.
struct route_scratch {
  float* rows = nullptr;
  index_t* ids = nullptr;
  float* importance = nullptr;     // [blocks, padded E]
  index_t* counts = nullptr;       // [blocks, E]
  std::int64_t* report = nullptr;  // [blocks, route_events]
  std::int64_t row_floats = 0, row_ids = 0, padded = 0, padded_k = 0, peaks = 0;
};

using shunt::detail::blocks_of;

inline route_scratch carve_route(on_host const& on, arena<>& a, std::int64_t tokens,
                                 std::int64_t experts, std::int64_t top_k,
                                 std::int64_t sequences) noexcept {
  route_scratch s;
  s.padded = strips_of(experts);
  s.padded_k = strips_of(top_k);
  s.peaks = strips_of(s.padded / route_strip);
  s.row_floats = 6 * s.padded + 2 * s.peaks + 3 * s.padded_k;
  s.row_ids = s.padded_k + 2 * s.padded;
  std::int64_t const workers = workers_of(on), blocks = blocks_of(tokens, sequences);
  s.rows = a.template take<float>(workers * s.row_floats);
  s.ids = a.template take<index_t>(workers * s.row_ids);
  s.importance = a.template take<float>(blocks * s.padded);
  s.counts = a.template take<index_t>(blocks * experts);
  s.report = a.template take<std::int64_t>(blocks * route_events);
  return s;
}

inline route_buffers buffers_of(route_scratch const& s, int worker) noexcept {
  float* f = s.rows + worker * s.row_floats;
  index_t* i = s.ids + worker * s.row_ids;
  auto const floats = [&](std::int64_t n) { return f += n, f - n; };
  auto const ints = [&](std::int64_t n) { return i += n, i - n; };
  route_buffers b;
  b.z = floats(s.padded);
  b.s = floats(s.padded);
  b.key = floats(s.padded);
  b.noise = floats(s.padded);
  b.group = floats(s.padded);
  b.load = floats(s.padded);
  b.peaks = floats(s.peaks);
  b.group_peaks = floats(s.peaks);
  b.chosen = floats(s.padded_k);
  b.gate = floats(s.padded_k);
  b.slope = floats(s.padded_k);
  b.id = ints(s.padded_k);
  b.group_id = ints(s.padded);
  b.bin = ints(s.padded);
  return b;
}

/// The numbers of a token's jitter: word e % 4 of position token, stream 1 + e / 4. Behind the
/// experts zeros, whose factor is positive: there it is -Inf that is multiplied.
inline void draw_noise(route_options const& o, std::int64_t token, std::int64_t experts,
                       std::int64_t padded, float* noise) noexcept {
  for (std::int64_t e = experts; e < padded; ++e) noise[e] = 0.0f;
  std::uint64_t const position = o.first_token + static_cast<std::uint64_t>(token);
  for (std::int64_t e = 0; e < experts; e += 4) {
    auto const words = random_at(o.seed, position, 1 + static_cast<std::uint64_t>(e) / 4);
    std::int64_t const left = experts - e < 4 ? experts - e : 4;
    for (std::int64_t i = 0; i < left; ++i) noise[e + i] = uniform_of(words.word[i]);
  }
}

/// The options with the numbers of the draws that memory holds.
inline route_options drawn(route_options o, route_inputs<> const& with) noexcept {
  o.seed = with.draws.seed_of(o);
  o.first_token = with.draws.first_token_of(o);
  return o;
}

inline float draw_second(route_options const& o, std::int64_t token) noexcept {
  return uniform_of(
      random_at(o.seed, o.first_token + static_cast<std::uint64_t>(token), 0).word[0]);
}

/// Ids from outside: an id that names no expert, and one that the token has already, become -1.
inline void forced_ids(route_inputs<> const& with, std::int64_t t, route_rule const& r,
                       route_buffers const& b, std::int64_t* report) noexcept {
  auto const count = [&](route_event what) { ++report[static_cast<std::size_t>(what)]; };
  std::int64_t row = t;
  if (with.token) {
    row = with.token[t];
    if (!shunt::detail::has_row(with.ids, row)) {
      count(route_event::ids_out_of_range);
      for (std::int64_t k = 0; k < r.top_k; ++k) b.id[k] = -1;
      return;
    }
  }
  for (std::int64_t k = 0; k < r.top_k; ++k) {
    index_t id = with.ids(row, k);
    if (shunt::detail::is_wild(id, r.experts)) {
      count(route_event::ids_out_of_range);
      id = -1;
    }
    for (std::int64_t j = 0; id >= 0 && j < k; ++j) {
      if (b.id[j] == id) {
        count(route_event::ids_repeated);
        id = -1;
      }
    }
    b.id[k] = id;
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host
