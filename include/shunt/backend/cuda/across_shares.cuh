#pragma once
#include "shunt/backend/cuda/across_kernels.cuh"
#include "shunt/backend/cuda/across_tables.cuh"

// Where no host sees the counts: what each rank sends and receives, from the counts of all, on the device.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// What the kernels read and write. Lists are those of across_tables<on_cuda>.
struct across_shares {
  offset_t experts, ids, levels, places, local, top_k;
  int rank, ranks;
  index_t capacity;                       // index_t's largest where there is none
  index_t const* counts;                  // [R] of levels * ids counts and the tokens
  index_t const *place_of, *owner_start;  // [R,E] the place that each rank's tokens use; [R+1]
  index_t const* expert_of;               // [P]
  index_t* kept;                          // [R,E]
  index_t *end, *quota, *wanted, *here, *tokens;
  offset_t *send_start, *recv_start;  // [R+1]

  [[nodiscard]] __device__ index_t count(int rank_, offset_t i) const {
    return counts[rank_ * (levels * ids + 1) + i];
  }
};

/// A thread has an id: who asks for it, and what a capacity leaves to each rank (share_capacity on the host).
SHUNT_KERNEL void share_counts(across_shares s) {
  for (offset_t e = grid_thread(); e < s.ids; e += grid_threads()) {
    index_t sum = 0, left = s.capacity;
    for (int r = 0; r < s.ranks && e < s.experts; ++r) s.kept[r * s.experts + e] = 0;
    for (offset_t k = 0; k < s.levels; ++k) {
      for (int r = 0; r < s.ranks; ++r) {
        index_t const wanted = s.count(r, k * s.ids + e), got = min(left, wanted);
        sum += wanted;
        left -= got;
        if (e < s.experts) s.kept[r * s.experts + e] += got;
      }
    }
    s.wanted[e] = sum;
    if (e < s.experts) s.quota[e] = s.kept[s.rank * s.experts + e];
    if (e > 0) continue;
    index_t all = 0;
    for (int r = 0; r < s.ranks; ++r) all += s.count(r, s.levels * s.ids);
    *s.tokens = all;
  }
}

/// Rows from a rank to a place.
__device__ inline index_t rows_to_place(across_shares const& s, int source, index_t place) {
  index_t const e = s.expert_of[place];
  return s.place_of[source * s.experts + e] == place ? s.kept[source * s.experts + e] : 0;
}
/// One block: its first warp runs along the rows received, the others add up what is sent.
SHUNT_KERNEL void lay_transfers(across_shares s) {
  index_t const first = s.owner_start[s.rank];
  int const warp = static_cast<int>(threadIdx.x) / warp_lanes;
  for (offset_t i = threadIdx.x; i < s.local; i += blockDim.x) {
    s.here[i] = s.wanted[s.expert_of[first + i]];
  }
  if (warp == 0) {
    index_t sum = 0;
    if (threadIdx.x == 0) s.recv_start[0] = 0;
    for (int source = 0; source < s.ranks; ++source) {
      for (offset_t base = 0; base < s.local; base += warp_lanes) {
        offset_t const i = base + lane_of_thread();
        index_t const mine =
            i < s.local ? rows_to_place(s, source, first + static_cast<index_t>(i)) : 0;
        index_t const until = sum + warp_prefix(mine);
        if (i < s.local) s.end[source * s.local + i] = until;
        sum = __shfl_sync(all_lanes, until, warp_lanes - 1);
      }
      if (threadIdx.x == 0) s.recv_start[source + 1] = sum;
    }
  } else if (warp == 1) {
    offset_t sum = 0;
    if (lane_of_thread() == 0) s.send_start[0] = 0;
    for (int owner = 0; owner < s.ranks; ++owner) {
      index_t part = 0;
      for (index_t at = s.owner_start[owner] + lane_of_thread(); at < s.owner_start[owner + 1];
           at += warp_lanes) {
        part += rows_to_place(s, s.rank, at);
      }
      warp_totals(part);
      sum += part;
      if (lane_of_thread() == 0) s.send_start[owner + 1] = sum;
    }
  }
}

/// The placement to the device. In a graph the copy is made in each replay, from the host memory of the call.
inline cudaError_t give_placement(on_cuda const& on, shunt::detail::across_sizes const& n,
                                  expert_placement const& p,
                                  shunt::detail::across_tables<on_cuda> const& t) noexcept {
  for (int r = 0; r < n.ranks; ++r) {
    places_of_rank(p, r, t.placement.slice(r * n.experts, n.experts));
    t.placement[t.at_start + r] = p.start[r];
  }
  t.placement[t.at_start + n.ranks] = p.start[n.ranks];
  for (offset_t at = 0; at < n.places; ++at) t.placement[t.at_expert + at] = p.expert[at];
  return cudaMemcpyAsync(t.placed.data(), t.placement.data(),
                         static_cast<std::size_t>(t.placement.extent(0)) * sizeof(index_t),
                         cudaMemcpyHostToDevice, on.stream);
}
/// The tables that the host fills otherwise, and the starts of an exchange.
inline status share_on_device(on_cuda const& on, char const* who, int rank,
                              shunt::detail::across_sizes const& n,
                              shunt::detail::across_tables<on_cuda> const& t,
                              basic_across_plan<space::device> const& to) noexcept {
  index_t *const tables = t.device.data(), *const placed = t.placed.data();
  across_shares const s{
      .experts = n.experts,
      .ids = n.ids(),
      .levels = n.levels(),
      .places = n.places,
      .local = n.local,
      .top_k = n.top_k,
      .rank = rank,
      .ranks = n.ranks,
      .capacity = n.capacity > 0 ? n.capacity : std::numeric_limits<index_t>::max(),
      .counts = t.counts_of.data(),
      .place_of = placed,
      .owner_start = placed + t.at_start,
      .expert_of = placed + t.at_expert,
      .kept = t.kept.data(),
      .end = tables,
      .quota = tables + t.at_quota,
      .wanted = tables + t.at_wanted,
      .here = tables + t.at_here,
      .tokens = tables + t.at_tokens,
      .send_start = to.send_there.data(),
      .recv_start = to.recv_there.data()};
  if (status bad = launch_threads(on, who, n.ids(), share_counts, s); !bad.ok()) return bad;
  return launch(on, who, 1, tuning::threads, lay_transfers, s);
}

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
