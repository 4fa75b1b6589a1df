#pragma once
#include "shunt/core/compiler.hpp"

#include <mpi.h>
#if defined(OPEN_MPI)
#include <mpi-ext.h>
#endif

#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#include "shunt/across/exchange.hpp"

/// Ranks of an MPI communicator. MPI moves bytes from rank to rank and nothing else: what Shunt promises about bits
/// and errors does not depend on how a library reduces. The only header of Shunt that includes <mpi.h>.
namespace shunt {
namespace detail {
inline namespace SHUNT_ABI {

/// One message in pieces: MPI counts bytes in an int. The last piece is shorter than the others, and may be empty, so
/// that both ends see where the message ends although only one of them knows its length.
struct mpi_message {
  std::byte* at = nullptr;
  std::size_t left = 0, now = 0;
  int peer = 0, tag = 0;
  bool receives = false, exact = true;  // not exact: what comes may be shorter
};

/// What a rank says of itself in all_gather, in front of the first bytes.
struct mpi_envelope {
  static constexpr std::size_t most_bytes = 2048;
  std::uint64_t bytes = 0;  // of the whole message
  std::uint64_t wants = 0;  // 1: it receives those of the others
  std::byte first[most_bytes];
};

}  // namespace SHUNT_ABI
}  // namespace detail

inline namespace SHUNT_ABI {

/// The exchange of an MPI program: one object on each rank of `comm`, made by all of them together, after MPI_Init and
/// destroyed before MPI_Finalize; called by the thread that MPI was told of (MPI_THREAD_FUNNELED suffices). It has a
/// communicator of its own. With ULFM (Open MPI 5: mpirun --with-ft ulfm) a rank that dies is named at once, and
/// recover() goes on without it; with another MPI a rank that dies is one that does not answer in time.
///   shunt::over_mpi among(MPI_COMM_WORLD);
class over_mpi {
 public:
  static constexpr space memory = space::host;                           ///< where rows are
  static constexpr std::size_t longest_piece = std::size_t{1} << 30;     ///< bytes of one MPI call

  /// Collective over `comm`. `deadline`: how long another rank may be late. `piece_bytes`: what one MPI call moves.
  explicit over_mpi(MPI_Comm comm,
                    std::chrono::milliseconds deadline = std::chrono::milliseconds(60000),
                    std::size_t piece_bytes = longest_piece)
      : deadline_(deadline),
        piece_(piece_bytes < 1 ? 1 : piece_bytes > longest_piece ? longest_piece : piece_bytes) {
    MPI_Comm own = MPI_COMM_NULL;
    MPI_Comm_dup(comm, &own);
    take(own);
    auto const most = std::size_t{2} * static_cast<std::size_t>(ranks_) * most_begun_exchanges;
    messages_.resize(most);
    requests_.resize(most, MPI_REQUEST_NULL);
    done_.resize(most);
    statuses_.resize(most);
    envelopes_.resize(static_cast<std::size_t>(ranks_));
  }
  ~over_mpi() {
    int ended = 0;
    MPI_Finalized(&ended);
    if (ended == 0 && !broken_) MPI_Comm_free(&comm_);
  }
  over_mpi(over_mpi const&) = delete;
  over_mpi& operator=(over_mpi const&) = delete;

  [[nodiscard]] int rank() const noexcept { return rank_; }    ///< of this process
  [[nodiscard]] int ranks() const noexcept { return ranks_; }  ///< that are left

  /// See exchange. One round up to 2 KiB a rank, else two.
  status all_gather(void const* in, void* out, std::size_t bytes) noexcept {
    using detail::copy_bytes, detail::mpi_envelope;
    constexpr std::size_t head = sizeof(mpi_envelope) - mpi_envelope::most_bytes;
    std::size_t const in_first = bytes < mpi_envelope::most_bytes ? bytes : mpi_envelope::most_bytes;
    mpi_envelope& own = envelope(rank_);
    own.bytes = bytes;
    own.wants = out != nullptr ? 1 : 0;
    copy_bytes(own.first, in, in_first);
    for (int r = 0; r < ranks_; ++r) {
      if (r == rank_) continue;
      receive(&envelope(r), sizeof(mpi_envelope), r, gather_tag, false);
      send(&own, head + in_first, r, gather_tag);
    }
    if (status bad = wait("all_gather"); !bad.ok()) return bad;
    for (int r = 0; r < ranks_; ++r) {
      auto const is = static_cast<std::size_t>(envelope(r).bytes), must = static_cast<std::size_t>(envelope(0).bytes);
      if (is != must) return detail::other_bytes(r, is, must);
    }
    auto* const to = static_cast<std::byte*>(out);
    auto const* const from = static_cast<std::byte const*>(in);
    for (int r = 0; r < ranks_; ++r) {
      std::byte* const place = to != nullptr ? to + static_cast<std::size_t>(r) * bytes : nullptr;
      if (place != nullptr) copy_bytes(place, r == rank_ ? in : envelope(r).first, r == rank_ ? bytes : in_first);
      if (r == rank_ || bytes == in_first) continue;
      if (place != nullptr) receive(place + in_first, bytes - in_first, r, rest_tag);
      if (envelope(r).wants != 0) send(from + in_first, bytes - in_first, r, rest_tag);
    }
    return wait("all_gather");
  }
  /// See exchange. The messages leave at once; finish() waits for them.
  status begin(exchange_rows const& rows) noexcept {
    if (status bad = detail::check_exchange("over_mpi.begin", rows, rank_, ranks_); !bad.ok()) return bad;
    if (begun_ == most_begun_exchanges) {
      return status::fail(error::bad_argument,
                          "over_mpi.begin: %d exchanges are begun; finish() must come first", begun_);
    }
    int const tag = rows_tag + begun_++;
    auto const at = [&](auto* base, offset_t row) { return base + static_cast<std::size_t>(row) * rows.row_bytes; };
    auto const bytes = [&](view<offset_t const, 1> start, int r) {
      return static_cast<std::size_t>(start[r + 1] - start[r]) * rows.row_bytes;
    };
    for (int r = 0; r < ranks_; ++r) {
      if (r == rank_) continue;
      receive(at(static_cast<std::byte*>(rows.recv), rows.recv_start[r]), bytes(rows.recv_start, r), r, tag);
    }
    for (int r = 0; r < ranks_; ++r) {
      if (r == rank_) continue;
      send(at(static_cast<std::byte const*>(rows.send), rows.send_start[r]), bytes(rows.send_start, r), r, tag);
    }
    detail::copy_own_rows(rows, rank_);
    return {};
  }
  /// See exchange.
  status finish() noexcept {
    begun_ = 0;
    return wait("finish");
  }
  /// See exchange.
  status carry(void* out, std::size_t bytes) noexcept {
    if (rank_ > 0) receive(out, bytes, rank_ - 1, chain_tag);
    return wait("carry");
  }
  /// See exchange.
  status pass_on(void const* in, std::size_t bytes) noexcept {
    if (rank_ + 1 < ranks_) send(in, bytes, rank_ + 1, chain_tag);
    return wait("pass_on");
  }
  /// See recover(). error::unsupported where MPI has no ULFM.
  status recover(view<std::uint8_t, 1> survives) noexcept;

 private:
  enum : int { gather_tag = 1, rest_tag, chain_tag, rows_tag };
  using clock = std::chrono::steady_clock;

  [[nodiscard]] detail::mpi_envelope& envelope(int rank) noexcept {
    return envelopes_[static_cast<std::size_t>(rank)];
  }
  void take(MPI_Comm comm) noexcept {
    comm_ = comm;
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    MPI_Comm_rank(comm_, &rank_);
    MPI_Comm_size(comm_, &ranks_);
  }

  void send(void const* from, std::size_t bytes, int to, int tag) noexcept {
    add({static_cast<std::byte*>(const_cast<void*>(from)), bytes, 0, to, tag, false, true});
  }
  void receive(void* to, std::size_t bytes, int from, int tag, bool exact = true) noexcept {
    add({static_cast<std::byte*>(to), bytes, 0, from, tag, true, exact});
  }
  void add(detail::mpi_message const& m) noexcept {
    messages_[static_cast<std::size_t>(count_)] = m;
    post(count_++);
  }
  void post(int i) noexcept {
    detail::mpi_message& m = messages_[static_cast<std::size_t>(i)];
    MPI_Request& request = requests_[static_cast<std::size_t>(i)];
    m.now = m.left < piece_ ? m.left : piece_;
    int const bytes = static_cast<int>(m.now);
    int const code = m.receives ? MPI_Irecv(m.at, bytes, MPI_BYTE, m.peer, m.tag, comm_, &request)
                                : MPI_Isend(m.at, bytes, MPI_BYTE, m.peer, m.tag, comm_, &request);
    if (code != MPI_SUCCESS && wrong_.ok()) wrong_ = outcome(code, i);
  }
  /// A piece has arrived or left: the next one, if there is one.
  void advance(int i, MPI_Status const& s) noexcept {
    detail::mpi_message& m = messages_[static_cast<std::size_t>(i)];
    if (m.receives) {
      int bytes = 0;
      MPI_Get_count(&s, MPI_BYTE, &bytes);
      auto const got = static_cast<std::size_t>(bytes);
      if (got != m.now && m.exact && wrong_.ok()) wrong_ = other_length(m);
      if (got != m.now) return;
    }
    m.at += m.now;
    m.left -= m.now;
    if (m.now == piece_) post(i);
  }
  [[nodiscard]] static status other_length(detail::mpi_message const& m) noexcept {
    return detail::other_rows(m.peer, m.tag < rows_tag ? 0 : m.tag - rows_tag);
  }

  [[nodiscard]] status wait(char const* who) noexcept;
  [[nodiscard]] status outcome(int code, int message) noexcept;
  [[nodiscard]] status lost_rank() noexcept;
  [[nodiscard]] status late() const noexcept;
  void abandon() noexcept;

  MPI_Comm comm_ = MPI_COMM_NULL;
  std::chrono::milliseconds deadline_;
  std::size_t piece_;
  int rank_ = 0, ranks_ = 1, begun_ = 0, count_ = 0;
  bool broken_ = false;
  status wrong_;
  std::vector<detail::mpi_message> messages_;
  std::vector<MPI_Request> requests_;
  std::vector<int> done_;
  std::vector<MPI_Status> statuses_;
  std::vector<detail::mpi_envelope> envelopes_;
};

/// Until every message has gone, or one cannot.
inline status over_mpi::wait(char const* who) noexcept {
  auto const started = clock::now();
  for (int turn = 0; wrong_.ok(); ++turn) {
    int done = 0;
    int const code =
        MPI_Testsome(count_, requests_.data(), &done, done_.data(), statuses_.data());
    if (done == MPI_UNDEFINED) break;  // none is left
    if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) {
      wrong_ = outcome(code, 0);
      break;
    }
    for (int i = 0; i < done; ++i) {
      MPI_Status const& s = statuses_[static_cast<std::size_t>(i)];
      int const which = done_[static_cast<std::size_t>(i)];
      bool const failed = code == MPI_ERR_IN_STATUS && s.MPI_ERROR != MPI_SUCCESS;
      if (!failed) advance(which, s);
      if (failed && wrong_.ok()) wrong_ = outcome(s.MPI_ERROR, which);
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
    if (clock::now() - started > deadline_) wrong_ = late();
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
inline status over_mpi::late() const noexcept {
  int peer = -1;
  for (int i = count_ - 1; i >= 0; --i) {
    if (requests_[static_cast<std::size_t>(i)] == MPI_REQUEST_NULL) continue;
    detail::mpi_message const& m = messages_[static_cast<std::size_t>(i)];
    if (m.receives || peer < 0) peer = m.peer;
  }
  return status::fail(error::peer, "rank %d has not answered for %lld ms", peer,
                      static_cast<long long>(deadline_.count()));
}

/// What an error of MPI means for this exchange.
inline status over_mpi::outcome(int code, int message) noexcept {
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
inline void over_mpi::abandon() noexcept {
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
inline status over_mpi::lost_rank() noexcept {
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

inline status over_mpi::recover(view<std::uint8_t, 1> survives) noexcept {
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
  begun_ = count_ = 0;
  broken_ = false;
  return {};
}

#else

inline status over_mpi::lost_rank() noexcept { return status::fail(error::peer, "a rank died"); }
inline status over_mpi::recover(view<std::uint8_t, 1>) noexcept {
  return status::fail(error::unsupported,
                      "recover: this MPI has no ULFM (Open MPI 5 has, with mpirun --with-ft ulfm)");
}

#endif

static_assert(exchange<over_mpi>);

}  // namespace SHUNT_ABI
}  // namespace shunt
