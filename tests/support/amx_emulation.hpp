#pragma once
// The tile instructions of AMX on processors without them: included before everything else, it lets the host backend's
// own assembly run for isa::amx. A handler of SIGILL decodes the instruction at hand, does what Intel's manual
// says it does, and goes on behind it; what the manual says of faults ends the process by their signals. About
// a microsecond an instruction. Where the processor has tiles, nothing is emulated.
#include <immintrin.h>
#include <signal.h>
#include <ucontext.h>

#include <atomic>
#include <cstdint>
#include <cstring>

#define SHUNT_EMULATE_AMX 1

namespace shunt::test::tiles {

/// How many instructions were executed here, of all threads.
struct executed {
  std::atomic<long> configurations, loads, products;
};
inline executed counts;

/// The 64 bytes of ldtilecfg.
struct shapes {
  unsigned char palette, first_row, unused[14];
  unsigned short row_bytes[16];
  unsigned char rows[16];
};
static_assert(sizeof(shapes) == 64);

/// The tile registers of one thread; constant initialization, so that a handler may use them.
struct registers {
  shapes shape;
  bool configured;
  alignas(64) unsigned char tile[8][16][64];
};
inline constinit thread_local registers own{};

enum class outcome { done, undefined, protection };

/// What is wrong with these shapes: #GP.
inline bool valid(shapes const& s) noexcept {
  if (s.palette > 1) return false;
  for (unsigned char const byte : s.unused) {
    if (byte != 0) return false;
  }
  for (int t = 0; t < 16; ++t) {
    bool const one = s.rows[t] != 0, other = s.row_bytes[t] != 0;
    if (one != other || s.rows[t] > 16 || s.row_bytes[t] > 64 || (t >= 8 && one)) return false;
  }
  return true;
}
inline outcome configure(void const* from) noexcept {
  shapes s;
  std::memcpy(&s, from, sizeof s);
  if (!valid(s)) return outcome::protection;
  std::memset(&own, 0, sizeof own);
  own.configured = s.palette != 0;
  if (own.configured) own.shape = s;
  counts.configurations.fetch_add(1, std::memory_order_relaxed);
  return outcome::done;
}
inline bool usable(int t) noexcept { return own.configured && own.shape.rows[t] != 0; }

inline outcome load(int t, unsigned char const* from, std::int64_t stride) noexcept {
  if (!usable(t)) return outcome::undefined;
  std::memset(own.tile[t], 0, sizeof own.tile[t]);
  for (int r = 0; r < own.shape.rows[t]; ++r) {
    std::memcpy(own.tile[t][r], from + r * stride, own.shape.row_bytes[t]);
  }
  counts.loads.fetch_add(1, std::memory_order_relaxed);
  return outcome::done;
}
inline outcome store(int t, unsigned char* to, std::int64_t stride) noexcept {
  if (!usable(t)) return outcome::undefined;
  for (int r = 0; r < own.shape.rows[t]; ++r) {
    std::memcpy(to + r * stride, own.tile[t][r], own.shape.row_bytes[t]);
  }
  return outcome::done;
}

/// Sums of even and of odd terms, by eight columns at once, where MXCSR says: to nearest, what is small is zero.
[[gnu::target("avx2,fma"), gnu::noinline]] inline void dots_of_bf16(int c, int a, int b) noexcept {
  __m256i const upper = _mm256_set1_epi32(-0x10000);
  for (int m = 0; m < own.shape.rows[c]; ++m) {
    for (int half = 0; half < 64; half += 32) {
      __m256 even = _mm256_setzero_ps(), odd = even;
      for (int k = 0; k < own.shape.row_bytes[a] / 4; ++k) {
        int pair;
        std::memcpy(&pair, own.tile[a][m] + 4 * k, sizeof pair);
        __m256i const left = _mm256_set1_epi32(pair);
        __m256i const right = _mm256_load_si256((__m256i const*)(own.tile[b][k] + half));
        even = _mm256_fmadd_ps((__m256)_mm256_slli_epi32(left, 16),
                               (__m256)_mm256_slli_epi32(right, 16), even);
        odd = _mm256_fmadd_ps((__m256)_mm256_and_si256(left, upper),
                              (__m256)_mm256_and_si256(right, upper), odd);
      }
      float* const sums = (float*)(own.tile[c][m] + half);
      _mm256_store_ps(sums, _mm256_add_ps(_mm256_load_ps(sums), _mm256_add_ps(even, odd)));
    }
  }
}
template <class A, class B> void dots_of_bytes(int c, int a, int b) noexcept {
  for (int m = 0; m < own.shape.rows[c]; ++m) {
    for (int n = 0; n < own.shape.row_bytes[c] / 4; ++n) {
      std::uint32_t sum;
      std::memcpy(&sum, own.tile[c][m] + 4 * n, sizeof sum);
      for (int k = 0; k < own.shape.row_bytes[a]; ++k) {
        sum += static_cast<std::uint32_t>(static_cast<A>(own.tile[a][m][k]) *
                                          static_cast<B>(own.tile[b][k / 4][4 * n + k % 4]));
      }
      std::memcpy(own.tile[c][m] + 4 * n, &sum, sizeof sum);
    }
  }
}
/// c += a b. kind: the opcode, and the prefix that VEX says: 0 none, 1 66, 2 f3, 3 f2.
inline outcome product(int opcode, int prefix, int c, int a, int b) noexcept {
  auto const& s = own.shape;
  if (c == a || c == b || a == b || !usable(c) || !usable(a) || !usable(b)) {
    return outcome::undefined;
  }
  if (s.row_bytes[c] % 4 != 0 || s.row_bytes[a] % 4 != 0 || s.row_bytes[b] % 4 != 0 ||
      s.row_bytes[a] / 4 != s.rows[b] || s.rows[c] != s.rows[a] ||
      s.row_bytes[c] != s.row_bytes[b]) {
    return outcome::undefined;
  }
  if (opcode == 0x5c && prefix == 2) {
    unsigned const before = _mm_getcsr();
    _mm_setcsr(0x9fc0);  // no exceptions, small operands and results are zeros
    dots_of_bf16(c, a, b);
    _mm_setcsr(before);
  } else if (opcode == 0x5e) {
    using s8 = signed char;
    using u8 = unsigned char;
    prefix == 3   ? dots_of_bytes<s8, s8>(c, a, b)
    : prefix == 2 ? dots_of_bytes<s8, u8>(c, a, b)
    : prefix == 1 ? dots_of_bytes<u8, s8>(c, a, b)
                  : dots_of_bytes<u8, u8>(c, a, b);
  } else {
    return outcome::undefined;
  }
  counts.products.fetch_add(1, std::memory_order_relaxed);
  return outcome::done;
}

/// An operand in memory: where it is, what the index adds for each row, and the bytes that say so.
struct place {
  unsigned char* at;
  std::int64_t stride;
  int bytes;
  bool indexed;  ///< there is a SIB byte
};
/// `code`: the ModRM byte. x, b: what VEX adds to the numbers of index and base.
inline place decode_place(unsigned char const* code, int x, int b, greg_t const* g) noexcept {
  static constexpr int number[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                     REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                     REG_R12, REG_R13, REG_R14, REG_R15};
  int const mod = code[0] >> 6, rm = code[0] & 7;
  place p{nullptr, 0, 1, rm == 4};
  int base = rm;
  if (p.indexed) {
    int const index = (code[1] >> 3 & 7) + 8 * x;
    base = code[1] & 7;
    if (index != 4) p.stride = static_cast<std::int64_t>(g[number[index]]) << (code[1] >> 6);
    ++p.bytes;
  }
  std::int64_t displacement = 0;
  std::uint64_t start = 0;
  bool const no_base = mod == 0 && base == 5;
  if (mod == 1) {
    displacement = static_cast<signed char>(code[p.bytes]);
    ++p.bytes;
  } else if (mod == 2 || no_base) {
    std::int32_t four;
    std::memcpy(&four, code + p.bytes, sizeof four);
    displacement = four;
    p.bytes += 4;
  }
  if (!no_base) {
    start = static_cast<std::uint64_t>(g[number[base + 8 * b]]);
  } else if (!p.indexed) {  // relative to what follows
    start = reinterpret_cast<std::uint64_t>(code + p.bytes);
  }
  p.at = reinterpret_cast<unsigned char*>(start + static_cast<std::uint64_t>(displacement));
  return p;
}

/// Executes the instruction at `code`, if it is one of these, and says how long it is.
inline outcome execute(unsigned char const* code, greg_t const* g, int& length) noexcept {
  // VEX in three bytes, map 0f38, W 0, L 0; the second and third byte hold complements of R, X, B and vvvv.
  if (code[0] != 0xc4 || (code[1] & 0x9f) != 0x82 || (code[2] & 0x84) != 0) {
    return outcome::undefined;
  }
  int const x = (code[1] & 0x40) == 0, b = (code[1] & 0x20) == 0;
  int const third = 15 - (code[2] >> 3 & 15), prefix = code[2] & 3, opcode = code[3];
  int const reg = code[4] >> 3 & 7, rm = code[4] & 7;
  bool const in_memory = code[4] >> 6 != 3;
  length = 5;
  if (opcode == 0x5c || opcode == 0x5e) {
    return in_memory || third > 7 || b != 0 ? outcome::undefined
                                            : product(opcode, prefix, reg, rm, third);
  }
  if (third != 0) return outcome::undefined;
  if (!in_memory) {
    if (opcode != 0x49 || rm != 0) return outcome::undefined;
    if (prefix == 3 && usable(reg)) {
      std::memset(own.tile[reg], 0, sizeof own.tile[reg]);
      return outcome::done;
    }
    if (prefix != 0 || reg != 0) return outcome::undefined;
    std::memset(&own, 0, sizeof own);
    return outcome::done;
  }
  place const p = decode_place(code + 4, x, b, g);
  length = 4 + p.bytes;
  if (opcode == 0x49 && reg == 0 && prefix == 0) return configure(p.at);
  if (opcode == 0x49 && reg == 0 && prefix == 1) {
    std::memcpy(p.at, &own.shape, sizeof own.shape);
    return outcome::done;
  }
  if (opcode != 0x4b || !p.indexed) return outcome::undefined;
  switch (prefix) {
    case 1:
    case 3: return load(reg, p.at, p.stride);
    case 2: return store(reg, p.at, p.stride);
    default: return outcome::undefined;
  }
}

// QEMU's user mode (7.2) enters a handler with a stack that is not aligned.
__attribute__((force_align_arg_pointer)) inline void on_illegal_instruction(
    int, siginfo_t*, void* context) noexcept {
  greg_t* const g = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  int length = 0;
  switch (execute(reinterpret_cast<unsigned char const*>(g[REG_RIP]), g, length)) {
    case outcome::done: g[REG_RIP] += length; break;
    case outcome::undefined: signal(SIGILL, SIG_DFL); break;  // again, and for the last time
    case outcome::protection:
      signal(SIGSEGV, SIG_DFL);
      raise(SIGSEGV);
      break;
  }
}

/// Whether tiles are emulated from here on: for processors without them.
inline bool emulate() noexcept {
  static bool const installed = [] {
    struct sigaction action {};
    action.sa_sigaction = on_illegal_instruction;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    return sigaction(SIGILL, &action, nullptr) == 0;
  }();
  return installed;
}

}  // namespace shunt::test::tiles
