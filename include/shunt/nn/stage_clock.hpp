#pragma once
#include <chrono>
#include <cstring>

#include "shunt/layer/options.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {

/// Where the time goes: give `clock.hook()` to a layer or a model, and each stage's seconds add up
/// under its name. Call start() before what shall be timed. One thread at a time.
class stage_clock {
 public:
  static constexpr int most = 32;  ///< names; further ones are counted as the last
  /// The time of one stage.
  struct entry {
    char const* name = "";  ///< the stage, as the hook names it
    double seconds = 0.0;   ///< the sum over all calls
  };

  void start() noexcept { last_ = clock_type::now(); }  ///< the next stage begins now
  void clear() noexcept { count_ = 0; }                 ///< forgets all
  /// Seconds since the last call go to `stage`, a string literal.
  void after(char const* stage) noexcept {
    auto const now = clock_type::now();
    int i = 0;
    while (i < count_ && std::strcmp(entries_[i].name, stage) != 0) ++i;
    if (i == count_) {
      if (count_ == most) {
        i = most - 1;
      } else {
        entries_[count_++] = {stage, 0.0};
      }
    }
    entries_[i].seconds += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }
  /// What to give a layer or a model; starts the clock.
  [[nodiscard]] stage_hook hook() noexcept {
    start();
    return {this,
            [](void* self, char const* stage) { static_cast<stage_clock*>(self)->after(stage); }};
  }
  /// The stages, in order of their first call.
  [[nodiscard]] entry const* begin() const noexcept { return entries_; }
  /// Behind the last stage.
  [[nodiscard]] entry const* end() const noexcept { return entries_ + count_; }

 private:
  using clock_type = std::chrono::steady_clock;
  clock_type::time_point last_ = clock_type::now();
  entry entries_[most];
  int count_ = 0;
};

}  // namespace SHUNT_ABI
}  // namespace shunt::nn
