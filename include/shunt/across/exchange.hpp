#pragma once
#include "shunt/core/compiler.hpp"

#include <concepts>
#include <cstddef>
#include <cstring>

#include "shunt/core/check.hpp"
#include "shunt/core/status.hpp"
#include "shunt/core/view.hpp"

/// How data moves between ranks: a concept that any library of messages can serve, and its simplest model.
namespace shunt {

/// Rows that this rank sends and receives in one exchange, contiguous by rank: rows
/// [send_start[r], send_start[r+1]) of `send` go to rank r, rows [recv_start[r], recv_start[r+1]) of
/// `recv` come from it. A rank also sends to itself.
///   Shapes  send_start [R+1] · recv_start [R+1]
struct exchange_rows {
  void const* send = nullptr;               ///< rows of row_bytes each, without gaps
  void* recv = nullptr;                     ///< likewise; shares no memory with `send`
  std::size_t row_bytes = 0;                ///< of one row, the same on all ranks
  view<offset_t const, 1> send_start = {};  ///< [R+1] by destination
  view<offset_t const, 1> recv_start = {};  ///< [R+1] by source
  /// The same on the device, where the host knows the last entries alone, as bounds: see peer_exchange.
  view<offset_t const, 1, space::device> send_there = {}, recv_there = {};
};

/// Row exchanges that one finish() may complete.
inline constexpr int most_begun_exchanges = 4;

/// A group of ranks as one of them sees it. All ranks make the same calls in the same order, also with
/// nothing to send. Nothing is summed here. A rank that does not answer in time is error::peer, with a
/// sentence that names it; after an error the exchange serves recover() only.
///   all_gather(in, out, bytes)   out[r * bytes …] = in of rank r; out null: takes part, receives nothing
///   begin(rows) … finish()       up to most_begun_exchanges of them; recv is complete after finish()
///   carry(out, bytes)            what the rank before passed on; on rank 0 `out` stays as it is
///   pass_on(in, bytes)           hands `in` to the rank behind; on the last rank nothing
template <class X>
concept exchange = requires(X& x, X const& c, void const* in, void* out, std::size_t bytes,
                            exchange_rows const& rows) {
  { X::memory } -> std::convertible_to<space>;
  { c.rank() } -> std::convertible_to<int>;
  { c.ranks() } -> std::convertible_to<int>;
  { x.all_gather(in, out, bytes) } -> std::same_as<status>;
  { x.begin(rows) } -> std::same_as<status>;
  { x.finish() } -> std::same_as<status>;
  { x.carry(out, bytes) } -> std::same_as<status>;
  { x.pass_on(in, bytes) } -> std::same_as<status>;
};

namespace detail {
inline namespace SHUNT_ABI {

/// memcpy that accepts no bytes from nowhere.
inline void copy_bytes(void* to, void const* from, std::size_t bytes) noexcept {
  if (bytes > 0) std::memcpy(to, from, bytes);
}

/// The part of an exchange that stays on this rank.
inline void copy_own_rows(exchange_rows const& rows, int rank) noexcept {
  offset_t const from = rows.send_start[rank], to = rows.recv_start[rank];
  auto const count = static_cast<std::size_t>(rows.send_start[rank + 1] - from);
  copy_bytes(
      static_cast<std::byte*>(rows.recv) + static_cast<std::size_t>(to) * rows.row_bytes,
      static_cast<std::byte const*>(rows.send) + static_cast<std::size_t>(from) * rows.row_bytes,
      count * rows.row_bytes);
}

/// What every transport asks of a begun exchange: extents, and as many rows to oneself as from oneself.
[[nodiscard]] inline status check_exchange(char const* who, exchange_rows const& rows, int rank,
                                           int ranks) noexcept {
  if (rows.send_start.extent(0) != offset_t{ranks} + 1 ||
      rows.recv_start.extent(0) != offset_t{ranks} + 1) {
    return status::fail(error::bad_shape,
                        "%s.rows: send_start has extent %lld and recv_start %lld; both must be %d "
                        "(ranks + 1)",
                        who, static_cast<long long>(rows.send_start.extent(0)),
                        static_cast<long long>(rows.recv_start.extent(0)), ranks + 1);
  }
  offset_t const out = rows.send_start[rank + 1] - rows.send_start[rank],
                 in = rows.recv_start[rank + 1] - rows.recv_start[rank];
  if (in == out) return {};
  return status::fail(
      error::bad_argument,
      "%s.rows: %lld rows go to the rank itself and %lld come from it; they must be "
      "as many",
      who, static_cast<long long>(out), static_cast<long long>(in));
}

/// What ranks that call with different sizes get, each of them the same.
[[nodiscard]] inline status other_bytes(int rank, std::size_t is, std::size_t must) noexcept {
  return status::fail(error::bad_argument,
                      "all_gather: rank %d brings %zu bytes and rank 0 %zu; all must bring as many",
                      rank, is, must);
}
[[nodiscard]] inline status other_rows(int rank, int exchange) noexcept {
  return status::fail(
      error::bad_argument,
      "finish: rank %d sends other rows in exchange %d than this rank expects; their "
      "counts and bytes must agree",
      rank, exchange);
}

}  // namespace SHUNT_ABI
}  // namespace detail

/// One rank: the exchange of a process that is by itself.
class alone {
 public:
  static constexpr space memory = space::host;                       ///< where rows are
  [[nodiscard]] static constexpr int rank() noexcept { return 0; }   ///< 0
  [[nodiscard]] static constexpr int ranks() noexcept { return 1; }  ///< 1

  /// A copy.
  status all_gather(void const* in, void* out, std::size_t bytes) noexcept {
    if (out != nullptr) detail::copy_bytes(out, in, bytes);
    return {};
  }
  /// A copy.
  status begin(exchange_rows const& rows) noexcept {
    if (status bad = detail::check_exchange("alone.begin", rows, 0, 1); !bad.ok()) return bad;
    detail::copy_own_rows(rows, 0);
    return {};
  }
  status finish() noexcept { return {}; }                           ///< nothing is left to do
  status carry(void*, std::size_t) noexcept { return {}; }          ///< there is no rank before
  status pass_on(void const*, std::size_t) noexcept { return {}; }  ///< nor one behind
};
static_assert(exchange<alone>);

}  // namespace shunt
