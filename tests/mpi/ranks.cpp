// A program that mpirun starts: what over_mpi moves, refuses, and survives. Ends with 0 where all is right.
//   ranks moves | unequal | late | grows | dies SEED
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "shunt/across/grow.hpp"
#include "shunt/across/mpi.hpp"
#include "support/across_case.hpp"
#include "support/exchange_case.hpp"

namespace {

using namespace shunt;
using std::chrono::milliseconds;

int verdict(int rank, std::string const& wrong) {
  if (!wrong.empty()) std::fprintf(stderr, "rank %d: %s\n", rank, wrong.c_str());
  return wrong.empty() ? 0 : 1;
}

/// The same values through whole messages and through pieces of one and of a few bytes.
std::string moves() {
  for (std::size_t piece : {over_mpi::longest_piece, std::size_t{1}, std::size_t{7}}) {
    over_mpi x(MPI_COMM_WORLD, milliseconds(60000), piece);
    std::string const wrong = test::exchange_rounds(x, piece == over_mpi::longest_piece ? 40 : 3);
    if (!wrong.empty()) return "pieces of " + std::to_string(piece) + ": " + wrong;
    // More than an envelope takes.
    std::vector<int> const in(3000, x.rank());
    std::vector<int> out(in.size() * static_cast<std::size_t>(x.ranks()));
    bool const wants = x.rank() != 1;
    status const done =
        x.all_gather(in.data(), wants ? out.data() : nullptr, in.size() * sizeof(int));
    if (!done.ok()) return done.message();
    for (std::size_t i = 0; wants && i < out.size(); ++i) {
      if (out[i] != static_cast<int>(i / in.size())) return "gathered numbers differ";
    }
  }
  return "";
}

std::string expect(status const& is, error code, std::string const& sentence) {
  if (is.code() == code && is.message() == sentence) return "";
  return std::string("said: ") + is.message() + "\nexpected: " + sentence;
}

/// Ranks that bring other sizes: each of them gets the same sentence, and none waits.
std::string unequal_gather() {
  over_mpi x(MPI_COMM_WORLD, milliseconds(20000));
  std::vector<std::byte> in(5000), out(5000 * static_cast<std::size_t>(x.ranks()));
  std::size_t const bytes = x.rank() == x.ranks() - 1 ? 5000 : 16;
  return expect(x.all_gather(in.data(), out.data(), bytes), error::bad_argument,
                "all_gather: rank " + std::to_string(x.ranks() - 1) +
                    " brings 5000 bytes and rank 0 16; all must bring as many");
}
/// Rank 0 sends more, or fewer, rows than the others expect.
std::string unequal_rows(offset_t sent) {
  over_mpi x(MPI_COMM_WORLD, milliseconds(20000));
  int const ranks = x.ranks();
  std::vector<std::byte> send(64), recv(64);
  std::vector<offset_t> out(static_cast<std::size_t>(ranks) + 1), in(out.size());
  for (std::size_t r = 0; r < out.size(); ++r) out[r] = in[r] = static_cast<offset_t>(r);
  if (x.rank() == 0) {
    for (std::size_t r = 2; r < out.size(); ++r) out[r] = out[r - 1] + sent;
  }
  auto const starts = [&](std::vector<offset_t> const& s) {
    return view<offset_t const, 1>(s.data(), ranks + 1);
  };
  status const begun = x.begin({send.data(), recv.data(), 1, starts(out), starts(in)});
  if (!begun.ok()) return begun.message();
  status const done = x.finish();
  if (x.rank() == 0) return done.ok() ? "" : done.message();
  return expect(
      done, error::bad_argument,
      "finish: finish: rank 0 sends other rows in exchange 0 than this rank expects; their "
      "counts and bytes must agree");
}
/// A rank that comes after the deadline is named by the others.
std::string late() {
  over_mpi x(MPI_COMM_WORLD, milliseconds(300));
  int in = 0;
  std::vector<int> out(static_cast<std::size_t>(x.ranks()));
  if (x.rank() == x.ranks() - 1) {
    MPI_Barrier(MPI_COMM_WORLD);  // the others have given up
    return "";
  }
  status const done = x.all_gather(&in, out.data(), sizeof in);
  MPI_Barrier(MPI_COMM_WORLD);
  return expect(
      done, error::peer,
      "all_gather: rank " + std::to_string(x.ranks() - 1) + " has not answered for 300 ms");
}
/// A group without the last rank, then one with it: an over_mpi of the larger communicator, and its share of the
/// experts from those who had them.
std::string grows() {
  int rank = 0, ranks = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  bool const comes = rank == ranks - 1;
  MPI_Comm smaller;
  MPI_Comm_split(MPI_COMM_WORLD, comes ? 1 : 0, rank, &smaller);
  if (!comes) {
    over_mpi x(smaller, milliseconds(20000));
    std::string const wrong = test::exchange_rounds(x, 3);
    if (!wrong.empty()) return wrong;
  }
  MPI_Comm_free(&smaller);

  over_mpi x(MPI_COMM_WORLD, milliseconds(20000));
  test::placed const had = test::placed_evenly(ranks - 1, 7), has = test::placed_evenly(ranks, 7);
  std::vector<std::uint8_t> came(static_cast<std::size_t>(ranks), 0);
  came.back() = 1;
  std::vector<index_t> start(came.size() + 1);
  expert_placement before;
  status done = place_with_newcomers(had.view_of(), view<std::uint8_t const, 1>(came.data(), ranks),
                                     view<index_t, 1>(start.data(), ranks + 1), before);
  if (!done.ok()) return done.message();
  std::vector<float> from(static_cast<std::size_t>(before.on_rank(rank))), to(has.of(rank).size());
  for (std::size_t i = 0; i < from.size(); ++i) {
    from[i] = static_cast<float>(before.expert[before.start[rank] + static_cast<index_t>(i)]);
  }
  among_ranks<over_mpi> const among{.transport = x, .placement = has.view_of()};
  std::vector<std::byte> work(move_experts_scratch_bytes(among, before, sizeof(float)));
  auto const column = [](auto& v) { return view(v.data(), static_cast<offset_t>(v.size()), 1); };
  done = move_experts(among, before, view<float const, 2>(column(from)), column(to), work);
  if (!done.ok()) return done.message();
  for (std::size_t i = 0; i < to.size(); ++i) {
    if (to[i] != static_cast<float>(has.of(rank)[i])) return "another expert came";
  }
  return test::exchange_rounds(x, 3);
}
/// A rank kills itself; the others name it, agree, and go on.
std::string dies(int seed) {
  over_mpi x(MPI_COMM_WORLD, milliseconds(20000));
  int const ranks = x.ranks(), victim = seed % ranks, after = seed * 7919 % 23;
  for (int round = 0;; ++round) {
    if (x.rank() == victim && round == after) raise(SIGKILL);
    std::string const wrong = test::exchange_rounds(x, 1);
    if (wrong.empty()) continue;
    std::string const name =
        "rank " + std::to_string(victim) + " of " + std::to_string(ranks) + " died or left";
    if (wrong.find(name) == std::string::npos)
      return "does not name rank " + std::to_string(victim) + ": " + wrong;
    break;
  }
  std::vector<std::uint8_t> survives(static_cast<std::size_t>(ranks));
  status const done = x.recover(view<std::uint8_t, 1>(survives.data(), ranks));
  if (!done.ok()) return done.message();
  if (survives[static_cast<std::size_t>(victim)] != 0 || x.ranks() != ranks - 1)
    return "recovered other ranks";
  return test::exchange_rounds(x, 5);
}

}  // namespace

int main(int count, char** arguments) {
  MPI_Init(&count, &arguments);
  std::string const what = count > 1 ? arguments[1] : "";
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  std::string wrong = "usage: ranks moves | unequal | late | grows | dies SEED";
  if (what == "moves") wrong = moves();
  if (what == "unequal") {
    wrong = unequal_gather();
    if (wrong.empty()) wrong = unequal_rows(2);
    if (wrong.empty()) wrong = unequal_rows(0);
  }
  if (what == "late") wrong = late();
  if (what == "grows") wrong = grows();
  int const code = what == "dies" && count > 2 ? verdict(rank, dies(std::atoi(arguments[2])))
                                               : verdict(rank, wrong);
  if (what == "dies") _exit(code);  // MPI_Finalize would wait for the one that is gone
  MPI_Finalize();
  return code;
}
