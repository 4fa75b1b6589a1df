#include "across_ranks.hpp"

#include <nanobind/stl/vector.h>

#include <chrono>
#include <string>

#include "bind.hpp"
#include "call.hpp"
#include "maybe.hpp"
#include "shunt/across/agree.hpp"
#include "shunt/across/processes.hpp"

namespace bindings {
namespace {

/// Bytes of Shunt's as Python's memoryview, for the time of one call.
class lent_bytes {
 public:
  lent_bytes(void* bytes, std::size_t count, int how)
      : view_(nb::steal(PyMemoryView_FromMemory(
            static_cast<char*>(count == 0 ? static_cast<void*>(&nothing) : bytes),
            static_cast<Py_ssize_t>(count), how))) {
    if (!view_.is_valid()) throw nb::python_error();
  }
  lent_bytes(void const* bytes, std::size_t count)
      : lent_bytes(const_cast<void*>(bytes), count, PyBUF_READ) {}
  ~lent_bytes() {  // who keeps it finds it released
    nb::object const done = nb::steal(PyObject_CallMethod(view_.ptr(), "release", nullptr));
    if (!done.is_valid()) PyErr_Clear();
  }
  lent_bytes(lent_bytes const&) = delete;
  lent_bytes& operator=(lent_bytes const&) = delete;

  [[nodiscard]] nb::object const& view() const noexcept { return view_; }

 private:
  static inline char nothing = 0;
  nb::object view_;
};

/// What is wrong, without the traceback.
std::string sentence_of(std::exception_ptr const& wrong) {
  try {
    std::rethrow_exception(wrong);
  } catch (nb::python_error const& e) {
    return nb::str(e.value()).c_str();
  } catch (std::exception const& e) { return e.what(); } catch (...) {
    return "an error";
  }
}

int number_of(nb::handle object, char const* name) {
  nb::object const value = object.attr(name);
  int number = 0;
  if (nb::try_cast(value, number)) return number;
  value_error(std::string("among_ranks.transport.") + name + " is " + nb::repr(value).c_str() +
              "; it must be an integer");
}

}  // namespace

python_exchange::python_exchange(nb::handle object)
    : all_gather_(object.attr("all_gather")),
      exchange_(object.attr("exchange")),
      rank_(number_of(object, "rank")),
      ranks_(number_of(object, "ranks")) {
  if (ranks_ < 1 || rank_ < 0 || rank_ >= ranks_) {
    value_error("among_ranks.transport: rank is " + std::to_string(rank_) + " and ranks " +
                std::to_string(ranks_) + "; rank must be from 0 to ranks - 1");
  }
}

template <class F> shunt::status python_exchange::ask(char const* name, F&& f) noexcept {
  nb::gil_scoped_acquire const held;
  try {
    f();
    return {};
  } catch (...) {
    raised = std::current_exception();
    return shunt::status::fail(shunt::error::peer, "%s: %s", name, sentence_of(raised).c_str());
  }
}

shunt::status python_exchange::all_gather(void const* in, void* out, std::size_t bytes) noexcept {
  if (ranks_ == 1) {
    if (out != nullptr) shunt::detail::copy_bytes(out, in, bytes);
    return {};
  }
  return ask("all_gather", [&] {
    std::size_t const all = bytes * static_cast<std::size_t>(ranks_);
    std::vector<std::byte> unwanted(out == nullptr ? all : 0);
    lent_bytes const send(in, bytes),
        receive(out == nullptr ? unwanted.data() : out, all, PyBUF_WRITE);
    all_gather_(send.view(), receive.view());
  });
}

shunt::status python_exchange::begin(shunt::exchange_rows const& rows) noexcept {
  if (shunt::status bad = shunt::detail::check_exchange("begin", rows, rank_, ranks_); !bad.ok()) {
    return bad;
  }
  if (begun_ == shunt::most_begun_exchanges) {
    return shunt::status::fail(shunt::error::bad_argument,
                               "begin: %d exchanges are begun; finish() must come first", begun_);
  }
  rows_[begun_++] = rows;
  return {};
}

shunt::status python_exchange::finish() noexcept {
  int const begun = begun_;
  begun_ = 0;
  for (int i = 0; i < begun; ++i) {
    if (shunt::status bad = move(rows_[i]); !bad.ok()) return bad;
  }
  return {};
}

/// Its own rows too: they are in the lists, and a Python exchange may leave them out.
shunt::status python_exchange::move(shunt::exchange_rows const& rows) noexcept {
  if (ranks_ > 1) {
    shunt::status const done = ask("exchange", [&] {
      auto const bytes = [&](offset_t count) {
        return static_cast<std::size_t>(count) * rows.row_bytes;
      };
      nb::list out, in;
      for (int r = 0; r < ranks_; ++r) {
        out.append(bytes(rows.send_start[r + 1] - rows.send_start[r]));
        in.append(bytes(rows.recv_start[r + 1] - rows.recv_start[r]));
      }
      lent_bytes const send(rows.send, bytes(rows.send_start[ranks_])),
          receive(rows.recv, bytes(rows.recv_start[ranks_]), PyBUF_WRITE);
      exchange_(send.view(), out, receive.view(), in);
    });
    if (!done.ok()) return done;
  }
  shunt::detail::copy_own_rows(rows, rank_);
  return {};
}

shunt::status python_exchange::step_of_chain(int step, void const* in, void* out,
                                             std::size_t bytes) noexcept {
  return ask("exchange", [&] {
    nb::list sent, received;
    std::size_t const sends = rank_ == step ? bytes : 0, takes = rank_ == step + 1 ? bytes : 0;
    for (int r = 0; r < ranks_; ++r) {
      sent.append(r == step + 1 ? sends : 0);
      received.append(r == step ? takes : 0);
    }
    lent_bytes const send(in, sends), receive(out, takes, PyBUF_WRITE);
    exchange_(send.view(), sent, receive.view(), received);
  });
}
shunt::status python_exchange::carry(void* out, std::size_t bytes) noexcept {
  for (int step = 0; step < rank_; ++step) {
    if (shunt::status bad = step_of_chain(step, nullptr, out, bytes); !bad.ok()) return bad;
  }
  return {};
}
shunt::status python_exchange::pass_on(void const* in, std::size_t bytes) noexcept {
  for (int step = rank_; step + 1 < ranks_; ++step) {
    if (shunt::status bad = step_of_chain(step, in, nullptr, bytes); !bad.ok()) return bad;
  }
  return {};
}
shunt::status python_exchange::recover(shunt::view<std::uint8_t, 1>) noexcept {
  return shunt::status::fail(shunt::error::unsupported,
                             "recover: an exchange written in Python is made anew by its maker");
}

meeting::meeting(among_state& among, char const* who, bool agrees)
    : among_(among), who_(who), agrees_(agrees), rounds_(among.report.rounds) {
  if (among.in_use) {
    value_error(std::string(who) + ".among is in use by another thread; each needs one of its own");
  }
  among.in_use = true;
  among.reach->raised = nullptr;
}

void meeting::leave(std::exception_ptr wrong) {
  // Raised by the exchange itself: more than its sentence.
  if (among_.reach->raised) std::rethrow_exception(std::exchange(among_.reach->raised, nullptr));
  if (agrees_ && among_.report.rounds == rounds_) refuse(among_, who_, sentence_of(wrong).c_str());
  among_.reach->raised = nullptr;
  std::rethrow_exception(std::move(wrong));
}

void refuse(among_state& among, char const* who, char const* sentence) noexcept {
  if (among.reach->ranks() == 1) return;
  nb::gil_scoped_release const free;
  shunt::detail::agreed_number const none[] = {{}};
  static_cast<void>(shunt::detail::agree(
      who, among.ranks(), {}, shunt::status::fail(shunt::error::bad_argument, "%s", sentence), {},
      none));
}

namespace {

/// Where processes of one host meet: made before fork.
struct process_table {
  std::shared_ptr<shunt::rank_processes_table> table;

