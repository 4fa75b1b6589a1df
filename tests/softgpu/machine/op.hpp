#pragma once
// The decoded form: one op per PTX instruction, all names resolved to byte offsets.

#include <cstdint>

namespace softgpu {

using lane_mask = std::uint32_t;
inline constexpr int lanes_per_warp = 32;
inline constexpr lane_mask all_lanes = ~lane_mask{0};

struct warp;
struct op;
using handler = void (*)(warp&, op const&);

/// The two bodies of an instruction. `full` may write every lane of its destination; `some` writes
/// only the lanes of warp::mask. An instruction that honors the mask anyway gives one body twice.
struct handlers {
  handler full = nullptr;
  handler some = nullptr;
};

/// Where an operand's lanes are: a byte offset into the frame's registers (even) or into the
/// function's constants (odd: the offset plus one). A row holds 32 lanes of one width; a predicate
/// is one 32-bit mask. Rows are aligned to 64 bytes, predicates to 4.
struct ref {
  std::int32_t at = 0;
  friend bool operator==(ref, ref) = default;
};

/// What is counted, and how a launch's table calls it.
enum class kind : std::uint8_t {
  integer,
  real,
  special,
  mma,
  memory,
  control,
  convert,
  move,
  count
};

struct op {
  handler full = nullptr;
  handler some = nullptr;
  ref d, a, b, c;          // destination and sources
  std::int64_t value = 0;  // address offset, branch target, immediate
  std::uint32_t flip = 0;  // xored onto the guard's mask
  ref guard;               // a predicate; constants row 0 (always true) where there is none
  std::int32_t extra = 0;  // first of this op's refs in code::extras
  std::int16_t extra_count = 0;
  softgpu::kind kind = kind::integer;
  std::uint8_t flags = 0;    // the family's own
  std::int32_t source = -1;  // index into the function's PTX instructions
  std::uint32_t aux = 0;     // the family's own
};

}  // namespace softgpu
