#pragma once
#include "shunt/across/rank_table.hpp"

/// Ranks that are threads of one process: for tests, and for one rank on each NUMA node.
namespace shunt {
inline namespace SHUNT_ABI {

/// Where the threads meet: made once, before them, and destroyed after them.
class rank_threads_table {
 public:
  static constexpr int most_ranks = detail::most_table_ranks;  ///< 32
  /// A table of 1 to most_ranks ranks; `seats`: for how many there is room, those that join later too; 0: for
  /// these.
  explicit rank_threads_table(int ranks, int seats = 0) noexcept {
    ranks = ranks < 1 ? 1 : ranks > most_ranks ? most_ranks : ranks;
    table_.open(ranks, seats < ranks ? ranks : seats > most_ranks ? most_ranks : seats);
  }
  [[nodiscard]] int seats() const noexcept { return table_.seats; }  ///< room for ranks

 private:
  friend class rank_threads;
  /// What a rank shows to the others: memory that they read themselves.
  struct alignas(64) shown {
    void const* data = nullptr;
    std::size_t bytes = 0;
    exchange_rows rows[most_begun_exchanges];
    int begun = 0;
  };
  detail::rank_table table_;
  shown shown_[most_ranks];
};

/// One thread's rank. Rows are read straight from the sender's memory, between two barriers. A thread that
/// destroys its rank_threads has left: the others get error::peer with its number.
class rank_threads {
 public:
  static constexpr space memory = space::host;  ///< where rows are

  /// The rank of this seat; `deadline`: how long the others may be late.
  rank_threads(rank_threads_table& table, int seat,
               std::chrono::milliseconds deadline = std::chrono::milliseconds(60000)) noexcept
      : table_(&table), member_(table.table_, seat, deadline, watch{&table.table_}) {
    member_.mine().state.store(detail::seat_state::taken, std::memory_order_release);
  }
  /// A thread that comes later, for a seat that is nobody's by then: the first call is join().
  rank_threads(rank_threads_table& table, int seat, newcomer,
               std::chrono::milliseconds deadline = std::chrono::milliseconds(60000)) noexcept
      : table_(&table), member_(table.table_, seat, deadline, watch{&table.table_}), sits_(false) {}
  ~rank_threads() {
    if (!sits_) return;
    member_.mine().state.store(detail::seat_state::left, std::memory_order_release);
  }
  rank_threads(rank_threads const&) = delete;
  rank_threads& operator=(rank_threads const&) = delete;

  [[nodiscard]] int rank() const noexcept { return member_.rank(); }    ///< of this thread
  [[nodiscard]] int ranks() const noexcept { return member_.ranks(); }  ///< that are left

  /// See exchange.
  status all_gather(void const* in, void* out, std::size_t bytes) noexcept {
    own().data = in;
    own().bytes = bytes;
    if (status bad = member_.barrier(); !bad.ok()) return bad;
    status wrong;
    for (int r = 0; r < ranks() && wrong.ok(); ++r) {
      if (of(r).bytes != of(0).bytes) wrong = other_bytes(r);
    }
    for (int r = 0; r < ranks() && out != nullptr && wrong.ok(); ++r) {
      detail::copy_bytes(static_cast<std::byte*>(out) + static_cast<std::size_t>(r) * bytes,
                         of(r).data, bytes);
    }
    status const read = member_.barrier(false);  // the others still read what this rank shows
    return wrong.ok() ? read : wrong;
  }
  /// See exchange.
  status begin(exchange_rows const& rows) noexcept {
    if (status bad = detail::check_exchange("rank_threads.begin", rows, rank(), ranks());
        !bad.ok()) {
      return bad;
    }
    if (begun_ == most_begun_exchanges) {
      return status::fail(error::bad_argument,
                          "rank_threads.begin: %d exchanges are begun; finish() must come first",
                          begun_);
    }
    own().rows[begun_++] = rows;
    return {};
  }
  /// See exchange.
  status finish() noexcept {
    own().begun = begun_;
    begun_ = 0;
    if (status bad = member_.barrier(); !bad.ok()) return bad;
    status wrong;
    for (int i = 0; i < own().begun; ++i) {
      for (int r = 0; r < ranks() && wrong.ok(); ++r) wrong = read_rows(i, r);
    }
    status const read = member_.barrier(false);
    return wrong.ok() ? read : wrong;
  }
  /// See exchange.
  status carry(void* out, std::size_t bytes) noexcept {
    if (rank() == 0) return {};
    return member_.take_over([&] { detail::copy_bytes(out, of(rank() - 1).data, bytes); });
  }
  /// See exchange.
  status pass_on(void const* in, std::size_t bytes) noexcept {
    if (rank() + 1 == ranks()) return {};
    own().data = in;
    own().bytes = bytes;
    return member_.hand_over();
  }
  /// See recover().
  status recover(view<std::uint8_t, 1> survives) noexcept {
    begun_ = 0;
    return member_.recover(survives);
  }
  /// See grow().
  status grow(int ranks, view<std::uint8_t, 1> came) noexcept {
    begun_ = 0;
    return member_.grow(ranks, came);
  }
  /// See join().
  status join() noexcept {
    return member_.join([&] {
      sits_ = true;
      member_.mine().state.store(detail::seat_state::taken, std::memory_order_release);
    });
  }

 private:
  using shown = rank_threads_table::shown;
  struct watch {
    detail::rank_table const* table;
    [[nodiscard]] bool gone(int seat) const noexcept {
      return table->seat[seat].state.load(std::memory_order_acquire) == detail::seat_state::left;
    }
  };
  [[nodiscard]] shown& own() noexcept { return table_->shown_[member_.seat()]; }
  [[nodiscard]] shown const& of(int rank) const noexcept {
    return table_->shown_[member_.seat_of(rank)];
  }
  [[nodiscard]] status other_bytes(int rank) const noexcept {
    return detail::other_bytes(rank, of(rank).bytes, of(0).bytes);
  }
  [[nodiscard]] status read_rows(int exchange, int from) noexcept {
    exchange_rows const& mine = own().rows[exchange];
    shown const& other = of(from);
    if (exchange >= other.begun || other.rows[exchange].row_bytes != mine.row_bytes) {
      return detail::other_rows(from, exchange);
    }
    exchange_rows const& theirs = other.rows[exchange];
    offset_t const first = theirs.send_start[rank()], at = mine.recv_start[from],
                   count = theirs.send_start[rank() + 1] - first;
    if (count != mine.recv_start[from + 1] - at) return detail::other_rows(from, exchange);
    std::size_t const bytes = mine.row_bytes;
    detail::copy_bytes(
        static_cast<std::byte*>(mine.recv) + static_cast<std::size_t>(at) * bytes,
        static_cast<std::byte const*>(theirs.send) + static_cast<std::size_t>(first) * bytes,
        static_cast<std::size_t>(count) * bytes);
    return {};
  }

  rank_threads_table* table_;
  detail::table_member<watch> member_;
  int begun_ = 0;
  bool sits_ = true;
};
static_assert(exchange<rank_threads>);

}  // namespace SHUNT_ABI
}  // namespace shunt
