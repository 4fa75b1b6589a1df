#pragma once
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <vector>

#include "shunt/across/peers.cuh"
#include "support/device.hpp"
#include "support/ranks.hpp"

/// Ranks that see each other's memory, for tests: a thread and a stream each, all on one device.
namespace shunt::test {

using peers = over_peers<rank_threads>;

/// Runs body(transport, stream) for each rank. `row_bytes`: what a window has for rows.
inline void on_peers(int ranks, std::size_t row_bytes,
                     std::function<void(peers&, cudaStream_t)> const& body) {
  std::size_t const bytes = peers::window_bytes(row_bytes);
  std::vector<std::unique_ptr<on_device<std::byte>>> windows;
  std::vector<std::byte*> addresses;
  for (int r = 0; r < ranks; ++r) {
    windows.push_back(std::make_unique<on_device<std::byte>>(static_cast<offset_t>(bytes)));
    addresses.push_back(windows.back()->data());
  }
  on_threads(ranks, [&](rank_threads& host) {
    cudaStream_t stream{};
    EXPECT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
    {
      peers x(host, view<std::byte* const, 1>(addresses.data(), {{ranks}}), bytes, stream);
      body(x, stream);
      EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
      EXPECT_TRUE(host.all_gather(nullptr, nullptr, 0).ok());  // nobody reads this window any more
    }
    EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
  });
}

}  // namespace shunt::test