  process_table(int ranks, std::size_t box_bytes)
      : table(std::make_shared<shunt::rank_processes_table>(ranks, box_bytes)) {
    if (ranks < 1 || ranks > shunt::rank_processes_table::most_ranks) {
      value_error("ProcessTable.ranks is " + std::to_string(ranks) + "; it must be from 1 to " +
                  std::to_string(shunt::rank_processes_table::most_ranks));
    }
    if (!table->ok()) throw std::bad_alloc();
    seats = ranks;
  }
  int seats = 0;
};

/// One process's seat at it.
class process_rank final : public transport {
 public:
  process_rank(process_table const& at, int seat, double deadline)
      : table_(at.table), rank_(*table_, seat_of(at, seat), milliseconds(deadline)) {}

  [[nodiscard]] int rank() const noexcept override { return rank_.rank(); }
  [[nodiscard]] int ranks() const noexcept override { return rank_.ranks(); }
  shunt::status all_gather(void const* in, void* out, std::size_t bytes) noexcept override {
    return rank_.all_gather(in, out, bytes);
  }
  shunt::status begin(shunt::exchange_rows const& rows) noexcept override {
    return rank_.begin(rows);
  }
  shunt::status finish() noexcept override { return rank_.finish(); }
  shunt::status carry(void* out, std::size_t bytes) noexcept override {
    return rank_.carry(out, bytes);
  }
  shunt::status pass_on(void const* in, std::size_t bytes) noexcept override {
    return rank_.pass_on(in, bytes);
  }
  shunt::status recover(shunt::view<std::uint8_t, 1> survives) noexcept override {
    return rank_.recover(survives);
  }

