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

struct instruction {
  instruction(char const* of, void (*how)());  // enlists itself as a test
  char const* name;
  void (*run)();
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
requires(std::is_enum_v<T>) bool same(T a, T b) { return a == b; }

/// One column of inputs per source: combinations of special values, then random ones.
template <class... A> std::vector<std::vector<u64>> inputs() {
  std::vector<std::vector<u64>> const specials{special_values<A>()...};
  std::vector<std::vector<u64>> columns(sizeof...(A));
  std::size_t most = 1;
  while (true) {  // as many of each as keep the combinations under 6000
    std::size_t product = 1;
    for (auto const& s : specials) product *= std::min(s.size(), most + 1);
    bool all = true;
    for (auto const& s : specials) all = all && s.size() <= most;
    if (product > 6000 || all) break;
    ++most;
  }
  std::size_t combinations = 1;
  for (auto const& s : specials) combinations *= std::min(s.size(), most);
  for (std::size_t i = 0; i < combinations; ++i) {
    std::size_t rest = i;
    for (std::size_t k = 0; k < sizeof...(A); ++k) {
      std::size_t const n = std::min(specials[k].size(), most);
      columns[k].push_back(specials[k][rest % n]);
      rest /= n;
    }
  }
  while (columns[0].size() < combinations + 4096 || columns[0].size() % 256 != 0) {
    std::size_t k = 0;
    auto const one = [&]<class T>(T*) {
      bool const special = columns[0].size() % 4 == 0;  // any of the list, also its far end
      columns[k].push_back(special ? specials[k][random_value<u32>() % specials[k].size()]
                                   : random_value<T>());
      ++k;
    };
    (one(static_cast<A*>(nullptr)), ...);
  }
  return columns;
}

template <class T> std::vector<T> column_of(std::vector<u64> const& bits) {
  std::vector<T> out;
  for (u64 const x : bits) out.push_back(from_bits<T>(x));
  return out;
}

template <class D, class... A>
void launch(void (*kernel)(D*, D*, A const*...), buffer<D>& full, buffer<D>& some,
            buffer<A> const&... sources) {
  void const* arguments[] = {&full.data, &some.data, &sources.data...};
  cudaLaunchKernel(reinterpret_cast<void const*>(kernel), dim3(unsigned(full.size / 256)),
                   dim3(256), const_cast<void**>(arguments), 0, nullptr);
}

/// Compares what one lane got; true where it is right.
template <class D, class Model, class... A>
bool judge(D got, D poison, bool part, char const* how, Model model, A... sources) {
  std::string expected;
  bool right = false;
  if (!part) {
    right = bits_of(got) == bits_of(poison);
    expected = "the lane to keep " + hex(bits_of(poison));
  } else if constexpr (std::is_invocable_v<Model, D, A...>) {
    right = model(got, sources...);
    expected = "something else";
  } else {
    D const e = static_cast<D>(model(sources...));
    right = same(got, e);
    if (!right) expected = hex(bits_of(e));
  }
  if (right) return true;
  std::string of;
  ((of += " " + hex(bits_of(sources))), ...);
  complain(std::string(how) + ", of" + of + ": got " + hex(bits_of(got)) + ", expected " +
           expected);
  return false;
}

template <class D, class... A, class Model, std::size_t... K>
void run_on(void (*kernel)(D*, D*, A const*...), Model model, std::index_sequence<K...>) {
  auto const columns = inputs<A...>();
  std::size_t const n = columns[0].size();
  D const poison = from_bits<D>(0x5a5b5c5d5e5f6061u);
  buffer<D> full(std::vector<D>(n, poison)), some(std::vector<D>(n, poison));
  launch<D, A...>(kernel, full, some, buffer<A>(column_of<A>(columns[K]))...);
  if (!device_is_done()) return;
  auto const got_full = full.host(), got_some = some.host();
  for (std::size_t i = 0, wrong = 0; i < n && wrong < 4; ++i) {
    wrong += !judge(got_full[i], poison, true, "whole warp", model, from_bits<A>(columns[K][i])...);
    wrong += !judge(got_some[i], poison, takes_part(unsigned(i)), "half of the lanes", model,
                    from_bits<A>(columns[K][i])...);
  }
}

/// Runs one instruction's kernel and compares. `kernel` takes full, some and the sources.
template <class D, class... A, class Model>
void run(void (*kernel)(D*, D*, A const*...), Model model) {
  run_on<D, A...>(kernel, model, std::index_sequence_for<A...>{});
}

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
template <class T> struct raw { using type = T; };
template <class T>
requires(std::is_enum_v<T>) struct raw<T> {
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
  instruction const test_##name(#name, [] { run<D, A>(kernel_##name, __VA_ARGS__); });

#define INSTRUCTION2(name, ptx, D, A, B, ...)                               \
  INSTRUCTION_KERNEL(name, D, INSTRUCTION_LIST(A const* a, B const* b), ptx \
                     : "+" IN_##D(d)                                        \
                     : IN_##A(raw_t<A>(a[i])), IN_##B(raw_t<B>(b[i])))      \
  instruction const test_##name(#name, [] { run<D, A, B>(kernel_##name, __VA_ARGS__); });

#define INSTRUCTION3(name, ptx, D, A, B, C, ...)                                               \
  INSTRUCTION_KERNEL(name, D, INSTRUCTION_LIST(A const* a, B const* b, C const* c), ptx        \
                     : "+" IN_##D(d)                                                           \
                     : IN_##A(raw_t<A>(a[i])), IN_##B(raw_t<B>(b[i])), IN_##C(raw_t<C>(c[i]))) \
  instruction const test_##name(#name, [] { run<D, A, B, C>(kernel_##name, __VA_ARGS__); });

#define INSTRUCTION4(name, ptx, D, A, B, C, E, ...)                                             \
  INSTRUCTION_KERNEL(name, D, INSTRUCTION_LIST(A const* a, B const* b, C const* c, E const* f), \
                     ptx                                                                        \
                     : "+" IN_##D(d)                                                            \
                     : IN_##A(raw_t<A>(a[i])), IN_##B(raw_t<B>(b[i])), IN_##C(raw_t<C>(c[i])),  \
                       IN_##E(raw_t<E>(f[i])))                                                  \
  instruction const test_##name(#name, [] { run<D, A, B, C, E>(kernel_##name, __VA_ARGS__); });

}  // namespace instruction_check
