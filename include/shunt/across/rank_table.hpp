#pragma once
#include "shunt/core/compiler.hpp"

#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>

#include "shunt/across/exchange.hpp"

/// The memory by which ranks of one host meet: a seat for each, on which it says how far it has come.
/// rank_threads and rank_processes differ in how rows are read and in how a lost rank is noticed.
namespace shunt::detail {
inline namespace SHUNT_ABI {

/// Ranks that one table seats: they are bits of half a word, so that one word can name the survivors.
inline constexpr int most_table_ranks = 32;

enum class seat_state : std::uint32_t { empty, taken, left };

/// How far one rank has come. What it shows is written before its counters rise, and read after.
struct alignas(64) rank_seat {
  std::atomic<std::uint64_t> arrived{0};     // barriers that this rank has reached
  std::atomic<std::uint64_t> passed{0};      // pieces that it has handed to the rank behind it
  std::atomic<std::uint64_t> accepted{0};    // pieces that it has taken from the rank before it
  std::atomic<std::uint32_t> recovering{0};  // the generation that it asks for
  std::atomic<seat_state> state{seat_state::empty};
};

struct rank_table {
  rank_seat seat[most_table_ranks];
  std::atomic<std::uint64_t> members{0};  // generation << 32 | a bit for each member's seat
  int seats = 0;

  void open(int ranks) noexcept {
    seats = ranks;
    members.store((std::uint64_t{1} << ranks) - 1);
  }
};

/// A rank's seat at a table: barriers with a deadline, and the agreement on who is left. `Watch` tells
/// whether a seat's rank is gone: bool gone(int seat).
template <class Watch> class table_member {
 public:
  using milliseconds = std::chrono::milliseconds;

  table_member(rank_table& table, int seat, milliseconds deadline, Watch watch) noexcept
      : table_(&table),
        deadline_(deadline),
        watch_(watch),
        seat_(seat),
        members_(static_cast<std::uint32_t>(table.members.load())) {}

  [[nodiscard]] int rank() const noexcept { return rank_of(seat_); }
  [[nodiscard]] int ranks() const noexcept { return std::popcount(members_); }
  [[nodiscard]] rank_seat& mine() const noexcept { return table_->seat[seat_]; }
  [[nodiscard]] int seat() const noexcept { return seat_; }
  /// The seat of a rank: ranks are the members in the order of their seats.
  [[nodiscard]] int seat_of(int rank) const noexcept {
    std::uint32_t left = members_;
    for (; rank > 0; --rank) left &= left - 1;
    return std::countr_zero(left | 1u << (most_table_ranks - 1));
  }

  /// Until all ranks are here. `timed` false: waits as long as nobody is gone.
  [[nodiscard]] status barrier(bool timed = true) noexcept {
    std::uint64_t const count = stamp(++barriers_);
    mine().arrived.store(count, std::memory_order_release);
    for (int rank = 0; rank < ranks(); ++rank) {
      status const here = await(rank, timed, [&](rank_seat const& s) {
        return s.arrived.load(std::memory_order_acquire) >= count;
      });
      if (!here.ok()) return here;
    }
    return {};
  }
  /// Hands what mine() shows to the rank behind, and waits until it was taken.
  [[nodiscard]] status hand_over() noexcept {
    std::uint64_t const count = stamp(++handed_);
    mine().passed.store(count, std::memory_order_release);
    return await(rank() + 1, true, [&](rank_seat const& s) {
      return s.accepted.load(std::memory_order_acquire) >= count;
    });
  }
  /// Until the rank before shows a piece; take() reads it.
  template <class Take> [[nodiscard]] status take_over(Take const& take) noexcept {
    std::uint64_t const count = stamp(++taken_);
    status const here = await(rank() - 1, true, [&](rank_seat const& s) {
      return s.passed.load(std::memory_order_acquire) >= count;
    });
    if (!here.ok()) return here;
    take();
    mine().accepted.store(count, std::memory_order_release);
    return {};
  }

  /// The ranks that are left agree on who they are, in one word; they keep their order.
  [[nodiscard]] status recover(view<std::uint8_t, 1> survives) noexcept {
    std::uint32_t const next = generation_ + 1;
    mine().recovering.store(next, std::memory_order_release);
    std::uint32_t found = 0;
    auto const started = clock::now();
    for (int rank = 0; rank < ranks(); ++rank) {
      int const seat = seat_of(rank);
      for (int turn = 0;; ++turn) {
        if (table_->seat[seat].recovering.load(std::memory_order_acquire) >= next) {
          found |= 1u << seat;
          break;
        }
        if (watch_.gone(seat) || clock::now() - started > deadline_) break;
        rest(turn);
      }
    }
    std::uint64_t before = word(generation_, members_);
    table_->members.compare_exchange_strong(before, word(next, found));
    std::uint64_t const agreed = table_->members.load(std::memory_order_acquire);
    auto const left = static_cast<std::uint32_t>(agreed);
    for (int rank = 0; rank < ranks() && survives; ++rank) {
      survives[rank] = (left >> seat_of(rank)) & 1u;
    }
    if (((left >> seat_) & 1u) == 0 || static_cast<std::uint32_t>(agreed >> 32) != next) {
      return status::fail(error::peer,
                          "recover: rank %d came after the deadline of %lld ms; the other ranks "
                          "went on without it",
                          rank(), static_cast<long long>(deadline_.count()));
    }
    generation_ = next;
    members_ = left;
    barriers_ = handed_ = taken_ = 0;
    mine().arrived.store(stamp(0), std::memory_order_release);
    return {};
  }

 private:
  using clock = std::chrono::steady_clock;
  static constexpr int generation_shift =
      40;  // of counters: a trillion barriers in each generation

  [[nodiscard]] static std::uint64_t word(std::uint32_t generation, std::uint32_t seats) noexcept {
    return std::uint64_t{generation} << 32 | seats;
  }
  [[nodiscard]] std::uint64_t stamp(std::uint64_t count) const noexcept {
    return std::uint64_t{generation_} << generation_shift | count;
  }
  [[nodiscard]] int rank_of(int seat) const noexcept {
    return std::popcount(members_ & ((1u << seat) - 1u));
  }
  /// Short waits spin, long ones leave the core to the ranks that compute.
  static void rest(int turn) noexcept {
    if (turn < 64) return;
    if (turn < 4096) return std::this_thread::yield();
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }

  template <class Ready>
  [[nodiscard]] status await(int rank, bool timed, Ready const& ready) noexcept {
    int const seat = seat_of(rank);
    rank_seat const& other = table_->seat[seat];
    clock::time_point started{};
    for (int turn = 0; !ready(other); ++turn) {
      rest(turn);
      if (turn % 64 != 63) continue;
      if (status lost = find_lost(rank, ready(other)); !lost.ok()) return lost;
      if (started == clock::time_point{}) started = clock::now();
      if (timed && clock::now() - started > deadline_) {
        return status::fail(error::peer, "rank %d has not answered for %lld ms", rank,
                            static_cast<long long>(deadline_.count()));
      }
    }
    if (other.arrived.load(std::memory_order_acquire) >> generation_shift > generation_) {
      return status::fail(error::peer, "rank %d went on without this rank", rank);
    }
    return {};
  }
  /// Whether the awaited rank is gone, or waits in recover() because another one is.
  [[nodiscard]] status find_lost(int rank, bool is_ready) noexcept {
    int const seat = seat_of(rank);
    if (is_ready) return {};
    if (watch_.gone(seat)) return gone(rank);
    if (table_->seat[seat].recovering.load(std::memory_order_acquire) <= generation_) return {};
    for (int other = 0; other < ranks(); ++other) {
      if (watch_.gone(seat_of(other))) return gone(other);
    }
    return status::fail(error::peer, "rank %d waits in recover: it misses a rank", rank);
  }
  [[nodiscard]] status gone(int rank) const noexcept {
    return status::fail(error::peer, "rank %d of %d died or left", rank, ranks());
  }

  rank_table* table_;
  milliseconds deadline_;
  Watch watch_;
  int seat_;
  std::uint32_t members_, generation_ = 0;
  std::uint64_t barriers_ = 0, handed_ = 0, taken_ = 0;
};

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
