// atom and red: PTX manual, "Parallel Synchronization and Communication Instructions". Lanes go in
// ascending order; each operation is one atomic of the host, so blocks may run on many threads.
#include <bit>
#include <cmath>
#include <cstring>

#include "machine/families/addresses.hpp"
#include "machine/families/families.hpp"

namespace softgpu {
namespace {

enum class operation : std::uint8_t { add, min, max, inc, dec, and_, or_, xor_, exch, cas };

template <class T> T apply(operation f, T old, T b, T c) {
  using u = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  if constexpr (std::is_floating_point_v<T>) {
    switch (f) {
      case operation::add: return old + b;
      case operation::min: return std::fmin(old, b);
      case operation::max: return std::fmax(old, b);
      default: return b;
    }
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

/// Replaces *at by apply(…) in one atomic step and returns what was there.
template <class T, class Bits> T update(std::byte* at, operation f, T b, T c) {
  auto* const word = reinterpret_cast<Bits*>(at);
  Bits seen = __atomic_load_n(word, __ATOMIC_RELAXED);
  for (;;) {
    T const old = std::bit_cast<T>(seen);
    Bits const fresh = std::bit_cast<Bits>(apply(f, old, b, c));
    if (__atomic_compare_exchange_n(word, &seen, fresh, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
      return old;
  }
}

// d (unless it is red), a: address, b, c in the extras; c is only there for cas.
template <class T, bool Returns> void atomic(warp& w, op const& o) {
  using bits = std::conditional_t<sizeof(T) == 8, std::uint64_t,
                                  std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint16_t>>;
  memory_traits const t = unpack(o.aux);
  auto const f = static_cast<operation>(t.register_bits);
  access a(w, o, t.space, access_kind::atomic, sizeof(T));
  a.strong = true;
  fill_addresses(a);
  lane_mask const good = admit(a);
  ref const* const extras = w.here.code->extras.data() + o.extra;
  T const* const b = w.row<T>(extras[0]);
  T const* const c = w.row<T>(extras[1]);
  T* const d = w.row<T>(o.d);
  for (int i = 0; i < lanes_per_warp; ++i) {
    if ((w.mask >> i & 1) == 0) continue;
    T const old = (good >> i & 1) != 0 ? update<T, bits>(a.host[i], f, b[i], c[i]) : T{};
    if constexpr (Returns) d[i] = old;
  }
}

template <bool Returns> handler pick(builder& b, ptx::scalar t) {
  if (t.kind == 'f') return t.bits == 32 ? &atomic<float, Returns> : &atomic<double, Returns>;
  if (t.kind == 's')
    return t.bits == 32 ? &atomic<std::int32_t, Returns> : &atomic<std::int64_t, Returns>;
  switch (t.bits) {
    case 16: return &atomic<std::uint16_t, Returns>;
    case 32: return &atomic<std::uint32_t, Returns>;
    case 64: return &atomic<std::uint64_t, Returns>;
    default: b.fail("atomics of this width are not supported");
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
  for (std::uint32_t i = 0; i < std::size(names); ++i)
    if (b.has(names[i])) t.register_bits = i;
  ref const value = b.input(first + 1, type);
  bool const cas = t.register_bits == std::uint32_t(operation::cas);
  ref const second = cas ? b.input(first + 2, type) : value;
  ref const d = returns ? b.output(0, type) : ref{};
  op address;
  b.address(address, b.operand(first), named);
  op& o = b.emit(returns ? pick<true>(b, type) : pick<false>(b, type));
  o.d = d, o.a = address.a, o.value = address.value, o.flags = address.flags;
  o.aux = pack(t);
  b.extra(o, value);
  b.extra(o, second);
}

#define SOFTGPU_ATOM_HEAD \
  "{.relaxed|acquire|release|acq_rel}{.cta|cluster|gpu|sys}{.global|shared|shared::cta}"
#define SOFTGPU_RED_HEAD "{.relaxed|release}{.cta|cluster|gpu|sys}{.global|shared|shared::cta}"
// Newer PTX puts the operation before the order: atom.add.release.gpu.u32.
#define SOFTGPU_TAIL "{.relaxed|acquire|release|acq_rel}{.cta|cluster|gpu|sys}{.L2::cache_hint}"

constexpr form rows[] = {
    {"atom" SOFTGPU_ATOM_HEAD ".add" SOFTGPU_TAIL ".u32|s32|u64|f32|f64 d, [a], b", kind::memory,
     build_atomic},
    {"atom" SOFTGPU_ATOM_HEAD ".min|max" SOFTGPU_TAIL ".u32|s32|u64|s64 d, [a], b", kind::memory,
     build_atomic},
    {"atom" SOFTGPU_ATOM_HEAD ".inc|dec" SOFTGPU_TAIL ".u32 d, [a], b", kind::memory, build_atomic},
    {"atom" SOFTGPU_ATOM_HEAD ".and|or|xor|exch" SOFTGPU_TAIL ".b32|b64 d, [a], b", kind::memory,
     build_atomic},
    {"atom" SOFTGPU_ATOM_HEAD ".cas" SOFTGPU_TAIL ".b16|b32|b64 d, [a], b, c", kind::memory,
     build_atomic},
    {"red" SOFTGPU_RED_HEAD ".add" SOFTGPU_TAIL ".u32|s32|u64|f32|f64 [a], b", kind::memory,
     build_atomic},
    {"red" SOFTGPU_RED_HEAD ".min|max" SOFTGPU_TAIL ".u32|s32|u64|s64 [a], b", kind::memory,
     build_atomic},
    {"red" SOFTGPU_RED_HEAD ".inc|dec" SOFTGPU_TAIL ".u32 [a], b", kind::memory, build_atomic},
    {"red" SOFTGPU_RED_HEAD ".and|or|xor" SOFTGPU_TAIL ".b32|b64 [a], b", kind::memory,
     build_atomic},
};

}  // namespace

std::span<form const> atomic_family() { return rows; }

}  // namespace softgpu
