#pragma once
#include "shunt/core/compiler.hpp"

#include <mpi.h>
#if defined(OPEN_MPI)
#include <mpi-ext.h>
#endif

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "shunt/across/exchange.hpp"

/// Messages of over_mpi: sent and received in pieces, with a deadline, and with a sentence for all that can go wrong.
namespace shunt::detail {
inline namespace SHUNT_ABI {

/// One message in pieces: MPI counts bytes in an int. The last piece is shorter than the others, and may be empty, so
/// that both ends see where the message ends although only one of them knows its length.
struct mpi_message {
  std::byte* at = nullptr;
  std::size_t left = 0, now = 0;
  int peer = 0, tag = 0;
  bool receives = false, exact = true;  // not exact: what comes may be shorter
};

/// The messages under way on a communicator of their own.
class mpi_messages {
 public:
  using milliseconds = std::chrono::milliseconds;
  static constexpr int first_rows_tag = 16;  // exchange i of rows; other messages are below

  /// Collective over `comm`. `most`: messages under way at once, for each other rank.
  mpi_messages(MPI_Comm comm, milliseconds deadline, std::size_t piece, int most)
      : deadline_(deadline), piece_(piece) {
    MPI_Comm own = MPI_COMM_NULL;
    MPI_Comm_dup(comm, &own);
    take(own);
    std::size_t const count = static_cast<std::size_t>(ranks_) * static_cast<std::size_t>(most);
    messages_.resize(count);
    requests_.resize(count, MPI_REQUEST_NULL);
    done_.resize(count);
    statuses_.resize(count);
  }
  ~mpi_messages() {
    int ended = 0;
    MPI_Finalized(&ended);
    if (ended == 0 && !broken_) MPI_Comm_free(&comm_);
  }
  mpi_messages(mpi_messages const&) = delete;
  mpi_messages& operator=(mpi_messages const&) = delete;

  [[nodiscard]] int rank() const noexcept { return rank_; }
  [[nodiscard]] int ranks() const noexcept { return ranks_; }

  void send(void const* from, std::size_t bytes, int to, int tag) noexcept {
    add({static_cast<std::byte*>(const_cast<void*>(from)), bytes, 0, to, tag, false, true});
  }
  void receive(void* to, std::size_t bytes, int from, int tag, bool exact = true) noexcept {
    add({static_cast<std::byte*>(to), bytes, 0, from, tag, true, exact});
  }
  /// Until every message has gone, or one cannot; then none is under way.
  [[nodiscard]] status wait(char const* who) noexcept;
  /// See recover().
  [[nodiscard]] status recover(view<std::uint8_t, 1> survives) noexcept;

 private:
  using clock = std::chrono::steady_clock;

  void take(MPI_Comm comm) noexcept {
    comm_ = comm;
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &ranks_);
  }
  void add(mpi_message const& m) noexcept {
    messages_[static_cast<std::size_t>(count_)] = m;
    post(count_++);
  }
  void post(int i) noexcept {
    mpi_message& m = messages_[static_cast<std::size_t>(i)];
    MPI_Request& request = requests_[static_cast<std::size_t>(i)];
    m.now = m.left < piece_ ? m.left : piece_;
    int const bytes = static_cast<int>(m.now);
    int const code = m.receives ? MPI_Irecv(m.at, bytes, MPI_BYTE, m.peer, m.tag, comm_, &request)
                                : MPI_Isend(m.at, bytes, MPI_BYTE, m.peer, m.tag, comm_, &request);
    if (code != MPI_SUCCESS) note(outcome(code, i));
  }
  /// The first thing that went wrong is what wait() returns.
  void note(status const& wrong) noexcept {
    if (wrong_.ok()) wrong_ = wrong;
  }
  void advance(int i, MPI_Status const& s) noexcept;
  [[nodiscard]] status outcome(int code, int message) noexcept;
  [[nodiscard]] status other_length(mpi_message const& m) const noexcept {
    return other_rows(m.peer, m.tag < first_rows_tag ? 0 : m.tag - first_rows_tag);
  }
  [[nodiscard]] status late() const noexcept;
  [[nodiscard]] status lost_rank() noexcept;
  void abandon() noexcept;

  MPI_Comm comm_ = MPI_COMM_NULL;
  milliseconds deadline_;
  std::size_t piece_;
  int rank_ = 0, ranks_ = 1, count_ = 0;
  bool broken_ = false;
  status wrong_;
  std::vector<mpi_message> messages_;
  std::vector<MPI_Request> requests_;
  std::vector<int> done_;
  std::vector<MPI_Status> statuses_;
};

/// A piece has arrived or left: the next one, if there is one.
inline void mpi_messages::advance(int i, MPI_Status const& s) noexcept {
  mpi_message& m = messages_[static_cast<std::size_t>(i)];
  if (m.receives) {
    int bytes = 0;
    MPI_Get_count(&s, MPI_BYTE, &bytes);
    auto const got = static_cast<std::size_t>(bytes);
    if (got != m.now && m.exact) note(other_length(m));
    if (got != m.now) return;
  }
  m.at += m.now;
  m.left -= m.now;
  if (m.now == piece_) post(i);
}

inline status mpi_messages::wait(char const* who) noexcept {
  auto const started = clock::now();
  for (int turn = 0; wrong_.ok(); ++turn) {
    int done = 0;
    int const code = MPI_Testsome(count_, requests_.data(), &done, done_.data(), statuses_.data());
    if (done == MPI_UNDEFINED) break;  // none is left
    if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) {
      note(outcome(code, 0));
      break;
    }
    for (int i = 0; i < done; ++i) {
      MPI_Status const& s = statuses_[static_cast<std::size_t>(i)];
      int const which = done_[static_cast<std::size_t>(i)];
      bool const failed = code == MPI_ERR_IN_STATUS && s.MPI_ERROR != MPI_SUCCESS;
      if (!failed) advance(which, s);
      if (failed) note(outcome(s.MPI_ERROR, which));
    }
    if (done > 0) {
      turn = 0;
      continue;
    }
    if (turn > 4096) {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    } else if (turn > 64) {
      std::this_thread::yield();
    }
    if (clock::now() - started > deadline_) note(late());
  }
  status const is = wrong_;
  if (!is.ok()) abandon();
  wrong_ = {};
  count_ = 0;
  if (is.ok()) return is;
  broken_ = true;
  return status::fail(is.code(), "%s: %s", who, is.message());
}

