#pragma once
#include "shunt/core/compiler.hpp"

#include "shunt/across/mpi_messages.hpp"

/// Ranks of an MPI communicator. MPI moves bytes from rank to rank and nothing else: what Shunt promises about bits
/// and errors does not depend on how a library reduces. With mpi_messages.hpp the only header of Shunt that includes <mpi.h>.
namespace shunt {
namespace detail {
inline namespace SHUNT_ABI {

/// What a rank says of itself in all_gather, in front of the first bytes.
struct mpi_envelope {
  static constexpr std::size_t most_bytes = 2048, head_bytes = 2 * sizeof(std::size_t);
  std::size_t bytes = 0;  // of the whole message
  std::size_t wants = 0;  // 1: it receives those of the others
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
  static constexpr space memory = space::host;                        ///< where rows are
  static constexpr std::size_t longest_piece = std::size_t{1} << 30;  ///< bytes of one MPI call

  /// Collective over `comm`. `deadline`: how long another rank may be late. `piece_bytes`: what one
  /// MPI call moves.
  explicit over_mpi(MPI_Comm comm,
                    std::chrono::milliseconds deadline = std::chrono::milliseconds(60000),
                    std::size_t piece_bytes = longest_piece)
      : messages_(comm, deadline,
                  piece_bytes < 1               ? 1
                  : piece_bytes > longest_piece ? longest_piece
                                                : piece_bytes,
                  2 * most_begun_exchanges),
        envelopes_(static_cast<std::size_t>(messages_.ranks())) {}

  [[nodiscard]] int rank() const noexcept { return messages_.rank(); }    ///< of this process
  [[nodiscard]] int ranks() const noexcept { return messages_.ranks(); }  ///< that are left

  /// See exchange. One round up to 2 KiB a rank, else two.
  status all_gather(void const* in, void* out, std::size_t bytes) noexcept {
    std::size_t const in_first = bytes < envelope::most_bytes ? bytes : envelope::most_bytes;
    envelope& own = of(rank());
    own.bytes = bytes;
    own.wants = out != nullptr ? 1 : 0;
    detail::copy_bytes(own.first, in, in_first);
    each_other([&](int r) {
      messages_.receive(&of(r), sizeof(envelope), r, gather_tag, false);
      messages_.send(&own, envelope::head_bytes + in_first, r, gather_tag);
    });
    if (status bad = messages_.wait("all_gather"); !bad.ok()) return bad;
    for (int r = 0; r < ranks(); ++r) {
      if (of(r).bytes != of(0).bytes) return detail::other_bytes(r, of(r).bytes, of(0).bytes);
    }
    auto* const to = static_cast<std::byte*>(out);
    if (to != nullptr) {
      detail::copy_bytes(to + static_cast<std::size_t>(rank()) * bytes, in, bytes);
    }
    std::size_t const rest = bytes - in_first;
    each_other([&](int r) {
      if (to != nullptr) {
        std::byte* const place = to + static_cast<std::size_t>(r) * bytes;
        detail::copy_bytes(place, of(r).first, in_first);
        if (rest > 0) messages_.receive(place + in_first, rest, r, rest_tag);
      }
      if (rest == 0 || of(r).wants == 0) return;
      messages_.send(static_cast<std::byte const*>(in) + in_first, rest, r, rest_tag);
    });
    return messages_.wait("all_gather");
  }
  /// See exchange. The messages leave at once; finish() waits for them.
  status begin(exchange_rows const& rows) noexcept {
    if (status bad = detail::check_exchange("over_mpi.begin", rows, rank(), ranks()); !bad.ok()) {
      return bad;
    }
    if (begun_ == most_begun_exchanges) {
      return status::fail(error::bad_argument,
                          "over_mpi.begin: %d exchanges are begun; finish() must come first",
                          begun_);
    }
    int const tag = detail::mpi_messages::first_rows_tag + begun_++;
    auto const bytes = [&](offset_t count) {
      return static_cast<std::size_t>(count) * rows.row_bytes;
    };
    each_other([&](int r) {
      offset_t const first = rows.recv_start[r];
      messages_.receive(static_cast<std::byte*>(rows.recv) + bytes(first),
                        bytes(rows.recv_start[r + 1] - first), r, tag);
    });
    each_other([&](int r) {
      offset_t const first = rows.send_start[r];
      messages_.send(static_cast<std::byte const*>(rows.send) + bytes(first),
                     bytes(rows.send_start[r + 1] - first), r, tag);
    });
    detail::copy_own_rows(rows, rank());
    return {};
  }
  /// See exchange.
  status finish() noexcept {
    begun_ = 0;
    return messages_.wait("finish");
  }
  /// See exchange.
  status carry(void* out, std::size_t bytes) noexcept {
    if (rank() > 0) messages_.receive(out, bytes, rank() - 1, chain_tag);
    return messages_.wait("carry");
  }
  /// See exchange.
  status pass_on(void const* in, std::size_t bytes) noexcept {
    if (rank() + 1 < ranks()) messages_.send(in, bytes, rank() + 1, chain_tag);
    return messages_.wait("pass_on");
  }
  /// See recover(). error::unsupported where MPI has no ULFM.
  status recover(view<std::uint8_t, 1> survives) noexcept {
    begun_ = 0;
    return messages_.recover(survives);
  }

 private:
  using envelope = detail::mpi_envelope;
  static constexpr int gather_tag = 0, rest_tag = 1, chain_tag = 2;

  [[nodiscard]] envelope& of(int rank) noexcept {
    return envelopes_[static_cast<std::size_t>(rank)];
  }
  template <class Each> void each_other(Each const& each) noexcept {
    for (int r = 0; r < ranks(); ++r) {
      if (r != rank()) each(r);
    }
  }

  detail::mpi_messages messages_;
  std::vector<detail::mpi_envelope> envelopes_;
  int begun_ = 0;
};
static_assert(exchange<over_mpi>);

}  // namespace SHUNT_ABI
}  // namespace shunt
