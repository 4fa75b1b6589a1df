#pragma once
/// Ranks as Python reaches them. The layer is compiled once, for `transport`, whatever moves the bytes.
#include <nanobind/nanobind.h>

#include <exception>
#include <memory>
#include <vector>

#include "array.hpp"
#include "shunt/across/recover.hpp"

namespace bindings {

/// An exchange of Shunt whose calls are chosen at run time.
class transport {
 public:
  static constexpr shunt::space memory = shunt::space::host;
  virtual ~transport() = default;

  [[nodiscard]] virtual int rank() const noexcept = 0;
  [[nodiscard]] virtual int ranks() const noexcept = 0;
  virtual shunt::status all_gather(void const* in, void* out, std::size_t bytes) noexcept = 0;
  virtual shunt::status begin(shunt::exchange_rows const& rows) noexcept = 0;
  virtual shunt::status finish() noexcept = 0;
  virtual shunt::status carry(void* out, std::size_t bytes) noexcept = 0;
  virtual shunt::status pass_on(void const* in, std::size_t bytes) noexcept = 0;
  virtual shunt::status recover(shunt::view<std::uint8_t, 1> survives) noexcept = 0;

  std::exception_ptr raised;  ///< what a call into Python raised, for whoever runs the primitive
};
static_assert(shunt::recoverable_exchange<transport>);

/// A Python object with `rank`, `ranks`, `all_gather(send, receive)` and `exchange(send, send_bytes,
/// receive, receive_bytes)`. The GIL is taken for each call of it. A chain along the ranks is made of
/// exchanges: in the i-th one rank i sends to rank i + 1, and the others take part with nothing.
class python_exchange final : public transport {
 public:
  explicit python_exchange(nb::handle object);

  [[nodiscard]] int rank() const noexcept override { return rank_; }
  [[nodiscard]] int ranks() const noexcept override { return ranks_; }
  shunt::status all_gather(void const* in, void* out, std::size_t bytes) noexcept override;
  shunt::status begin(shunt::exchange_rows const& rows) noexcept override;
  shunt::status finish() noexcept override;
  shunt::status carry(void* out, std::size_t bytes) noexcept override;
  shunt::status pass_on(void const* in, std::size_t bytes) noexcept override;
  shunt::status recover(shunt::view<std::uint8_t, 1> survives) noexcept override;

 private:
  template <class F> shunt::status ask(char const* name, F&& f) noexcept;
  shunt::status move(shunt::exchange_rows const& rows) noexcept;
  shunt::status step_of_chain(int step, void const* in, void* out, std::size_t bytes) noexcept;

  nb::object all_gather_, exchange_;
  int rank_ = 0, ranks_ = 1, begun_ = 0;
  shunt::exchange_rows rows_[shunt::most_begun_exchanges];
};

/// Python's AmongRanks: the transport, the placement, and what was moved.
struct among_state {
  nb::object owner;  ///< Python's transport
  std::unique_ptr<python_exchange> of_python;
  transport* reach = nullptr;
  std::vector<index_t> start, expert;
  index_t experts = 0, most_tokens = 0, most_rows = 0;
  shunt::across_report report;
  bool send_once = false, in_use = false;

  [[nodiscard]] shunt::among_ranks<transport> ranks() noexcept {
    return {.transport = *reach,
            .placement = {shunt::view<index_t const, 1>(start),
                          shunt::view<index_t const, 1>(expert), experts},
            .most_tokens = most_tokens,
            .most_rows = most_rows,
            .report = &report,
            .send_once = send_once};
  }
};

/// One call of all ranks. Where this rank raises before it has met the others, it meets them with that
/// as its own error, so that they return too and do not wait for it.
class meeting {
 public:
  /// `agrees`: the call begins with a round of headers, in which an error may be said.
  meeting(among_state& among, char const* who, bool agrees = true);
  ~meeting() { among_.in_use = false; }
  meeting(meeting const&) = delete;
  meeting& operator=(meeting const&) = delete;

  template <class Body> auto hold(Body&& body) {
    try {
      return body();
    } catch (...) {
      leave(std::current_exception());
      throw;  // never reached
    }
  }

 private:
  [[noreturn]] void leave(std::exception_ptr wrong);
  among_state& among_;
  char const* who_;
  bool agrees_;
  shunt::offset_t rounds_;
};

/// Tells the other ranks that this one cannot call.
void refuse(among_state& among, char const* who, char const* sentence) noexcept;

}  // namespace bindings