/// Which rank is awaited in vain.
inline status mpi_messages::late() const noexcept {
  int peer = -1;
  for (int i = count_ - 1; i >= 0; --i) {
    if (requests_[static_cast<std::size_t>(i)] == MPI_REQUEST_NULL) continue;
    mpi_message const& m = messages_[static_cast<std::size_t>(i)];
    if (m.receives || peer < 0) peer = m.peer;
  }
  return status::fail(error::peer, "rank %d has not answered for %lld ms", peer,
                      static_cast<long long>(deadline_.count()));
}

/// What an error of MPI means for this exchange.
inline status mpi_messages::outcome(int code, int message) noexcept {
  int kind = code;
  MPI_Error_class(code, &kind);
  if (kind == MPI_ERR_TRUNCATE) return other_length(messages_[static_cast<std::size_t>(message)]);
#if defined(MPIX_ERR_PROC_FAILED)
  if (kind == MPIX_ERR_PROC_FAILED || kind == MPIX_ERR_PROC_FAILED_PENDING ||
      kind == MPIX_ERR_REVOKED) {
    return lost_rank();
  }
#endif
  char said[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(code, said, &length);
  return status::fail(error::peer, "rank %d: MPI says: %.180s",
                      messages_[static_cast<std::size_t>(message)].peer, said);
}

/// Cancels what has not come and forgets what has not gone: memory of the caller is not written afterwards.
inline void mpi_messages::abandon() noexcept {
  auto const started = clock::now();
  for (int i = 0; i < count_; ++i) {
    MPI_Request& request = requests_[static_cast<std::size_t>(i)];
    if (request == MPI_REQUEST_NULL) continue;
    int gone = 0;
    if (messages_[static_cast<std::size_t>(i)].receives) {
      MPI_Cancel(&request);
      // A message that has begun to arrive cannot be cancelled: it is given the time of a long piece.
      while (gone == 0 && clock::now() - started < std::chrono::seconds(2)) {
        if (MPI_Test(&request, &gone, MPI_STATUS_IGNORE) != MPI_SUCCESS) break;
      }
    }
    if (request != MPI_REQUEST_NULL) MPI_Request_free(&request);
    request = MPI_REQUEST_NULL;
  }
}

#if defined(MPIX_ERR_PROC_FAILED)

/// The lowest rank that died. Where another rank has called recover() first, the news of it may still be on its way.
inline status mpi_messages::lost_rank() noexcept {
  MPI_Group all = MPI_GROUP_NULL, lost = MPI_GROUP_NULL;
  MPI_Comm_group(comm_, &all);
  int size = 0, first = 0, rank = -1;
  for (auto const started = clock::now(); size == 0 && clock::now() - started < deadline_;) {
    if (lost != MPI_GROUP_NULL) MPI_Group_free(&lost);
    MPIX_Comm_get_failed(comm_, &lost);
    MPI_Group_size(lost, &size);
    if (size > 0) break;
    int came = 0;  // the news moves only while MPI is called
    MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, MPI_COMM_SELF, &came, MPI_STATUS_IGNORE);
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  if (size > 0) MPI_Group_translate_ranks(lost, 1, &first, all, &rank);
  if (lost != MPI_GROUP_NULL) MPI_Group_free(&lost);
  MPI_Group_free(&all);
  if (rank < 0) return status::fail(error::peer, "another rank waits in recover: it misses a rank");
  return status::fail(error::peer, "rank %d of %d died or left", rank, ranks_);
}

inline status mpi_messages::recover(view<std::uint8_t, 1> survives) noexcept {
  // Whoever still waits for a message of this rank wakes up.
  MPIX_Comm_revoke(comm_);
  int here = 1, met = 0;
  MPI_Request meeting = MPI_REQUEST_NULL;
  MPIX_Comm_iagree(comm_, &here, &meeting);
  for (auto const started = clock::now(); met == 0;) {
    if (MPI_Test(&meeting, &met, MPI_STATUS_IGNORE) != MPI_SUCCESS) break;  // somebody died: agreed
    if (met == 0 && clock::now() - started > deadline_) {
      return status::fail(error::peer,
                          "recover: a rank that is alive has not called it for %lld ms",
                          static_cast<long long>(deadline_.count()));
    }
    if (met == 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  MPI_Comm next = MPI_COMM_NULL;
  if (MPIX_Comm_shrink(comm_, &next) != MPI_SUCCESS) {
    return status::fail(error::peer, "recover: MPI cannot shrink the communicator");
  }
  MPI_Group before = MPI_GROUP_NULL, after = MPI_GROUP_NULL;
  MPI_Comm_group(comm_, &before);
  MPI_Comm_group(next, &after);
  for (int r = 0; r < ranks_ && survives; ++r) {
    int as = MPI_UNDEFINED;
    MPI_Group_translate_ranks(before, 1, &r, after, &as);
    survives[r] = as != MPI_UNDEFINED ? 1 : 0;
  }
  MPI_Group_free(&before);
  MPI_Group_free(&after);
  MPI_Comm_free(&comm_);
  take(next);
  count_ = 0;
  broken_ = false;
  return {};
}

#else

inline status mpi_messages::lost_rank() noexcept {
  return status::fail(error::peer, "a rank died");
}
inline status mpi_messages::recover(view<std::uint8_t, 1>) noexcept {
  return status::fail(error::unsupported,
                      "recover: this MPI has no ULFM (Open MPI 5 has, with mpirun --with-ft ulfm)");
}

#endif

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
