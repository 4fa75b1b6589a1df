#pragma once
#include <pthread.h>
#include <sys/mman.h>

#include <cerrno>
#include <new>

#include "shunt/across/rank_table.hpp"

/// Ranks that are processes of one host, without MPI: shared memory that is mapped before fork().
namespace shunt {
namespace detail {
inline namespace SHUNT_ABI {

/// What a rank writes for the others to read: a box has two of them, used in turn, so that one barrier a
/// piece suffices.
struct box_half {
  std::size_t total = 0;  // bytes of the whole message, or of all rows of an exchange
  std::size_t start[most_table_ranks + 1] = {};  // of an exchange: bytes by destination
  alignas(64) std::byte bytes[1];                // the piece; box_bytes of them
};
struct process_table {
  rank_table table;
  pthread_mutex_t life[most_table_ranks];  // held by a rank as long as it lives
  std::size_t box_bytes = 0;
};

}  // namespace SHUNT_ABI
}  // namespace detail

inline namespace SHUNT_ABI {

/// Where the processes meet: made before fork(), so that all of them map it.
class rank_processes_table {
 public:
  static constexpr int most_ranks = detail::most_table_ranks;  ///< 32

  /// `box_bytes`: the bytes that a rank hands over at a time; what is longer goes in pieces. `seats`: for how many
  /// ranks there is room, those that join later too; 0: for these.
  explicit rank_processes_table(int ranks, std::size_t box_bytes = std::size_t{1} << 20,
                                int seats = 0) noexcept {
    box_bytes_ = (box_bytes < 64 ? 64 : box_bytes + 63) / 64 * 64;
    half_ = (sizeof(detail::box_half) + box_bytes_ + 63) / 64 * 64;
    first_ = (sizeof(detail::process_table) + 63) / 64 * 64;
    ranks = ranks < 1 ? 1 : ranks > most_ranks ? most_ranks : ranks;
    seats = seats < ranks ? ranks : seats > most_ranks ? most_ranks : seats;
    mapped_ = first_ + 2 * half_ * static_cast<std::size_t>(seats);
    void* const at =
        mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return;
    base_ = static_cast<std::byte*>(at);
    auto* const table = new (base_) detail::process_table;
    table->table.open(ranks, seats);
    pthread_mutexattr_t how;
    pthread_mutexattr_init(&how);
    pthread_mutexattr_setpshared(&how, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&how, PTHREAD_MUTEX_ROBUST);
    for (pthread_mutex_t& life : table->life) pthread_mutex_init(&life, &how);
    pthread_mutexattr_destroy(&how);
  }
  ~rank_processes_table() {
    if (base_ != nullptr) munmap(base_, mapped_);
  }
  rank_processes_table(rank_processes_table const&) = delete;
  rank_processes_table& operator=(rank_processes_table const&) = delete;

  /// Whether there was memory for it.
  [[nodiscard]] bool ok() const noexcept { return base_ != nullptr; }

 private:
  friend class rank_processes;
  [[nodiscard]] detail::process_table& table() const noexcept {
    return *reinterpret_cast<detail::process_table*>(base_);
  }
  [[nodiscard]] detail::box_half& half(int seat, int which) const noexcept {
    std::size_t const at =
        first_ + half_ * (2 * static_cast<std::size_t>(seat) + static_cast<std::size_t>(which));
    return *reinterpret_cast<detail::box_half*>(base_ + at);
  }
  std::byte* base_ = nullptr;
  std::size_t mapped_ = 0, box_bytes_ = 0, half_ = 0, first_ = 0;
};

/// One process's rank: made after fork(), by the thread that will call it. Each rank holds a robust mutex
/// while it lives: when it dies, by whatever signal, the kernel marks the mutex, and the others name the
/// rank within microseconds of looking.
class rank_processes {
 public:
  static constexpr space memory = space::host;  ///< where rows are

  /// The rank of this seat; `deadline`: how long the others may be late.
  rank_processes(rank_processes_table& table, int seat,
                 std::chrono::milliseconds deadline = std::chrono::milliseconds(60000)) noexcept
      : table_(&table), member_(table.table().table, seat, deadline, watch{&table.table()}) {
    sit();
  }
  /// A process that comes later, forked from one that has the table, for a seat that is nobody's by then: the first
  /// call is join().
  rank_processes(rank_processes_table& table, int seat, newcomer,
                 std::chrono::milliseconds deadline = std::chrono::milliseconds(60000)) noexcept
      : table_(&table), member_(table.table().table, seat, deadline, watch{&table.table()}) {}
  ~rank_processes() {
    if (!sits_) return;
    member_.mine().state.store(detail::seat_state::left, std::memory_order_release);
    pthread_mutex_unlock(&table_->table().life[member_.seat()]);
  }
  rank_processes(rank_processes const&) = delete;
  rank_processes& operator=(rank_processes const&) = delete;

  [[nodiscard]] int rank() const noexcept { return member_.rank(); }    ///< of this process
  [[nodiscard]] int ranks() const noexcept { return member_.ranks(); }  ///< that are left

  /// See exchange.
  status all_gather(void const* in, void* out, std::size_t bytes) noexcept {
    std::size_t const room = table_->box_bytes_;
    for (std::size_t done = 0; done < bytes || done == 0; done += room) {
      std::size_t const now = bytes - done < room ? bytes - done : room;
      own().total = bytes;
      detail::copy_bytes(own().bytes, static_cast<std::byte const*>(in) + done, now);
      if (status bad = member_.barrier(); !bad.ok()) return bad;
      for (int r = 0; r < ranks(); ++r) {
        if (of(r).total != of(0).total) return detail::other_bytes(r, of(r).total, of(0).total);
      }
      for (int r = 0; r < ranks() && out != nullptr; ++r) {
        detail::copy_bytes(
            static_cast<std::byte*>(out) + static_cast<std::size_t>(r) * bytes + done, of(r).bytes,
            now);
      }
      turn();
    }
    return {};
  }
  /// See exchange.
  status begin(exchange_rows const& rows) noexcept {
    if (status bad = detail::check_exchange("rank_processes.begin", rows, rank(), ranks());
        !bad.ok()) {
      return bad;
    }
    if (begun_ == most_begun_exchanges) {
      return status::fail(error::bad_argument,
                          "rank_processes.begin: %d exchanges are begun; finish() must come first",
                          begun_);
    }
    rows_[begun_++] = rows;
    return {};
  }
  /// See exchange.
  status finish() noexcept {
    int const begun = begun_;
    begun_ = 0;
    for (int i = 0; i < begun; ++i) {
      if (status bad = exchange_one(i); !bad.ok()) return bad;
    }
    return {};
  }
  /// See exchange.
  status carry(void* out, std::size_t bytes) noexcept {
    if (rank() == 0) return {};
    std::size_t const room = table_->box_bytes_;
    for (std::size_t done = 0; done < bytes; done += room) {
      std::size_t const now = bytes - done < room ? bytes - done : room;
      status const here = member_.take_over([&] {
        detail::copy_bytes(static_cast<std::byte*>(out) + done, of(rank() - 1).bytes, now);
      });
      if (!here.ok()) return here;
    }
    return {};
  }
  /// See exchange.
  status pass_on(void const* in, std::size_t bytes) noexcept {
    if (rank() + 1 == ranks()) return {};
    std::size_t const room = table_->box_bytes_;
    for (std::size_t done = 0; done < bytes; done += room) {
      std::size_t const now = bytes - done < room ? bytes - done : room;
      detail::copy_bytes(own().bytes, static_cast<std::byte const*>(in) + done, now);
      if (status bad = member_.hand_over(); !bad.ok()) return bad;
    }
    return {};
  }
  /// See recover().
  status recover(view<std::uint8_t, 1> survives) noexcept {
    begun_ = 0;
    which_ = 0;
    return member_.recover(survives);
  }
  /// See grow().
  status grow(int ranks, view<std::uint8_t, 1> came) noexcept {
    begun_ = 0;
    which_ = 0;
    return member_.grow(ranks, came);
  }
  /// See join().
  status join() noexcept {
    return member_.join([&] { sit(); });
  }

 private:
  struct watch {
    detail::process_table* table;
    [[nodiscard]] bool gone(int seat) const noexcept {
      auto& state = table->table.seat[seat].state;
      detail::seat_state const is = state.load(std::memory_order_acquire);
      if (is != detail::seat_state::taken) return is == detail::seat_state::left;
      pthread_mutex_t& life = table->life[seat];
      int const got = pthread_mutex_trylock(&life);
      if (got == EBUSY) return false;
      if (got == EOWNERDEAD) pthread_mutex_consistent(&life);
      state.store(detail::seat_state::left, std::memory_order_release);
      pthread_mutex_unlock(&life);
      return true;
    }
  };
  [[nodiscard]] detail::box_half& own() const noexcept {
    return table_->half(member_.seat(), which_);
  }
  [[nodiscard]] detail::box_half const& of(int rank) const noexcept {
    return table_->half(member_.seat_of(rank), which_);
  }
  void turn() noexcept { which_ = 1 - which_; }
  /// The seat may be that of a rank that died: its mutex says so.
  void sit() noexcept {
    pthread_mutex_t& life = table_->table().life[member_.seat()];
    if (pthread_mutex_lock(&life) == EOWNERDEAD) pthread_mutex_consistent(&life);
    member_.mine().state.store(detail::seat_state::taken, std::memory_order_release);
    sits_ = true;
  }

  /// Each rank shows its rows to all in pieces; who is meant copies them.
  [[nodiscard]] status exchange_one(int which) noexcept {
    exchange_rows const& rows = rows_[which];
    std::size_t const row = rows.row_bytes, room = table_->box_bytes_;
    auto const bytes_of = [&](offset_t count) { return static_cast<std::size_t>(count) * row; };
    auto const* const send = static_cast<std::byte const*>(rows.send);
    std::size_t const total = bytes_of(rows.send_start[ranks()]);
    detail::copy_own_rows(rows, rank());
    std::size_t longest = 0;
    for (std::size_t done = 0; done <= longest; done += room) {
      detail::box_half& mine = own();
      mine.total = total;
      for (int r = 0; r <= ranks(); ++r) mine.start[r] = bytes_of(rows.send_start[r]);
      if (done < total) {
        detail::copy_bytes(mine.bytes, send + done, total - done < room ? total - done : room);
      }
      if (status bad = member_.barrier(); !bad.ok()) return bad;
      for (int r = 0; r < ranks(); ++r) {
        detail::box_half const& from = of(r);
        if (from.total > longest) longest = from.total;
        if (r == rank()) continue;
        std::size_t const first = from.start[rank()], end = from.start[rank() + 1];
        if (end - first != bytes_of(rows.recv_start[r + 1] - rows.recv_start[r])) {
          return detail::other_rows(r, which);
        }
        std::size_t const low = first > done ? first : done,
                          high = end < done + room ? end : done + room;
        if (low >= high) continue;
        detail::copy_bytes(
            static_cast<std::byte*>(rows.recv) + bytes_of(rows.recv_start[r]) + (low - first),
            from.bytes + (low - done), high - low);
      }
      turn();
    }
    return {};
  }

  rank_processes_table* table_;
  detail::table_member<watch> member_;
  exchange_rows rows_[most_begun_exchanges];
  int begun_ = 0, which_ = 0;
  bool sits_ = false;
};
static_assert(exchange<rank_processes>);

}  // namespace SHUNT_ABI
}  // namespace shunt
