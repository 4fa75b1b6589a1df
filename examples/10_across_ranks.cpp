// Experts on three ranks, each with tokens of its own: the outputs have the bits of one process. The ranks are
// threads here; over_mpi (shunt/across/mpi.hpp) takes the place of rank_threads in an MPI program.
//
// test:
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "shunt/across.hpp"
#include "shunt/across/threads.hpp"
#include "support/numbers.hpp"

using example::numbers;
using shunt::index_t, shunt::view;

constexpr int R = 3;
constexpr index_t T = 60, H = 32, I = 48, E = 8, share = T / R;

int main() {
  std::vector<float> const x = numbers(1, T * H, 1.0f), gate = numbers(2, E * H, 0.3f),
                           up = numbers(3, E * 2 * I * H, 0.3f), down = numbers(4, E * H * I, 0.3f);
  std::vector<float> whole(T * H), y(T * H);
  shunt::moe_weights<float> const weights{.gate = view(gate.data(), E, H),
                                          .up = view(up.data(), E, 2 * I, H),
                                          .down = view(down.data(), E, H, I)};
  shunt::layer_options<> const options{.top_k = 2};
  shunt::on_host const on{.threads = 1};

  // One process.
  std::vector<std::byte> work(shunt::moe_layer_scratch_bytes(on, T, weights, options));
  auto const done =
      shunt::moe_layer(on, view(x.data(), T, H), weights, view(whole.data(), T, H), work, options);
  if (!done.ok()) return std::fprintf(stderr, "%s\n", done.message()), 1;

  // Three ranks: experts 0-2, 3-5 and 6-7, and 20 tokens each.
  index_t start[R + 1], expert[E];
  auto const placement =
      shunt::place_evenly(view<index_t, 1>(start, R + 1), view<index_t, 1>(expert, E));
  shunt::rank_threads_table table(R);
  shunt::across_report sent[R];
  int failed[R] = {};
  auto const rank = [&](int r) {
    shunt::rank_threads transport(table, r);
    shunt::among_ranks<shunt::rank_threads> const among{
        .transport = transport, .placement = placement, .report = &sent[r]};
    auto mine = weights;  // the gate projection whole, and this rank's experts
    mine.up = weights.up.slice(start[r], placement.on_rank(r));
    mine.down = weights.down.slice(start[r], placement.on_rank(r));
    std::vector<std::byte> scratch(
        shunt::moe_layer_across_scratch_bytes(on, among, share, mine, options));
    auto const is =
        shunt::moe_layer_across(on, among, view(x.data() + r * share * H, share, H), mine,
                                view(y.data() + r * share * H, share, H), scratch, options);
    if (!is.ok()) std::fprintf(stderr, "%s\n", is.message()), failed[r] = 1;
  };
  std::vector<std::thread> others;
  for (int r = 1; r < R; ++r) others.emplace_back(rank, r);
  rank(0);
  for (std::thread& t : others) t.join();
  for (int r = 0; r < R; ++r) {
    std::printf("rank %d: experts %d to %d; it sent %lld rows, of tokens or back, %lld bytes\n", r,
                int(start[r]), int(start[r + 1] - 1), static_cast<long long>(sent[r].rows_sent),
                static_cast<long long>(sent[r].bytes_sent));
  }
  bool const same = std::memcmp(y.data(), whole.data(), y.size() * sizeof(float)) == 0;
  std::puts(same ? "the bits of one process" : "other bits than one process");
  return same && failed[0] + failed[1] + failed[2] == 0 ? 0 : 1;
}
