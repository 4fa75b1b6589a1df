#pragma once
#include "shunt/core/compiler.hpp"

#include <cuda_runtime.h>
#include <nccl.h>

#include <chrono>
#include <thread>

#include "shunt/across/device_exchange.hpp"

/// Ranks of an NCCL communicator. NCCL moves bytes from rank to rank and nothing else: its reductions, whose bits depend
/// on the number of ranks, are not called. The only header of Shunt that includes <nccl.h>.
namespace shunt {
inline namespace SHUNT_ABI {

/// The exchange of a program with a GPU for each rank: one object for each rank of a communicator, made by all together
/// and used by one thread. Rows travel on a stream of its own, so that work of `stream` goes on between begin() and
/// finish(); events order the two. Pointers that its calls take are the device's. Owns that stream, two events,
/// (ranks + 1) · 2 KiB of device memory and ranks · 2 KiB of pinned memory, all from its constructor; the communicator
/// and `stream` are the caller's.
///   shunt::over_nccl transport(comm, stream);
class over_nccl {
 public:
  static constexpr space memory = space::device;  ///< where rows are

  /// `deadline`: how long other ranks may be late, where a call waits for them (take_messages, wait, and calls of a
  /// communicator that does not block).
  over_nccl(ncclComm_t comm, cudaStream_t stream,
            std::chrono::milliseconds deadline = std::chrono::milliseconds(60000)) noexcept
      : comm_(comm), stream_(stream), deadline_(deadline) {
    made_ = make();
  }
  ~over_nccl() {
    if (exchange_ != nullptr) static_cast<void>(cudaStreamDestroy(exchange_));
    for (cudaEvent_t const e : {before_, after_}) {
      if (e != nullptr) static_cast<void>(cudaEventDestroy(e));
    }
    if (message_ != nullptr) static_cast<void>(cudaFree(message_));
    if (seen_ != nullptr) static_cast<void>(cudaFreeHost(seen_));
  }
  over_nccl(over_nccl const&) = delete;
  over_nccl& operator=(over_nccl const&) = delete;

  [[nodiscard]] int rank() const noexcept { return rank_; }               ///< of this communicator
  [[nodiscard]] int ranks() const noexcept { return ranks_; }             ///< of this communicator
  [[nodiscard]] cudaStream_t stream() const noexcept { return stream_; }  ///< of the constructor
  /// After a deadline, or an error of NCCL, the communicator has been aborted, as its calls would keep the stream for
  /// ever: it is not to be destroyed then, and this object serves nothing more.
  [[nodiscard]] bool aborted() const noexcept { return made_.ok() && comm_ == nullptr; }

  /// See exchange: enqueued. All ranks must bring as many bytes; NCCL does not tell who does not. `out` null: bytes up
  /// to message_bytes.
  status all_gather(void const* in, void* out, std::size_t bytes) noexcept {
    if (out == nullptr && bytes > message_bytes) {
      return status::fail(error::bad_argument,
                          "over_nccl.all_gather: bytes is %zu and out null; NCCL writes to every "
                          "rank, so out must not be null beyond %zu bytes",
                          bytes, message_bytes);
    }
    void* const to = out != nullptr ? out : messages();
    return around("all_gather",
                  [&] { return ncclAllGather(in, to, bytes, ncclUint8, comm_, exchange_); });
  }
  /// See exchange: enqueued on the transport's own stream, behind what `stream` has by now.
  status begin(exchange_rows const& rows) noexcept {
    if (status bad = detail::check_exchange("over_nccl.begin", rows, rank_, ranks_); !bad.ok()) {
      return bad;
    }
    if (begun_ == most_begun_exchanges) {
      return status::fail(error::bad_argument,
                          "over_nccl.begin: %d exchanges are begun; finish() must come first",
                          begun_);
    }
    ++begun_;
    if (status bad = fork(); !bad.ok()) return bad;
    if (status bad = own_rows(rows); !bad.ok()) return bad;
    return settle("begin", send_and_receive(rows));
  }
  /// See exchange: `stream` waits for the rows, the host does not.
  status finish() noexcept {
    begun_ = 0;
    return join();
  }
  /// See exchange: enqueued.
  status carry(void* out, std::size_t bytes) noexcept {
    if (rank_ == 0) return made_;
    return around("carry",
                  [&] { return ncclRecv(out, bytes, ncclUint8, rank_ - 1, comm_, exchange_); });
  }
  /// See exchange: enqueued.
  status pass_on(void const* in, std::size_t bytes) noexcept {
    if (rank_ + 1 == ranks_) return made_;
    return around("pass_on",
                  [&] { return ncclSend(in, bytes, ncclUint8, rank_ + 1, comm_, exchange_); });
  }

  /// See device_exchange.
  [[nodiscard]] std::byte* message() noexcept { return message_; }
  /// See device_exchange.
  [[nodiscard]] std::byte* messages() noexcept { return message_ + message_bytes; }
  /// See device_exchange.
  status gather_messages() noexcept {
    if (!made_.ok()) return made_;
    // No message begins with bytes of ones: after a deadline they tell which rank has not answered.
    std::size_t const all = message_bytes * static_cast<std::size_t>(ranks_);
    cudaError_t const e = cudaMemsetAsync(messages(), 0xff, all, stream_);
    if (e != cudaSuccess) return refused("gather_messages", e);
    return all_gather(message_, messages(), message_bytes);
  }
  /// See device_exchange: waits for `stream`, until the deadline.
  status take_messages(void* to) noexcept {
    if (status bad = wait(); !bad.ok()) return bad;
    if (status bad = look(); !bad.ok()) return bad;
    if (to != nullptr) {
      detail::copy_bytes(to, seen_, message_bytes * static_cast<std::size_t>(ranks_));
    }
    return {};
  }
  /// Waits for `stream`, at most until the deadline: error::peer then, or where NCCL reports an error. In place of
  /// cudaStreamSynchronize, which waits for a lost rank for ever.
  status wait() noexcept {
    if (!usable().ok()) return usable();
    auto const until = std::chrono::steady_clock::now() + deadline_;
    for (;;) {
      cudaError_t const e = cudaStreamQuery(stream_);
      if (e == cudaSuccess) return {};
      if (e != cudaErrorNotReady) return refused("wait", e);
      ncclResult_t state = ncclSuccess;
      if (ncclResult_t const r = ncclCommGetAsyncError(comm_, &state); r != ncclSuccess) state = r;
      if (state != ncclSuccess && state != ncclInProgress) return failed("wait", state);
      if (std::chrono::steady_clock::now() > until) return late();
      std::this_thread::yield();
    }
  }

 private:
  status make() noexcept {
    ncclResult_t r = ncclCommUserRank(comm_, &rank_);
    if (r == ncclSuccess) r = ncclCommCount(comm_, &ranks_);
    if (r != ncclSuccess) return failed("over_nccl", r);
    auto const all = static_cast<std::size_t>(ranks_) * message_bytes;
    cudaError_t e = cudaStreamCreateWithFlags(&exchange_, cudaStreamNonBlocking);
    for (cudaEvent_t* const event : {&before_, &after_}) {
      if (e == cudaSuccess) e = cudaEventCreateWithFlags(event, cudaEventDisableTiming);
    }
    if (e == cudaSuccess) e = cudaMalloc(&message_, all + message_bytes);
    if (e == cudaSuccess) e = cudaMallocHost(&seen_, all);
    return e == cudaSuccess ? status{} : refused("over_nccl", e);
  }
  [[nodiscard]] status usable() const noexcept {
    if (!made_.ok() || comm_ != nullptr) return made_;
    return status::fail(error::peer, "over_nccl: the communicator was aborted after an error");
  }
  /// A call of NCCL on the transport's stream, behind and before what `stream` has.
  template <class Call> status around(char const* what, Call const& call) noexcept {
    if (status bad = fork(); !bad.ok()) return bad;
    if (status bad = settle(what, call()); !bad.ok()) return bad;
    return join();
  }
  /// The exchange comes after what `stream` has by now.
  status fork() noexcept {
    if (!usable().ok()) return usable();
    cudaError_t e = cudaEventRecord(before_, stream_);
    if (e == cudaSuccess) e = cudaStreamWaitEvent(exchange_, before_, 0);
    return e == cudaSuccess ? status{} : refused("begin", e);
  }
  /// What `stream` gets from now on comes after the exchange.
  status join() noexcept {
    if (!usable().ok()) return usable();
    cudaError_t e = cudaEventRecord(after_, exchange_);
    if (e == cudaSuccess) e = cudaStreamWaitEvent(stream_, after_, 0);
    return e == cudaSuccess ? status{} : refused("finish", e);
  }
  status own_rows(exchange_rows const& rows) noexcept {
    offset_t const from = rows.send_start[rank_], to = rows.recv_start[rank_];
    std::size_t const count = bytes(rows, rows.send_start[rank_ + 1] - from);
    if (count == 0) return {};
    cudaError_t const e =
        cudaMemcpyAsync(static_cast<std::byte*>(rows.recv) + bytes(rows, to),
                        static_cast<std::byte const*>(rows.send) + bytes(rows, from), count,
                        cudaMemcpyDeviceToDevice, exchange_);
    return e == cudaSuccess ? status{} : refused("begin", e);
  }
  ncclResult_t send_and_receive(exchange_rows const& rows) noexcept {
    ncclResult_t worst = ncclGroupStart();
    auto const keep = [&](ncclResult_t r) {
      if (worst == ncclSuccess || worst == ncclInProgress) worst = r;
    };
    for (int r = 0; r < ranks_; ++r) {
      if (r == rank_) continue;
      offset_t const from = rows.send_start[r], to = rows.recv_start[r],
                     out = rows.send_start[r + 1] - from, in = rows.recv_start[r + 1] - to;
      if (out > 0) {
        keep(ncclSend(static_cast<std::byte const*>(rows.send) + bytes(rows, from),
                      bytes(rows, out), ncclUint8, r, comm_, exchange_));
      }
      if (in > 0) {
        keep(ncclRecv(static_cast<std::byte*>(rows.recv) + bytes(rows, to), bytes(rows, in),
                      ncclUint8, r, comm_, exchange_));
      }
    }
    keep(ncclGroupEnd());
    return worst;
  }
  static std::size_t bytes(exchange_rows const& rows, offset_t count) noexcept {
    return static_cast<std::size_t>(count) * rows.row_bytes;
  }
  /// A communicator that does not block says ncclInProgress until a call has gone through.
  status settle(char const* what, ncclResult_t result) noexcept {
    auto const until = std::chrono::steady_clock::now() + deadline_;
    while (result == ncclInProgress) {
      if (std::chrono::steady_clock::now() > until) return late();
      std::this_thread::yield();
      if (ncclResult_t const r = ncclCommGetAsyncError(comm_, &result); r != ncclSuccess) {
        result = r;
      }
    }
    return result == ncclSuccess ? status{} : failed(what, result);
  }
  status failed(char const* what, ncclResult_t result) noexcept {
    status const bad = status::fail(result == ncclRemoteError ? error::peer : error::backend,
                                    "over_nccl.%s: %s", what, ncclGetErrorString(result));
    abort();
    return bad;
  }
  static status refused(char const* what, cudaError_t e) noexcept {
    static_cast<void>(cudaGetLastError());
    return status::fail(error::backend, "over_nccl.%s: %s", what, cudaGetErrorString(e));
  }
  void abort() noexcept {
    if (comm_ != nullptr) static_cast<void>(ncclCommAbort(comm_));
    comm_ = nullptr;
  }
  /// The messages as they are now, into host memory.
  status look() noexcept {
    cudaError_t e =
        cudaMemcpyAsync(seen_, messages(), message_bytes * static_cast<std::size_t>(ranks_),
                        cudaMemcpyDeviceToHost, exchange_);
    if (e == cudaSuccess) e = cudaStreamSynchronize(exchange_);
    return e == cudaSuccess ? status{} : refused("take_messages", e);
  }
  /// A ring brings the message of the rank before first: the first that is missing, backwards, is the one.
  status late() noexcept {
    auto const ms = static_cast<long long>(deadline_.count());
    abort();
    if (look().ok()) {
      for (int i = 1; i < ranks_; ++i) {
        int const r = (rank_ + ranks_ - i) % ranks_;
        std::int64_t first = 0;
        std::memcpy(&first, seen_ + static_cast<std::size_t>(r) * message_bytes, sizeof first);
        if (first != -1) continue;
        return status::fail(error::peer, "rank %d of %d has not answered within %lld ms", r, ranks_,
                            ms);
      }
    }
    return status::fail(error::peer, "a rank of %d has not answered within %lld ms", ranks_, ms);
  }

  ncclComm_t comm_;
  cudaStream_t stream_, exchange_ = nullptr;
  std::chrono::milliseconds deadline_;
  cudaEvent_t before_ = nullptr, after_ = nullptr;
  std::byte *message_ = nullptr, *seen_ = nullptr;
  int rank_ = 0, ranks_ = 1, begun_ = 0;
  status made_;
};
static_assert(device_exchange<over_nccl>);

}  // namespace SHUNT_ABI
}  // namespace shunt
