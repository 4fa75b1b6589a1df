#pragma once
// One line per instruction, by itself, against a plain C++ model:
//
//   INSTRUCTION2(add_u32, "add.u32 %0, %1, %2;", u32, u32, u32, [](u32 a, u32 b) { return a + b; })
//
// %0 is the result, %1… the sources; types name the registers. The line makes a kernel that
// executes the PTX twice, once by whole warps and once by about half of their lanes, on special
// values in all combinations and on random ones. Lanes that do not take part must keep what they
// had. A model returns the result (NaNs of a float compare equal), or takes the result first and
// says whether it is right. Nothing in here is taken from the device under test.

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace instruction_check {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using s8 = std::int8_t;
using s16 = std::int16_t;
using s32 = std::int32_t;
using s64 = std::int64_t;
using f32 = float;
using f64 = double;

/// Raw bits of halves and of smaller formats: the special values are theirs.
enum class f16 : u16 {};
enum class bf16 : u16 {};
enum class f16x2 : u32 {};
enum class bf16x2 : u32 {};
/// Shift counts, positions and lengths.
enum class count : u32 {};

/// Bits of any of these in a word, and back.
template <class T> u64 bits_of(T x) {
  u64 r = 0;
  std::memcpy(&r, &x, sizeof x);
  return r;
}
template <class T> T from_bits(u64 bits) {
  T x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

/// The values an instruction must be right on, the most telling first; as bits.
template <class T> std::vector<u64> special_values();
/// Random bits, in part shaped like numbers near one another.
template <class T> u64 random_value();

/// What the checker knows of a register's type.
struct kind {
  std::size_t bytes;
  std::vector<u64> (*specials)();
  u64 (*random)();
};
template <class T> inline constexpr kind kind_of{sizeof(T), special_values<T>, random_value<T>};

/// What a model says of a lane's result: whether it is right, and what it would be, if it names that.
struct verdict {
  bool right, named;
  u64 expected;
};

/// One instruction's kernel, which takes full, some and the sources, and its model. Types are gone
/// from here on: what is compiled for each of the 1300 instructions is its model alone.
struct check {
  void const* kernel;
  void (*function)();  // the model, where it is one
  verdict (*model)(void (*function)(), u64 got, u64 const* sources);
  kind const* result;
  std::vector<kind const*> sources;
};

struct instruction {  // enlists itself as a test
  instruction(char const* of, void (*how)());
  instruction(char const* of, check what);
  void run() const;
  char const* name;

 private:
  void (*how_)() = nullptr;
  check what_{};
};

/// Fails the test that runs now.
void complain(std::string const& what);
std::string hex(u64 bits);
bool device_is_done();  // false, and a complaint, where the launch failed

/// Whether the guarded execution includes element i.
__host__ __device__ constexpr bool takes_part(unsigned i) {
  return ((i ^ i >> 2 ^ i >> 5 ^ i >> 7) & 1) != 0;
}

template <class T> struct buffer {
  T* data = nullptr;
  std::size_t size = 0;
  explicit buffer(std::vector<T> const& from) : size(from.size()) {
    if (cudaMalloc(&data, size * sizeof(T)) != cudaSuccess) complain("cudaMalloc failed");
    cudaMemcpy(data, from.data(), size * sizeof(T), cudaMemcpyHostToDevice);
  }
  buffer(buffer const&) = delete;
  ~buffer() { cudaFree(data); }
  std::vector<T> host() const {
    std::vector<T> out(size);
    cudaMemcpy(out.data(), data, size * sizeof(T), cudaMemcpyDeviceToHost);
    return out;
  }
};

template <class T> bool same(T a, T b) {
  if constexpr (T(0.5) != T(0)) {  // a float: any NaN is as good as another
    if (a != a || b != b) return a != a && b != b;
  }
  return bits_of(a) == bits_of(b);
}
template <class T>
  requires(std::is_enum_v<T>)
bool same(T a, T b) {
  return a == b;
}

template <class D, class... A, class Model, std::size_t... K>
verdict judge(Model model, u64 got, u64 const* sources, std::index_sequence<K...>) {
  if constexpr (std::is_invocable_v<Model, D, A...>) {
    return {bool(model(from_bits<D>(got), from_bits<A>(sources[K])...)), false, 0};
  } else {
    D const expected = static_cast<D>(model(from_bits<A>(sources[K])...));
    return {same(from_bits<D>(got), expected), true, bits_of(expected)};
  }
}

/// A kernel and its model, a function or a lambda without captures, of these types.
template <class D, class... A, class Model>
check checked(void (*kernel)(D*, D*, A const*...), Model model) {
  using function = void (*)();
  check all{reinterpret_cast<void const*>(kernel), nullptr, nullptr, &kind_of<D>, {&kind_of<A>...}};
  if constexpr (std::is_pointer_v<Model>) all.function = reinterpret_cast<function>(model);
  all.model = [](function f, u64 got, u64 const* sources) {
    Model of{};
    if constexpr (std::is_pointer_v<Model>) of = reinterpret_cast<Model>(f);
    return judge<D, A...>(of, got, sources, std::index_sequence_for<A...>{});
  };
  return all;
}

/// Whether one lane got what it must; complains where it did not. A lane that takes no part keeps
/// `before`.
bool lane_is_right(check const& of, u64 got, u64 before, bool part, char const* how,
                   u64 const* sources);

// The register of a type, as inline PTX names it, and the type that goes into it.
#define IN_u16 "h"
#define IN_s16 "h"
#define IN_u32 "r"
#define IN_s32 "r"
#define IN_u64 "l"
#define IN_s64 "l"
#define IN_f32 "f"
#define IN_f64 "d"
#define IN_f16 "h"
#define IN_bf16 "h"
#define IN_f16x2 "r"
#define IN_bf16x2 "r"
#define IN_count "r"
template <class T> struct raw {
  using type = T;
};
template <class T>
  requires(std::is_enum_v<T>)
struct raw<T> {
  using type = std::underlying_type_t<T>;
};
template <class T> using raw_t = typename raw<T>::type;

#define INSTRUCTION_KERNEL(name, D, sources, ...)             \
  __global__ void kernel_##name(D* full, D* some, sources) {  \
    unsigned const i = blockIdx.x * blockDim.x + threadIdx.x; \
    raw_t<D> d = raw_t<D>(full[i]), e = d;                    \
    asm volatile(__VA_ARGS__);                                \
    full[i] = D(d);                                           \
    d = e;                                                    \
    if (takes_part(i)) asm volatile(__VA_ARGS__);             \
    some[i] = D(d);                                           \
  }
#define INSTRUCTION_LIST(...) __VA_ARGS__

#define INSTRUCTION1(name, ptx, D, A, ...)                      \
  INSTRUCTION_KERNEL(name, D, INSTRUCTION_LIST(A const* a), ptx \
                     : "+" IN_##D(d)                            \
                     : IN_##A(raw_t<A>(a[i])))                  \
  instruction const test_##name(#name, checked<D, A>(kernel_##name, __VA_ARGS__));

#define INSTRUCTION2(name, ptx, D, A, B, ...)                               \
  INSTRUCTION_KERNEL(name, D, INSTRUCTION_LIST(A const* a, B const* b), ptx \
                     : "+" IN_##D(d)                                        \
                     : IN_##A(raw_t<A>(a[i])), IN_##B(raw_t<B>(b[i])))      \
  instruction const test_##name(#name, checked<D, A, B>(kernel_##name, __VA_ARGS__));

#define INSTRUCTION3(name, ptx, D, A, B, C, ...)                                               \
  INSTRUCTION_KERNEL(name, D, INSTRUCTION_LIST(A const* a, B const* b, C const* c), ptx        \
                     : "+" IN_##D(d)                                                           \
                     : IN_##A(raw_t<A>(a[i])), IN_##B(raw_t<B>(b[i])), IN_##C(raw_t<C>(c[i]))) \
  instruction const test_##name(#name, checked<D, A, B, C>(kernel_##name, __VA_ARGS__));

#define INSTRUCTION4(name, ptx, D, A, B, C, E, ...)                                             \
  INSTRUCTION_KERNEL(name, D, INSTRUCTION_LIST(A const* a, B const* b, C const* c, E const* f), \
                     ptx                                                                        \
                     : "+" IN_##D(d)                                                            \
                     : IN_##A(raw_t<A>(a[i])), IN_##B(raw_t<B>(b[i])), IN_##C(raw_t<C>(c[i])),  \
                       IN_##E(raw_t<E>(f[i])))                                                  \
  instruction const test_##name(#name, checked<D, A, B, C, E>(kernel_##name, __VA_ARGS__));

}  // namespace instruction_check
