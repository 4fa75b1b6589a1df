// atom and red: PTX manual, "Parallel Synchronization and Communication Instructions". Lanes go in
// ascending order; each operation is one atomic of the host, so blocks may run on many threads.
// The elements of a vector are atomic one by one.
#include <bit>
#include <cmath>
#include <cstring>
#include <mutex>

#include "machine/families/addresses.hpp"
#include "machine/families/families.hpp"
#include "machine/families/lanewise.hpp"
#include "machine/formats.hpp"

namespace softgpu {
namespace {

using namespace words;

enum class operation : std::uint8_t { add, min, max, inc, dec, and_, or_, xor_, exch, cas };

/// One half or a pair of them, by its bits.
template <class Fmt, class Bits> struct halves {
  Bits bits;
};
template <class Fmt> u32 apply_to_half(operation f, u32 old, u32 b) {
  double const x = decode<Fmt>(old), y = decode<Fmt>(b);
  if (f == operation::add) return encode<Fmt>(fma_to_odd(x, 1, y));
  if (x != x || y != y) return x == x ? old : y == y ? b : Fmt::nan;
  if (x == y) return f == operation::min ? old | b : old & b;  // zeros of either sign
  return (x < y) == (f == operation::min) ? old : b;
}
template <class Fmt, class Bits>
halves<Fmt, Bits> apply(operation f, halves<Fmt, Bits> old, halves<Fmt, Bits> b,
                        halves<Fmt, Bits>) {
  u32 r = apply_to_half<Fmt>(f, old.bits & 0xffffu, b.bits & 0xffffu);
  if constexpr (sizeof(Bits) == 4) r |= apply_to_half<Fmt>(f, old.bits >> 16, b.bits >> 16) << 16;
  return {static_cast<Bits>(r)};
}

template <class T>
  requires std::is_arithmetic_v<T>
T apply(operation f, T old, T b, T c) {
  using u = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  if constexpr (std::is_floating_point_v<T>) {
    T const sum = old + b;
    if constexpr (sizeof(T) == 4) return sum == sum ? sum : std::bit_cast<T>(0x7fffffffu);
    return sum;
  } else {
    switch (f) {
      case operation::add: return static_cast<T>(static_cast<u>(old) + static_cast<u>(b));
      case operation::min: return old < b ? old : b;
      case operation::max: return old > b ? old : b;
      case operation::inc: return static_cast<T>(old >= b ? T{0} : old + 1);
      case operation::dec: return static_cast<T>(old == 0 || old > b ? b : old - 1);
      case operation::and_: return static_cast<T>(old & b);
      case operation::or_: return static_cast<T>(old | b);
      case operation::xor_: return static_cast<T>(old ^ b);
      case operation::exch: return b;
      case operation::cas: return old == b ? c : old;
    }
    return b;
  }
}

f32 flush(f32 x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }

template <class T>
using bits_of =
    std::conditional_t<sizeof(T) == 8, u64, std::conditional_t<sizeof(T) == 4, u32, u16>>;

/// Replaces *at by apply(…) in one atomic step and returns what was there. `ftz`: a sum of floats
/// in global memory takes and gives zeros for subnormals, as the manual says; elsewhere not.
template <class T> T update(std::byte* at, operation f, T b, T c, bool ftz) {
  using bits = bits_of<T>;
  auto* const word = reinterpret_cast<bits*>(at);
  bits seen = __atomic_load_n(word, __ATOMIC_RELAXED);
  for (;;) {
    T const old = std::bit_cast<T>(seen);
    T next;
    if constexpr (std::is_same_v<T, f32>)
      next = ftz ? flush(apply(f, flush(old), flush(b), c)) : apply(f, old, b, c);
    else
      next = apply(f, old, b, c);
    bits const fresh = std::bit_cast<bits>(next);
    if (__atomic_compare_exchange_n(word, &seen, fresh, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
      return old;
  }
}

/// 128 bits under a lock: they are atomic among themselves.
u128 update_wide(std::byte* at, operation f, u128 b, u128 c) {
  static std::mutex lock;
  std::scoped_lock const held(lock);
  u128 old;
  std::memcpy(&old, at, 16);
  u128 const fresh = f == operation::exch ? b : old == b ? c : old;
  std::memcpy(at, &fresh, 16);
  return old;
}

// The operation and the elements of a vector in the traits; extras: each element's d, b, c.
template <class T> void atomic(warp& w, op const& o) {
  memory_traits const t = unpack(o.aux);
  auto const f = static_cast<operation>(t.register_bits & 15);
  bool const returns = (t.register_bits & 16) != 0;
  access a(w, o, t.space, access_kind::atomic, sizeof(T) * t.elements);
  a.strong = true;
  fill_addresses(a);
  lane_mask const good = admit(a);
  std::byte const *const shared = w.block->shared, *const end = shared + w.block->shared_bytes;
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((w.mask >> i & 1) == 0) continue;
    ref const* const at = w.here.code->extras.data() + o.extra;
    bool const ftz = a.host[i] < shared || a.host[i] >= end;
    T old[8] = {};  // kept until the end: a result may go where a later element comes from
    for (unsigned k = 0; k < t.elements && (good >> i & 1) != 0; ++k) {
      T const b = w.row<T>(at[3 * k + 1])[i], c = w.row<T>(at[3 * k + 2])[i];
      if constexpr (sizeof(T) == 16)
        old[k] = update_wide(a.host[i], f, b, c);
      else
        old[k] = update<T>(a.host[i] + k * sizeof(T), f, b, c, ftz);
    }
    for (unsigned k = 0; k < t.elements && returns; ++k) w.row<T>(at[3 * k])[i] = old[k];
  }
}

handler pick(builder& b, std::string_view word) {
  if (word == "f32") return &atomic<f32>;
  if (word == "f64") return &atomic<f64>;
  if (word == "s32") return &atomic<s32>;
  if (word == "s64") return &atomic<s64>;
  if (word == "f16") return &atomic<halves<f16_format, u16>>;
  if (word == "bf16") return &atomic<halves<bf16_format, u16>>;
  if (word == "f16x2") return &atomic<halves<f16_format, u32>>;
  if (word == "bf16x2") return &atomic<halves<bf16_format, u32>>;
  switch (b.type().bits) {
    case 16: return &atomic<u16>;
    case 32: return &atomic<u32>;
    case 64: return &atomic<u64>;
    default: return &atomic<u128>;
  }
}

void build_atomic(builder& b) {
  static constexpr std::string_view names[] = {"add", "min", "max", "inc",  "dec",
                                               "and", "or",  "xor", "exch", "cas"};
  bool const returns = b.in->opcode == "atom";
  std::size_t const first = returns ? 1 : 0;
  memory_traits t;
  ptx::scalar const type = b.type();
  ptx::space const named = space_of(b);
  t.space = checked_space(named, b.function().is_entry);
  t.register_bits = returns ? 16 : 0;
  for (std::uint32_t i = 0; i < std::size(names); ++i)
    if (b.has(names[i])) t.register_bits |= i;
  std::string_view const vector = b.one_of({"v2", "v4", "v8"});
  t.elements = vector.empty() ? 1 : static_cast<unsigned>(vector[1] - '0');
  bool const cas = b.has("cas");
  std::vector<ref> refs;
  for (unsigned k = 0; k < t.elements; ++k) {
    auto const part = [&](std::size_t i) -> ptx::operand const& {
      ptx::operand const& all = b.operand(i);
      if (vector.empty()) return all;
      if (all.kind != ptx::operand_kind::vector || all.parts.size() != t.elements)
        b.fail("an operand is no vector of " + std::to_string(t.elements));
      return all.parts[k];
    };
    ref const value = b.input(part(first + 1), type);
    refs.push_back(returns ? b.output(part(0), type) : b.scratch());
    refs.push_back(value);
    refs.push_back(cas ? b.input(part(first + 2), type) : value);
  }
  op address;
  b.address(address, b.operand(first), named);
  op& o = b.emit(pick(b, b.type_word()));
  o.a = address.a, o.value = address.value, o.flags = address.flags;
  o.aux = pack(t);
  for (ref const r : refs) b.extra(o, r);
}

#define SOFTGPU_WHERE                                                 \
  "{.relaxed|acquire|release|acq_rel}{.cta|cluster|gpu|sys}{.global|" \
  "shared|shared::cta|shared::cluster}"
// Some put the operation before the order: atom.add.release.gpu.u32.
#define SOFTGPU_TAIL "{.relaxed|acquire|release|acq_rel}{.cta|cluster|gpu|sys}{.L2::cache_hint}"

#define SOFTGPU_ATOMIC(opcode, operation, types, operands) \
  {opcode SOFTGPU_WHERE operation SOFTGPU_TAIL types operands, kind::memory, build_atomic}
#define SOFTGPU_BOTH(operation, types)                              \
  SOFTGPU_ATOMIC("atom", operation, types, " d, [a], b{, policy}"), \
      SOFTGPU_ATOMIC("red", operation, types, " [a], b{, policy}")

constexpr form rows[] = {
    SOFTGPU_BOTH(".add", ".u32|s32|u64|f32|f64"),
    SOFTGPU_BOTH(".min|max", ".u32|s32|u64|s64"),
    SOFTGPU_BOTH(".inc|dec", ".u32"),
    SOFTGPU_BOTH(".and|or|xor", ".b32|b64"),
    SOFTGPU_ATOMIC("atom", ".exch", ".b32|b64|b128", " d, [a], b{, policy}"),
    SOFTGPU_ATOMIC("atom", ".cas", ".b16|b32|b64|b128", " d, [a], b, c{, policy}"),
    SOFTGPU_BOTH(".add.noftz", ".f16|f16x2|bf16|bf16x2"),
    SOFTGPU_BOTH(".add", ".v2|v4.f32"),
    SOFTGPU_BOTH(".add|min|max.noftz", ".v2|v4|v8.f16|bf16"),
    SOFTGPU_BOTH(".add|min|max.noftz", ".v2|v4.f16x2|bf16x2"),
};

}  // namespace

std::span<form const> atomic_family() { return rows; }

}  // namespace softgpu
