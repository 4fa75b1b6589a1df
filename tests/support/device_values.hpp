#pragma once
#include <cstring>
#include <utility>
#include <vector>

#include "shunt/backend/cuda/policy.cuh"
#include "shunt/core/arena.hpp"
#include "support/device.hpp"
#include "support/random.hpp"

namespace shunt::test {

/// Normal numbers, or, of elements that are no numbers, any bytes.
template <class T> std::vector<T> values(offset_t count, std::uint64_t seed) {
  rng d(seed);
  std::vector<T> v(static_cast<std::size_t>(count));
  for (T& x : v) {
    if constexpr (storage<T>) {
      x = from_float<T>(static_cast<float>(d.normal()));
    } else {
      std::uint64_t const bits = d.bits();
      std::memcpy(&x, &bits, sizeof x);
    }
  }
  return v;
}

/// Two results are the same bits; a NaN is as good as another (devices make their own).
template <class T>
[[nodiscard]] testing::AssertionResult same_values(std::vector<T> const& got,
                                                   std::vector<T> const& want) {
  if (got.size() != want.size()) return testing::AssertionFailure() << "sizes differ";
  for (std::size_t i = 0; i < got.size(); ++i) {
    bool same = std::memcmp(&got[i], &want[i], sizeof(T)) == 0;
    if constexpr (storage<T>) {
      float const a = to_float(got[i]), b = to_float(want[i]);
      same = same || (a != a && b != b);
      if (!same)
        return testing::AssertionFailure() << "element " << i << ": " << a << ", not " << b;
    }
    if (!same) return testing::AssertionFailure() << "element " << i << " differs";
  }
  return testing::AssertionSuccess();
}

/// The same elements in the memory of both policies: a call is written once and made on both.
template <class T> struct twin {
  std::vector<T> host;
  on_device<T> device;

  explicit twin(std::vector<T> from) : host(std::move(from)), device(host) {}

  template <class... Extent> [[nodiscard]] auto of(on_host const&, Extent... extent) {
    return view<T, static_cast<int>(sizeof...(Extent))>(host.data(),
                                                        {{static_cast<offset_t>(extent)...}});
  }
  template <class... Extent> [[nodiscard]] auto of(on_cuda const&, Extent... extent) const {
    return device.as(extent...);
  }
  void fill(std::vector<T> from) {
    device.fill(from);
    host = std::move(from);
  }
  [[nodiscard]] testing::AssertionResult same() const { return same_values(device.host(), host); }
};

/// call(on_host) and call(on_cuda), which must both succeed.
template <class Call> void on_both_policies(Call const& call) {
  status const host = call(on_host{.threads = 2}), device = call(on_cuda{});
  ASSERT_TRUE(host.ok()) << host.message();
  ASSERT_TRUE(device.ok()) << device.message();
}

/// Scratch of so many bytes, where the policy works.
inline std::vector<std::byte> scratch_for(on_host const&, std::size_t bytes) {
  return std::vector<std::byte>(bytes);
}
inline on_device<std::byte> scratch_for(on_cuda const&, std::size_t bytes) {
  return on_device<std::byte>(static_cast<offset_t>(bytes));
}
template <execution P, class Bytes> arena<P::memory> arena_of(P const&, Bytes& bytes) {
  return {bytes.data(), bytes.size()};
}

}  // namespace shunt::test
