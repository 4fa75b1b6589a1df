#pragma once
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <vector>

#include "shunt/across/exchange.hpp"

namespace shunt::test {

/// An exchange of devices as one of host memory: what it is given goes to the device and comes back on the stream, without
/// a wait between, so that only the transport's own events order the copies.
template <exchange X> class staged_exchange {
 public:
  static constexpr space memory = space::host;
  staged_exchange(X& x, cudaStream_t stream) : x_(x), stream_(stream) {}
  /// At the end alone: cudaFree waits for the whole device, and so for other ranks' kernels.
  ~staged_exchange() {
    for (void* at : held_) EXPECT_EQ(cudaFree(at), cudaSuccess);
  }
  staged_exchange(staged_exchange const&) = delete;
  [[nodiscard]] int rank() const { return x_.rank(); }
  [[nodiscard]] int ranks() const { return x_.ranks(); }

  status all_gather(void const* in, void* out, std::size_t bytes) {
    std::size_t const all = bytes * static_cast<std::size_t>(ranks());
    std::byte *const from = take(in, bytes), *const to = take(nullptr, all);
    status const done = x_.all_gather(from, out != nullptr ? to : nullptr, bytes);
    if (out != nullptr) back_.push_back({out, to, all});
    return end(done);
  }
  status begin(exchange_rows const& rows) {
    auto const R = ranks();
    auto const bytes = [&](offset_t count) {
      return static_cast<std::size_t>(count) * rows.row_bytes;
    };
    exchange_rows device = rows;
    std::byte *const from = take(rows.send, bytes(rows.send_start[R])),
                     *const to = take(nullptr, bytes(rows.recv_start[R]));
    device.send = from;
    device.recv = to;
    auto const there = [&](view<offset_t const, 1> start) {
      auto const size = static_cast<std::size_t>(start.extent(0)) * sizeof(offset_t);
      return view<offset_t const, 1, space::device>(
          reinterpret_cast<offset_t const*>(take(start.data(), size)), {{start.extent(0)}});
    };
    device.send_there = there(rows.send_start);
    device.recv_there = there(rows.recv_start);
    back_.push_back({rows.recv, to, bytes(rows.recv_start[R])});
    return x_.begin(device);
  }
  status finish() { return end(x_.finish()); }
  status carry(void* out, std::size_t bytes) {
    std::byte* const at = take(out, bytes);
    status const done = x_.carry(at, bytes);
    back_.push_back({out, at, bytes});
    return end(done);
  }
  status pass_on(void const* in, std::size_t bytes) {
    return end(x_.pass_on(take(in, bytes), bytes));
  }

 private:
  struct piece {
    void* host;
    std::byte* device;
    std::size_t bytes;
  };
  std::byte* take(void const* from, std::size_t bytes) {
    void* at = nullptr;
    EXPECT_EQ(cudaMalloc(&at, bytes + 1), cudaSuccess);
    held_.push_back(at);
    if (from != nullptr && bytes > 0) {
      EXPECT_EQ(cudaMemcpyAsync(at, from, bytes, cudaMemcpyHostToDevice, stream_), cudaSuccess);
    }
    return static_cast<std::byte*>(at);
  }
  status end(status done) {
    for (piece const& p : back_) {
      if (p.bytes == 0 || !done.ok()) continue;
      EXPECT_EQ(cudaMemcpyAsync(p.host, p.device, p.bytes, cudaMemcpyDeviceToHost, stream_),
                cudaSuccess);
    }
    if (done.ok()) { EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess); }
    back_.clear();
    return done;
  }
  X& x_;
  cudaStream_t stream_;
  std::vector<piece> back_;
  std::vector<void*> held_;
};

}  // namespace shunt::test
