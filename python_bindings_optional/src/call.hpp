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

/// A failed status as a ValueError with its sentence; of a rank that is lost as a ConnectionError.
inline void raise_unless_ok(shunt::status const& done) {
  if (done.code() == shunt::error::peer) {
    PyErr_SetString(PyExc_ConnectionError, done.message());
    throw nb::python_error();
  }
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
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
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

/// The same for one that takes scratch: call(arena), bytes(). On a device the scratch is an array of
/// the kind of `like`, given back when all is enqueued: its library reuses memory in stream order. What it needs is only measured where
/// what is there does not suffice: a primitive says so before it writes anything, and after it has
/// checked all else, so that sizes that are measured have been found to make sense.
template <class Call, class Bytes>
void run_with_scratch([[maybe_unused]] nb::handle like, Call&& call, Bytes&& bytes) {
#ifndef SHUNT_BINDINGS_CUDA
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
#else
  nb::handle const given = called().scratch;
  if (!given.is_valid()) {
    shunt::status const done = call(shunt::arena<S>());
    if (done.code() != shunt::error::arena_too_small) return raise_unless_ok(done);
  }
  array const work = given.is_valid()
                         ? array(given, "on_cuda.scratch", 1, {element::u8}, access::write, here)
                         : output(nb::none(), like, "on_cuda.scratch",
                                  {static_cast<offset_t>(bytes())}, {element::u8}, here);
  auto const size = static_cast<std::size_t>(work.extent(0)), taken = called().taken;
  auto* const first = static_cast<std::byte*>(work.data()) + taken;
  run([&] { return call(shunt::arena<S>(first, size - taken)); });
#endif
}

}  // namespace bindings
