#pragma once
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "crew_over.hpp"
#include "shunt/across/processes.hpp"
#ifdef LM_WITH_MPI
#include "shunt/across/mpi.hpp"
#endif

/// The processes of `train_lm --ranks N`, and those that mpirun started.
namespace lm {

using rank_body = std::function<int(crew&)>;

/// Runs the body and says what went wrong: what all ranks know, rank 0 says.
inline int guarded_body(crew& ranks, rank_body const& body) {
  try {
    return body(ranks);
  } catch (agreed_problem const& e) {
    if (ranks.rank() == 0) std::fprintf(stderr, "train_lm: %s\n", e.what());
  } catch (std::exception const& e) {
    std::fprintf(stderr, "train_lm, rank %d: %s\n", ranks.rank(), e.what());
  }
  return 1;
}

/// Rank 0 is this process, the others are its children, which print nothing of a run that goes well. To be called
/// before there are any threads. Returns what rank 0 returned.
inline int on_processes(int ranks, rank_body const& body) {
  shunt::rank_processes_table table(ranks);
  if (!table.ok())
    throw problem("--ranks: there is no memory for " + std::to_string(ranks) + " ranks");
  std::fflush(nullptr);
  std::vector<pid_t> children;
  auto const run = [&](int rank) {
    shunt::rank_processes transport(table, rank);
    crew_over<shunt::rank_processes> crew(transport);
    return guarded_body(crew, body);
  };
  for (int rank = 1; rank < ranks; ++rank) {
    pid_t const child = ::fork();
    if (child == 0) {
      if (std::freopen("/dev/null", "w", stdout) == nullptr) ::_exit(1);
      ::_exit(run(rank));
    }
    // A rank that could not be started is one that does not answer: rank 0 would wait for it.
    if (child < 0) throw problem("--ranks: a process could not be started");
    children.push_back(child);
  }
  int const outcome = run(0);
  for (pid_t const child : children) ::waitpid(child, nullptr, 0);
  return outcome;
}

#ifdef LM_WITH_MPI
/// MPI as long as this lives. Ranks but the first print nothing of a run that goes well.
class mpi_session {
 public:
  mpi_session(int& argc, char**& argv) {
    MPI_Init(&argc, &argv);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks_);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    silent_ = rank > 0 && std::freopen("/dev/null", "w", stdout) != nullptr;
  }
  ~mpi_session() { MPI_Finalize(); }
  mpi_session(mpi_session const&) = delete;
  mpi_session& operator=(mpi_session const&) = delete;

  /// That mpirun started.
  [[nodiscard]] int ranks() const noexcept { return ranks_; }
  [[nodiscard]] int run(rank_body const& body) const {
    shunt::over_mpi transport(MPI_COMM_WORLD);
    crew_over<shunt::over_mpi> crew(transport);
    int const outcome = guarded_body(crew, body), stopped = 130;
    if (outcome == 0 || outcome == stopped) return outcome;
    // MPI_Finalize would wait for a rank that is dead. The others leave rank 0 time to say what happened.
    if (crew.rank() > 0) ::sleep(2);
    MPI_Abort(MPI_COMM_WORLD, outcome);
    return outcome;
  }

 private:
  int ranks_ = 1;
  bool silent_ = false;
};
#else
/// Built without an MPI: one process, which may start others.
class mpi_session {
 public:
  mpi_session(int&, char**&) {}
  [[nodiscard]] static int ranks() noexcept { return 1; }
  [[nodiscard]] static int run(rank_body const&) { return 1; }
};
#endif

}  // namespace lm
