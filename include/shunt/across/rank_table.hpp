#pragma once
#include "shunt/core/compiler.hpp"

#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <thread>

#include "shunt/across/exchange.hpp"

namespace shunt {
/// A rank that was not there from the start: it has no seat until join() gives it one.
struct newcomer {};
}  // namespace shunt

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
  std::atomic<std::uint32_t> recovering{0};  // the generation that it asks for, without who is lost
  std::atomic<std::uint32_t> growing{0};     // likewise, with who joins
  std::atomic<std::uint32_t> joining{0};     // 1: nobody's rank yet, and waits for grow()
  std::atomic<seat_state> state{seat_state::empty};
};

struct rank_table {
  rank_seat seat[most_table_ranks];
  // By growth << 63 | generation << 32 | a bit for each member's seat.
  std::atomic<std::uint64_t> members{0};
  int seats = 0;

  void open(int ranks, int all_seats) noexcept {
    seats = all_seats;
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
    for (int r = 0; r < ranks(); ++r) {
      int const seat = seat_of(r);
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
    for (int r = 0; r < ranks() && survives; ++r) { survives[r] = (left >> seat_of(r)) & 1u; }
    if (((left >> seat_) & 1u) == 0 || agreed != word(next, left)) {
      return status::fail(error::peer,
                          "recover: rank %d came after the deadline of %lld ms; the other ranks "
                          "went on without it",
                          rank(), static_cast<long long>(deadline_.count()));
    }
    enter(next, left);
    return {};
  }

  /// The members take in who waits in join(), until they are `wanted` ranks; all agree in one word. `came`: of the
  /// ranks that there are then, 1 where it joined.
  [[nodiscard]] status grow(int wanted, view<std::uint8_t, 1> came) noexcept {
    int const before = ranks();
    if (wanted < before || wanted > table_->seats || (came && came.extent(0) != wanted)) {
      return status::fail(error::bad_argument,
                          "grow: %d ranks are wanted and came has extent %lld; it must be from %d "
                          "to %d (seats), and came of as many",
                          wanted, static_cast<long long>(came.extent(0)), before, table_->seats);
    }
    std::uint32_t const next = generation_ + 1, members = members_;
    mine().growing.store(next, std::memory_order_release);
    for (int r = 0; r < before; ++r) {
      status const here = await_only(r, true, [&](rank_seat const& s) {
        return s.growing.load(std::memory_order_acquire) >= next;
      });
      if (!here.ok()) {
        mine().growing.store(generation_, std::memory_order_release);
        return here;
      }
    }
    std::uint64_t word_before = table_->members.load(std::memory_order_acquire);
    auto const started = clock::now();
    for (int turn = 0; generation_of(word_before) == generation_; ++turn) {
      std::uint32_t const found = members | waiting(wanted - before, members);
      if (std::popcount(found) == wanted || clock::now() - started > deadline_) {
        table_->members.compare_exchange_strong(word_before, by_growth | word(next, found));
      }
      rest(turn);
      word_before = table_->members.load(std::memory_order_acquire);
    }
    auto const now = static_cast<std::uint32_t>(word_before);
    if (((now >> seat_) & 1u) == 0 || word_before != (by_growth | word(next, now))) {
      return status::fail(error::peer, "grow: the other ranks went on without rank %d", rank());
    }
    enter(next, now);
    for (int r = 0; came && r < wanted; ++r) {
      came[r] = r < ranks() && ((members >> seat_of(r)) & 1u) == 0 ? 1 : 0;
    }
    if (ranks() == wanted) return {};
    return status::fail(error::peer, "grow: %d of %d ranks are there after %lld ms", ranks(),
                        wanted, static_cast<long long>(deadline_.count()));
  }
  /// Of a newcomer. `take` makes the seat its own, once it is nobody's.
  template <class Take> [[nodiscard]] status join(Take const& take) noexcept {
    auto const started = clock::now();
    auto const member = [&] {
      members_ = static_cast<std::uint32_t>(table_->members.load(std::memory_order_acquire));
      return ((members_ >> seat_) & 1u) != 0;
    };
    auto const wait = [&](bool until) {
      for (int turn = 0; member() != until; ++turn) {
        if (clock::now() - started > deadline_) return false;
        rest(turn);
      }
      return true;
    };
    if (!wait(false)) {
      return status::fail(error::peer, "join: seat %d is that of a rank, and was so for %lld ms",
                          seat_, static_cast<long long>(deadline_.count()));
    }
    take();
    mine().joining.store(1, std::memory_order_release);
    bool const in = wait(true);
    mine().joining.store(0, std::memory_order_release);
    if (!in && !member()) {
      return status::fail(error::peer, "join: no rank has called grow for %lld ms",
                          static_cast<long long>(deadline_.count()));
    }
    std::uint64_t const word = table_->members.load(std::memory_order_acquire);
    enter(generation_of(word), static_cast<std::uint32_t>(word));
    return {};
  }

 private:
  using clock = std::chrono::steady_clock;
  static constexpr int generation_shift =
      40;  // of counters: a trillion barriers in each generation
  static constexpr std::uint64_t by_growth = std::uint64_t{1} << 63;

  [[nodiscard]] static std::uint64_t word(std::uint32_t generation, std::uint32_t seats) noexcept {
    return std::uint64_t{generation} << 32 | seats;
  }
  [[nodiscard]] static std::uint32_t generation_of(std::uint64_t word) noexcept {
    return static_cast<std::uint32_t>((word & ~by_growth) >> 32);
  }
  /// A new generation: all counters begin anew.
  void enter(std::uint32_t generation, std::uint32_t members) noexcept {
    generation_ = generation;
    members_ = members;
    barriers_ = handed_ = taken_ = 0;
    mine().arrived.store(stamp(0), std::memory_order_release);
  }
  /// The first `most` seats that wait in join().
  [[nodiscard]] std::uint32_t waiting(int most, std::uint32_t members) const noexcept {
    std::uint32_t found = 0;
    for (int seat = 0; seat < table_->seats && std::popcount(found) < most; ++seat) {
      if (((members >> seat) & 1u) == 0 &&
          table_->seat[seat].joining.load(std::memory_order_acquire) != 0 && !watch_.gone(seat)) {
        found |= 1u << seat;
      }
    }
    return found;
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
    if (status lost = await_only(rank, timed, ready); !lost.ok()) return lost;
    std::uint64_t const arrived =
        table_->seat[seat_of(rank)].arrived.load(std::memory_order_acquire);
    if (arrived >> generation_shift <= generation_) return {};
    return status::fail(error::peer, "rank %d went on without this rank", rank);
  }
  template <class Ready>
  [[nodiscard]] status await_only(int rank, bool timed, Ready const& ready) noexcept {
    rank_seat const& other = table_->seat[seat_of(rank)];
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
