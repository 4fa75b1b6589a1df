// A program that mpirun starts: the layer with experts on the ranks of MPI has the bits of one process, forward and
// backward, in float and in bf16. Each rank computes the whole by itself to compare. Ends with 0 where all is right.
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "../../examples/support/numbers.hpp"
#include "shunt/across.hpp"
#include "shunt/across/mpi.hpp"

namespace {

using namespace shunt;
constexpr index_t T = 61, H = 24, I = 20, E = 7, K = 3;

template <class S> std::vector<S> numbers(std::uint64_t seed, offset_t count, float scale) {
  std::vector<S> out;
  for (float x : example::numbers(seed, count, scale)) out.push_back(from_float<S>(x));
  return out;
}
template <class S>
bool same(std::vector<S> const& mine, std::vector<S> const& whole, offset_t first) {
  return mine.empty() ||
         std::memcmp(mine.data(), whole.data() + first, mine.size() * sizeof(S)) == 0;
}

/// Results of forward and backward: of the whole, or of one rank's tokens and experts.
template <class S> struct results {
  std::vector<S> y, d_x;
  std::vector<float> up, down;
  results(offset_t tokens, offset_t experts)
      : y(std::size_t(tokens * H)),
        d_x(y.size()),
        up(std::size_t(experts * 2 * I * H)),
        down(std::size_t(experts * H * I)) {}
  [[nodiscard]] moe_gradients<> gradients(offset_t experts) {
    moe_gradients<> g;
    g.up = view<float, 3>(up.data(), {{experts, 2 * I, H}});
    g.down = view<float, 3>(down.data(), {{experts, H, I}});
    return g;
  }
};

template <class S> std::string layer() {
  auto const x = numbers<S>(1, T * H, 1.0f), d_y = numbers<S>(2, T * H, 1.0f),
             gate = numbers<S>(3, E * H, 0.5f), up = numbers<S>(4, E * 2 * I * H, 0.5f),
             down = numbers<S>(5, E * H * I, 0.5f);
  moe_weights<S> const whole_weights{.gate = view<S const, 2>(gate.data(), {{E, H}}),
                                     .up = view<S const, 3>(up.data(), {{E, 2 * I, H}}),
                                     .down = view<S const, 3>(down.data(), {{E, H, I}})};
  layer_options<> const options{.top_k = K, .route = {.gates = gate_kind::renormalized}};
  on_host const on{.threads = 1};
  auto const tokens_of = [](auto& m, offset_t first, offset_t count) {
    return view(m.data() + first * H, count, offset_t{H});
  };

  results<S> whole(T, E);
  {
    std::vector<std::byte> keep(moe_saved_bytes(T, whole_weights, options)),
        work(std::max(moe_layer_scratch_bytes(on, T, whole_weights, options, true),
                      moe_layer_backward_scratch_bytes(on, T, whole_weights, options)));
    arena<> from(keep);
    auto const saved = carve_moe_saved(from, T, whole_weights, options);
    status done = moe_layer(on, tokens_of(x, 0, T), whole_weights, tokens_of(whole.y, 0, T),
                            {.saved = &saved}, work, options);
    if (done.ok()) {
      done = moe_layer_backward(on, tokens_of(x, 0, T), whole_weights, tokens_of(d_y, 0, T), saved,
                                tokens_of(whole.d_x, 0, T), whole.gradients(E), work, options);
    }
    if (!done.ok()) return done.message();
  }

  over_mpi transport(MPI_COMM_WORLD);
  int const ranks = transport.ranks(), rank = transport.rank();
  std::vector<index_t> start(std::size_t(ranks) + 1), expert(E);
  among_ranks<over_mpi> const among{
      .transport = transport, .placement = place_evenly(start, expert), .most_tokens = T};
  // Rank 1 has no tokens; the others have equal parts, the last one the rest.
  auto const first_of = [&](int r) { return r <= 1 ? T / ranks * r : T / ranks * (r - 1); };
  index_t const first = first_of(rank), count = rank == ranks - 1 ? T - first
                                                : rank == 1       ? 0
                                                                  : T / ranks;
  auto mine = whole_weights;
  mine.up = whole_weights.up.slice(start[std::size_t(rank)], among.placement.on_rank(rank));
  mine.down = whole_weights.down.slice(start[std::size_t(rank)], among.placement.on_rank(rank));
  index_t const local = among.placement.on_rank(rank);
  results<S> part(count, local);
  std::vector<std::byte> keep(moe_across_saved_bytes(among, count, mine, options)),
      work(std::max(moe_layer_across_scratch_bytes(on, among, count, mine, options, true),
                    moe_layer_across_backward_scratch_bytes(on, among, count, mine, options)));
  arena<> from(keep);
  auto const saved = carve_moe_across_saved(from, among, count, mine, options);
  status done = moe_layer_across(on, among, tokens_of(x, first, count), mine,
                                 tokens_of(part.y, 0, count), {.saved = &saved}, work, options);
  if (!done.ok()) return done.message();
  done = moe_layer_across_backward(
      on, among, tokens_of(x, first, count), mine, tokens_of(d_y, first, count), saved,
      tokens_of(part.d_x, 0, count), part.gradients(local), work, options);
  if (!done.ok()) return done.message();
  offset_t const e = start[std::size_t(rank)];
  if (!same(part.y, whole.y, first * offset_t{H})) return "y differs";
  if (!same(part.d_x, whole.d_x, first * offset_t{H})) return "d_x differs";
  if (!same(part.up, whole.up, e * 2 * I * H)) return "the gradient of up differs";
  if (!same(part.down, whole.down, e * H * I)) return "the gradient of down differs";
  return "";
}

}  // namespace

int main(int count, char** arguments) {
  MPI_Init(&count, &arguments);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  std::string wrong = layer<float>();
  if (wrong.empty()) wrong = layer<bf16>();
  if (!wrong.empty()) std::fprintf(stderr, "rank %d: %s\n", rank, wrong.c_str());
  MPI_Finalize();
  return wrong.empty() ? 0 : 1;
}
