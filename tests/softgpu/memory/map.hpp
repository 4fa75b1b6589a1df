#pragma once
// The address map. Device memory is one arena, mapped twice: at its device addresses, where the
// host may not touch it (managed and pinned memory excepted), and at a view for the machine itself.
// Each byte has a shadow byte that says what it is.

#include <cstddef>
#include <cstdint>

namespace softgpu::map {

inline constexpr std::uint64_t arena = 0x2000'0000'0000;
inline constexpr std::uint64_t arena_bytes = std::uint64_t{1} << 36;
/// Constant memory and parameters come first: a store below is a write to memory that is read only.
inline constexpr std::uint64_t constant_end = arena + (std::uint64_t{1} << 30);
inline constexpr std::uint64_t view = 0x2100'0000'0000;
inline constexpr std::uint64_t shadow = 0x2200'0000'0000;

/// Windows of the generic space. Their low 32 bits are zero: truncation gives the space's address.
inline constexpr std::uint64_t shared_window = 0x1000'0000'0000;
inline constexpr std::uint64_t local_window = 0x1100'0000'0000;
inline constexpr std::uint64_t code_window = 0x1200'0000'0000;
inline constexpr std::uint64_t window_bytes = std::uint64_t{1} << 32;

/// Shared variables begin here, as on sm_80 and later: address 0 is nobody's.
inline constexpr std::int64_t first_shared = 1024;

inline bool in_arena(std::uint64_t address) { return address - arena < arena_bytes; }
inline std::byte* host(std::uint64_t address) {
  return reinterpret_cast<std::byte*>(address - arena + view);
}
inline std::uint8_t* shadow_of(std::uint64_t address) {
  return reinterpret_cast<std::uint8_t*>(address - arena + shadow);
}

/// The states of a byte of device memory.
enum byte_state : std::uint8_t { unmapped = 0, freed = 1, unwritten = 2, written = 3 };

}  // namespace softgpu::map
