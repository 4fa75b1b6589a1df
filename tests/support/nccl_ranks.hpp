#pragma once
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <thread>
#include <vector>

#include "shunt/across/nccl.cuh"
#include "softnccl.hpp"
#include "support/device.hpp"
#include "support/expect_error.hpp"

/// Ranks of the software NCCL for tests: a thread each, all on one device.
namespace shunt::test {

/// The communicators of a group; those that were not aborted are destroyed with it.
class nccl_group {
 public:
  nccl_group(int ranks, std::uint64_t seed) : comms_(static_cast<std::size_t>(ranks)) {
    softnccl::shuffle(seed);
    EXPECT_EQ(ncclCommInitAll(comms_.data(), ranks, nullptr), ncclSuccess);
  }
  nccl_group(nccl_group const&) = delete;
  ~nccl_group() {
    for (ncclComm_t const c : comms_) {
      if (c != nullptr) { EXPECT_EQ(ncclCommDestroy(c), ncclSuccess); }
    }
  }
  [[nodiscard]] ncclComm_t operator[](int rank) const {
    return comms_[static_cast<std::size_t>(rank)];
  }
  void forget(int rank) { comms_[static_cast<std::size_t>(rank)] = nullptr; }

 private:
  std::vector<ncclComm_t> comms_;
};

/// Runs body(transport, stream) for each rank in a thread of its own. NCCL's rules were kept, or the test fails.
inline void on_nccl(int ranks, std::uint64_t seed,
                    std::function<void(over_nccl&, cudaStream_t)> const& body,
                    std::chrono::milliseconds deadline = std::chrono::milliseconds(60000)) {
  {
    nccl_group group(ranks, seed);
    std::vector<std::thread> threads;
    for (int r = 0; r < ranks; ++r) {
      threads.emplace_back([&, r] {
        cudaStream_t stream{};
        EXPECT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
        {
          over_nccl x(group[r], stream, deadline);
          body(x, stream);
          if (x.aborted()) group.forget(r);
          EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
        }
        EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
      });
    }
    for (std::thread& t : threads) t.join();
  }
  for (std::string const& s : softnccl::take_sentences()) ADD_FAILURE() << s;
}

}  // namespace shunt::test
