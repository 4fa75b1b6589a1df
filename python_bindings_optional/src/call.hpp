#pragma once
/// What all calls of primitives have in common: the policy, the scratch, the GIL, the sentence.
#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>

#include "policy.hpp"
#include "shunt/core/arena.hpp"
#include "shunt/core/status.hpp"

namespace bindings {

/// A failed status as a ValueError with its sentence.
inline void raise_unless_ok(shunt::status const& done) {
  if (!done.ok()) throw nb::value_error(done.message());
}

/// The calling thread's scratch, kept from call to call up to a bound.
class scratch {
 public:
  static constexpr std::size_t kept = std::size_t{256} << 20;

  static scratch& of_thread() noexcept {
    static thread_local scratch mine;
    return mine;
  }
  [[nodiscard]] shunt::arena<> arena() noexcept { return {bytes_.get(), size_}; }
  void grow(std::size_t size) {
    bytes_.reset();
    size_ = 0;
    bytes_.reset(new std::byte[size]);
    size_ = size;
  }
  void shrink() noexcept {
    if (size_ <= kept) return;
    bytes_.reset();
    size_ = 0;
  }

 private:
  std::unique_ptr<std::byte[]> bytes_;
  std::size_t size_ = 0;
};

/// How often a call repeats its primitive: more than once in bench/overhead.py only, which tells
/// the primitive's time from the call's.
inline int& repeats() noexcept {
  static int times = 1;
  return times;
}

/// Runs a primitive without the GIL and raises what it answers.
template <class Call> void run(Call&& call) {
  shunt::status done;
  {
    nb::gil_scoped_release const free;
    for (int left = repeats(); left > 0; --left) done = call();
  }
  raise_unless_ok(done);
}

/// The same for one that takes scratch: call(arena), bytes(). What it needs is only measured where
/// what is there does not suffice: a primitive says so before it writes anything, and after it has
/// checked all else, so that sizes that are measured have been found to make sense.
template <class Call, class Bytes> void run_with_scratch(Call&& call, Bytes&& bytes) {
  run([&] {
    scratch& mine = scratch::of_thread();
    shunt::status done = call(mine.arena());
    if (done.code() == shunt::error::arena_too_small) {
      mine.grow(bytes());
      done = call(mine.arena());
    }
    mine.shrink();
    return done;
  });
}

}  // namespace bindings
