#pragma once
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <utility>

namespace lm {

using wall_clock = std::chrono::steady_clock;

[[nodiscard]] inline double seconds_since(wall_clock::time_point start) noexcept {
  return std::chrono::duration<double>(wall_clock::now() - start).count();
}

/// printf into a string.
template <class... A> [[nodiscard]] std::string format(char const* text, A... arguments) {
  int const size = std::snprintf(nullptr, 0, text, arguments...);
  std::string result(static_cast<std::size_t>(std::max(size, 0)) + 1, '\0');
  std::snprintf(result.data(), result.size(), text, arguments...);
  result.pop_back();
  return result;
}

/// 75 becomes "1m15s".
[[nodiscard]] inline std::string duration_text(double seconds) {
  long const s = static_cast<long>(std::max(seconds, 0.0) + 0.5);
  return s < 60 ? format("%lds", s) : format("%ldm%02lds", s / 60, s % 60);
}

/// 12345678 becomes "12.3M".
[[nodiscard]] inline std::string count_text(double count) {
  if (count < 1e3) return format("%.0f", count);
  if (count < 1e6) return format("%.1fk", count / 1e3);
  if (count < 1e9) return format("%.1fM", count / 1e6);
  return format("%.1fG", count / 1e9);
}

/// A progress bar that rewrites its line on a terminal; elsewhere a plain line now and then.
class progress {
 public:
  progress(std::string title, long total, std::FILE* to = stdout)
      : title_(std::move(title)), total_(total), to_(to), terminal_(::isatty(::fileno(to)) != 0) {}
  ~progress() { finish(); }
  progress(progress const&) = delete;
  progress& operator=(progress const&) = delete;

  /// `details` stands behind the bar. `seconds_left` < 0: not known yet.
  void show(long done, std::string const& details, double seconds_left) {
    double const share = total_ > 0 ? double(done) / double(total_) : 1.0;
    double const quiet = terminal_ ? 0.1 : 10.0;  // seconds between two lines
    if (shown_ && done < total_ && seconds_since(last_) < quiet) return;
    shown_ = true;
    last_ = wall_clock::now();
    std::string const left =
        seconds_left < 0 ? std::string() : "  " + duration_text(seconds_left) + " left";
    std::string const head = format("%-5s %3d %%", title_.c_str(), int(share * 100));
    if (!terminal_) {
      std::fprintf(to_, "%s  step %ld/%ld  %s%s\n", head.c_str(), done, total_, details.c_str(),
                   left.c_str());
      std::fflush(to_);
      return;
    }
    // Characters of one cell each, except in the bar itself, whose cells are counted apart.
    std::string const tail = "  " + details + left;
    int const spare = columns() - 1 - int(head.size()) - int(tail.size()) - 3;
    std::string line = head;
    if (spare >= 4) line += " " + bar(share, std::min(spare, 30));
    line += tail;
    if (spare < 4) line.resize(std::min(line.size(), std::size_t(std::max(columns() - 1, 20))));
    std::fprintf(to_, "\r\033[K%s", line.c_str());
    std::fflush(to_);
    open_line_ = true;
  }

  /// Ends the line, so that what follows stands on its own.
  void finish() {
    if (open_line_) std::fputc('\n', to_);
    open_line_ = false;
  }

 private:
  [[nodiscard]] int columns() const noexcept {
    winsize size{};
    bool const known = ::ioctl(::fileno(to_), TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return known ? size.ws_col : 80;
  }

  [[nodiscard]] static std::string bar(double share, int cells) {
    static constexpr char const* eighths[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    int const filled = int(share * cells * 8);
    std::string text = "[";
    for (int cell = 0; cell < cells; ++cell) {
      text += filled >= 8 * (cell + 1) ? "█" : eighths[std::max(filled - 8 * cell, 0) % 8];
    }
    return text + "]";
  }

  std::string title_;
  long total_;
  std::FILE* to_;
  bool terminal_, shown_ = false, open_line_ = false;
  wall_clock::time_point last_{};
};

}  // namespace lm
