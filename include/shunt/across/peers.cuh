#pragma once
#include "shunt/backend/cuda/requirements.cuh"

#include "shunt/across/device_exchange.hpp"
#include "shunt/backend/cuda/peers_kernels.cuh"

/// Ranks whose devices see each other's memory. Kernels read the counts and move the rows, so a call can be captured in
/// a graph and replayed with other tokens.
namespace shunt {
inline namespace SHUNT_ABI {

/// The exchange of GPUs that see each other's memory (peer access, or memory mapped between processes): one object on
/// each rank, made by all together. `Host` is an exchange of host memory among the same ranks, by which calls agree
/// when they are enqueued; a replay needs no host. Each rank has a window, memory of the caller that all devices may
/// read and write. Rows are copied into the window, and from there by whoever they are for. Kernels wait for other
/// ranks' kernels: all ranks must enqueue, or replay, the same calls, and on one device their streams must run at once.
/// A replay has no deadline, and a call that waits for the whole device (cudaFree) before this rank has enqueued what
/// others wait for never returns. Owns a stream, two events and 16 bytes of device memory from its constructor.
///   shunt::over_peers transport(host, windows, window_bytes, stream);
template <exchange Host> class over_peers {
 public:
  static constexpr space memory = space::device;  ///< where rows are

  /// `windows` [R]: the address of each rank's window, as this rank's device sees it, aligned to 256 bytes. Clears its own
  /// window's signals, and waits for all ranks to have done so.
  over_peers(Host& host, view<std::byte* const, 1> windows, std::size_t window_bytes,
             cudaStream_t stream) noexcept
      : host_(host), stream_(stream), bytes_(window_bytes) {
    made_ = make(windows);
    // Also after an error: the others wait for this rank.
    status const met = host_.all_gather(nullptr, nullptr, 0);
    if (made_.ok()) made_ = met;
  }
  ~over_peers() {
    if (exchange_ != nullptr) static_cast<void>(cudaStreamDestroy(exchange_));
    for (cudaEvent_t const e : {before_, after_}) {
      if (e != nullptr) static_cast<void>(cudaEventDestroy(e));
    }
    if (windows_.step != nullptr) static_cast<void>(cudaFree(windows_.step));
  }
  over_peers(over_peers const&) = delete;
  over_peers& operator=(over_peers const&) = delete;

  /// What a rank may pass on along the ranks.
  static constexpr std::size_t most_chain_bytes = cuda::chain_bytes;
  /// Bytes of a window for so many bytes of rows in one exchange, or of one rank in a gather.
  [[nodiscard]] static constexpr std::size_t window_bytes(std::size_t row_bytes) noexcept {
    return sizeof(cuda::peer_head) + most_chain_bytes + row_bytes;
  }

  [[nodiscard]] int rank() const noexcept { return host_.rank(); }        ///< of `host`
  [[nodiscard]] int ranks() const noexcept { return host_.ranks(); }      ///< of `host`
  [[nodiscard]] cudaStream_t stream() const noexcept { return stream_; }  ///< of the constructor
  [[nodiscard]] Host& host() noexcept { return host_; }                   ///< how calls agree
  /// Ok where the window suffices for these; see window_bytes.
  [[nodiscard]] status room(std::size_t row_bytes) const noexcept {
    if (!made_.ok()) return made_;
    std::size_t const must = window_bytes(row_bytes);
    if (must <= bytes_) return {};
    return status::fail(error::arena_too_small,
                        "over_peers.window_bytes is %zu; it must be %zu or more", bytes_, must);
  }

  /// See exchange: enqueued. As many bytes on all ranks, within the window.
  status all_gather(void const* in, void* out, std::size_t bytes) noexcept {
    if (status bad = room(bytes); !bad.ok()) return bad;
    auto const count = static_cast<offset_t>(bytes);
    if (status bad = fork(); !bad.ok()) return bad;
    if (status bad = post(in, nullptr, 1, count, count); !bad.ok()) return bad;
    if (out != nullptr) {
      if (status bad = fetch(out, nullptr, 1, count, count); !bad.ok()) return bad;
    }
    if (status bad = signal(cuda::close_post); !bad.ok()) return bad;
    return join();
  }
  /// See exchange: enqueued on the transport's own stream. Reads send_there and recv_there; of the others' last entries
  /// alone, as bounds.
  status begin(exchange_rows const& rows) noexcept {
    offset_t const each = static_cast<offset_t>(rows.row_bytes), R = ranks(),
                   out = rows.send_start[R] * each, in = rows.recv_start[R] * each;
    if (!rows.send_there || !rows.recv_there) {
      return status::fail(error::null_pointer,
                          "over_peers.begin.rows: send_there or recv_there is null; both must be "
                          "given");
    }
    if (status bad = room(static_cast<std::size_t>(out)); !bad.ok()) return bad;
    if (status bad = fork(); !bad.ok()) return bad;
    if (status bad = post(rows.send, rows.send_there.data(), each, 0, out); !bad.ok()) return bad;
    if (status bad = fetch(rows.recv, rows.recv_there.data(), each, 0, in); !bad.ok()) return bad;
    return signal(cuda::close_post);
  }
  /// See exchange: `stream` waits for the rows, the host does not.
  status finish() noexcept { return join(); }
  /// See exchange: enqueued. Bytes in fours.
  status carry(void* out, std::size_t bytes) noexcept {
    if (rank() == 0) return made_;
    if (status bad = fork(); !bad.ok()) return bad;
    status const done =
        cuda::launch(own(), "over_peers.carry", 1, 256, cuda::take_link, windows_,
                     static_cast<std::uint32_t*>(out), static_cast<offset_t>(bytes / 4));
    return done.ok() ? join() : done;
  }
  /// See exchange: enqueued. Bytes in fours.
  status pass_on(void const* in, std::size_t bytes) noexcept {
    if (rank() + 1 == ranks()) return made_;
    if (status bad = fork(); !bad.ok()) return bad;
    if (bytes > most_chain_bytes) {
      return status::fail(error::bad_argument,
                          "over_peers.pass_on: bytes is %zu; it must be at most %zu", bytes,
                          most_chain_bytes);
    }
    status const done =
        cuda::launch(own(), "over_peers.pass_on", 1, 256, cuda::pass_link, windows_,
                     static_cast<std::uint32_t const*>(in), static_cast<offset_t>(bytes / 4));
    return done.ok() ? join() : done;
  }

 private:
  status make(view<std::byte* const, 1> windows) noexcept {
    int const R = ranks();
    if (R > cuda::most_peers || windows.extent(0) != R) {
      return status::fail(error::bad_shape,
                          "over_peers.windows: extent 0 is %lld; it must be %d (ranks), at most %d",
                          static_cast<long long>(windows.extent(0)), R, cuda::most_peers);
    }
    windows_.rank = rank();
    windows_.ranks = R;
    for (int r = 0; r < R; ++r) windows_.at[r] = windows[r];
    if (bytes_ < window_bytes(0)) return room(0);
    cudaError_t e = cudaStreamCreateWithFlags(&exchange_, cudaStreamNonBlocking);
    for (cudaEvent_t* const event : {&before_, &after_}) {
      if (e == cudaSuccess) e = cudaEventCreateWithFlags(event, cudaEventDisableTiming);
    }
    if (e == cudaSuccess) e = cudaMalloc(&windows_.step, 2 * sizeof(std::uint64_t));
    if (e == cudaSuccess) {
      e = cudaMemsetAsync(windows_.step, 0, 2 * sizeof(std::uint64_t), exchange_);
    }
    if (e == cudaSuccess) {
      e = cudaMemsetAsync(windows[rank()], 0, sizeof(cuda::peer_head), exchange_);
    }
    if (e == cudaSuccess) e = cudaStreamSynchronize(exchange_);
    return e == cudaSuccess ? status{} : refused("over_peers", e);
  }
  static status refused(char const* what, cudaError_t e) noexcept {
    static_cast<void>(cudaGetLastError());
    return status::fail(error::backend, "over_peers.%s: %s", what, cudaGetErrorString(e));
  }
  [[nodiscard]] on_cuda own() const noexcept { return {exchange_}; }
  /// The exchange comes after what `stream` has by now.
  status fork() noexcept {
    if (!made_.ok()) return made_;
    cudaError_t e = cudaEventRecord(before_, stream_);
    if (e == cudaSuccess) e = cudaStreamWaitEvent(exchange_, before_, 0);
    return e == cudaSuccess ? status{} : refused("begin", e);
  }
  /// What `stream` gets from now on comes after the exchange.
  status join() noexcept {
    if (!made_.ok()) return made_;
    cudaError_t e = cudaEventRecord(after_, exchange_);
    if (e == cudaSuccess) e = cudaStreamWaitEvent(stream_, after_, 0);
    return e == cudaSuccess ? status{} : refused("finish", e);
  }
  template <class Kernel> status signal(Kernel kernel) noexcept {
    return cuda::launch(own(), "over_peers", 1, cuda::most_peers, kernel, windows_);
  }
  /// Calls `as` with the widest word that memory of pieces of `each` bytes is made of.
  template <class As> static status with_word(void const* memory, offset_t each, As const& as) {
    auto const all = reinterpret_cast<std::uintptr_t>(memory) | static_cast<std::uintptr_t>(each);
    if (all % 16 == 0) return as(uint4{});
    if (all % 4 == 0) return as(std::uint32_t{});
    return as(std::uint8_t{});
  }
  /// Into the window, and a meeting with all ranks. `most`: bytes, or a bound of them.
  status post(void const* in, offset_t const* start, offset_t row_bytes, offset_t bytes,
              offset_t most) noexcept {
    if (status bad = signal(cuda::open_post); !bad.ok()) return bad;
    status const out = with_word(in, start != nullptr ? row_bytes : bytes, [&](auto word) {
      using W = decltype(word);
      return cuda::launch_threads(own(), "over_peers", most / offset_t{sizeof(W)} + 1,
                                  cuda::copy_out<W>, windows_, static_cast<W const*>(in), start,
                                  row_bytes, bytes);
    });
    return out.ok() ? signal(cuda::meet_posts) : out;
  }
  status fetch(void* out, offset_t const* start, offset_t row_bytes, offset_t bytes,
               offset_t most) noexcept {
    return with_word(out, start != nullptr ? row_bytes : bytes, [&](auto word) {
      using W = decltype(word);
      return cuda::launch_threads(own(), "over_peers", most / offset_t{sizeof(W)} + 1,
                                  cuda::copy_in<W>, windows_, static_cast<W*>(out), start,
                                  row_bytes, bytes);
    });
  }

  Host& host_;
  cudaStream_t stream_, exchange_ = nullptr;
  cudaEvent_t before_ = nullptr, after_ = nullptr;
  std::size_t bytes_;
  cuda::peer_windows windows_{};
  status made_;
};

}  // namespace SHUNT_ABI
}  // namespace shunt