 private:
  static int seat_of(process_table const& at, int seat) {
    if (seat >= 0 && seat < at.seats) return seat;
    value_error("rank_processes.seat is " + std::to_string(seat) + "; it must be from 0 to " +
                std::to_string(at.seats - 1));
  }
  static std::chrono::milliseconds milliseconds(double seconds) {
    return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000.0));
  }
  std::shared_ptr<shunt::rank_processes_table> table_;
  shunt::rank_processes rank_;
};

/// Whoever is left: a list with True for each rank of before that is.
nb::list recover_ranks(transport& ranks) {
  std::vector<std::uint8_t> survives(static_cast<std::size_t>(ranks.ranks()));
  run([&] { return ranks.recover(shunt::view<std::uint8_t, 1>(survives)); });
  nb::list left;
  for (std::uint8_t is : survives) left.append(nb::bool_(is != 0));
  return left;
}

void make_among(among_state* at, maybe reach, std::vector<index_t> start,
                std::vector<index_t> expert, index_t experts, index_t most_tokens,
                index_t most_rows, bool send_once) {
  new (at) among_state;
  at->owner = nb::borrow(reach);
  if (nb::isinstance<process_rank>(reach)) {
    at->reach = nb::inst_ptr<process_rank>(reach);
  } else {
    at->of_python = std::make_unique<python_exchange>(reach);
    at->reach = at->of_python.get();
  }
  at->start = std::move(start);
  at->expert = std::move(expert);
  at->experts = experts;
  at->most_tokens = most_tokens;
  at->most_rows = most_rows;
  at->send_once = send_once;
}

nb::dict described(shunt::across_report const& r) {
  nb::dict d;
  d["rows_sent"] = r.rows_sent;
  d["rows_received"] = r.rows_received;
  d["bytes_sent"] = r.bytes_sent;
  d["bytes_received"] = r.bytes_received;
  d["rounds"] = r.rounds;
  return d;
}

/// Both lists of a placement's survivors.
nb::tuple survivors(std::vector<index_t> const& start, std::vector<index_t> const& expert,
                    index_t experts, std::vector<std::uint8_t> const& survives) {
  std::size_t left = 0;
  for (std::uint8_t is : survives) left += is != 0 ? 1u : 0u;
  std::vector<index_t> to_start(left + 1), to_expert(expert.size());
  shunt::expert_placement after;
  raise_unless_ok(shunt::place_on_survivors(
      {shunt::view<index_t const, 1>(start), shunt::view<index_t const, 1>(expert), experts},
      shunt::view<std::uint8_t const, 1>(survives), shunt::view<index_t, 1>(to_start),
      shunt::view<index_t, 1>(to_expert), after));
  to_expert.resize(static_cast<std::size_t>(after.places()));
  return nb::make_tuple(to_start, to_expert);
}

}  // namespace

void bind_across_ranks(nb::module_& m) {
  nb::class_<process_table>(m, "ProcessTable",
                            "Where processes of one host meet: made before fork.")
      .def(nb::init<int, std::size_t>(), nb::arg("ranks"),
           nb::arg("box_bytes") = std::size_t{1} << 20);
  nb::class_<process_rank>(m, "rank_processes",
                           "One process's rank, made after fork by the thread that calls it.")
      .def(nb::init<process_table const&, int, double>(), nb::arg("table"), nb::arg("seat"),
           nb::arg("deadline") = 60.0)
      .def_prop_ro("rank", [](process_rank const& r) { return r.rank(); })
      .def_prop_ro("ranks", [](process_rank const& r) { return r.ranks(); })
      .def(
          "recover", [](process_rank& r) { return recover_ranks(r); },
          "Who is left agrees on it and is numbered anew: a list with True for each rank of before "
          "that is. Make a new AmongRanks then.");
  nb::class_<among_state>(m, "AmongRanks")
      .def("__init__", &make_among)
      .def_prop_ro("rank", [](among_state const& a) { return a.reach->rank(); })
      .def_prop_ro("ranks", [](among_state const& a) { return a.reach->ranks(); })
      .def_prop_ro(
          "report", [](among_state const& a) { return described(a.report); },
          "Rows and bytes to and from other ranks since clear_report, and rounds.")
      .def("clear_report", [](among_state& a) { a.report = {}; })
      .def("refuse",
           [](among_state& a, char const* who, char const* sentence) { refuse(a, who, sentence); });
  m.def("place_on_survivors", &survivors);
}

}  // namespace bindings
