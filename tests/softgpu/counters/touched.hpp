#pragma once
// Which bytes of device memory a launch has read and which it has written: a bit for each, in
// chunks made when they are first touched. Only kept where settings::count_unique_bytes asks.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace softgpu {

class touched_bytes {
 public:
  touched_bytes();
  touched_bytes(touched_bytes const&) = delete;
  touched_bytes& operator=(touched_bytes const&) = delete;
  ~touched_bytes();
  /// Marks [address, address + bytes); returns how many of these bytes were not marked before.
  /// Safe from any device thread.
  std::uint64_t mark(bool written, std::uint64_t address, std::uint64_t bytes);

 private:
  static constexpr std::uint64_t chunk_bytes = std::uint64_t{1} << 24;
  using word = std::atomic<std::uint64_t>;
  word* chunk(bool written, std::uint64_t index);
  std::size_t count_;
  std::unique_ptr<std::atomic<word*>[]> chunks_[2];
};

}  // namespace softgpu
