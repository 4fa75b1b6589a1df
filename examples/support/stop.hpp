#pragma once
#include <csignal>

namespace lm {

namespace detail {
inline volatile std::sig_atomic_t stop_asked = 0;
}

/// True once the user has asked the program to end (Ctrl-C, or SIGTERM from a supervisor).
[[nodiscard]] inline bool stop_asked() noexcept { return detail::stop_asked != 0; }

/// From here on the first signal is a request, which the program answers when its state is saved. A
/// second one ends it at once.
inline void listen_for_stop() noexcept {
  auto const note = +[](int which) {
    detail::stop_asked = 1;
    std::signal(which, SIG_DFL);
  };
  std::signal(SIGINT, note);
  std::signal(SIGTERM, note);
}

}  // namespace lm
