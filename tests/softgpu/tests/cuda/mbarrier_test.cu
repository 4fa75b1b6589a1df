// mbarrier, cp.async and what belongs to them: arrivals, phases, tokens, parities, dropped threads,
// copies that arrive by themselves, copies that ignore their source, clusters of one block.
#include <cstdint>
#include <numeric>
#include <vector>

#include "device_array.hpp"

namespace mbarrier_test {

using word = std::uint32_t;
using wide = std::uint64_t;

__device__ word shared_address(void const* p) { return word(__cvta_generic_to_shared(p)); }

__device__ void init(wide* b, word count) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(count)
               : "memory");
}
__device__ wide arrive(wide* b) {
  wide token;
  asm volatile("mbarrier.arrive.shared.b64 %0, [%1];"
               : "=l"(token)
               : "r"(shared_address(b))
               : "memory");
  return token;
}
__device__ bool is_over(wide* b, wide token) {
  word over;
  asm volatile("{.reg .pred p; mbarrier.test_wait.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
               : "=r"(over)
               : "r"(shared_address(b)), "l"(token)
               : "memory");
  return over != 0;
}
__device__ bool is_parity_over(wide* b, word parity) {
  word over;
  asm volatile(
      "{.reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
      : "=r"(over)
      : "r"(shared_address(b)), "r"(parity)
      : "memory");
  return over != 0;
}

// Four warps hand a value around through shared memory, a phase for each step.
__global__ void pass_on(int* out, int steps) {
  __shared__ wide b;
  __shared__ int slot[128];
  int const t = threadIdx.x;
  if (t == 0) init(&b, 128);
  slot[t] = t;
  __syncthreads();
  for (int k = 0; k < steps; ++k) {
    int const next = slot[(t + 33) % 128];
    wide token = arrive(&b);
    while (!is_over(&b, token)) {}
    slot[t] = next;
    arrive(&b);
    while (!is_parity_over(&b, 1)) {}
  }
  out[t] = slot[t];
}

TEST(Mbarrier, PhasesByTokenAndByParity) {
  device_array<int> out(std::size_t{128});
  pass_on<<<1, 128>>>(out.data, 5);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const r = out.host();
  for (int t = 0; t < 128; ++t) EXPECT_EQ(r[t], (t + 5 * 33) % 128) << t;
}

// One thread sees what each operation returns and leaves.
__global__ void look(word* o) {
  __shared__ wide b;
  word const a = shared_address(&b);
  word n = 0;
  auto const pending = [&](wide token) {
    word r;
    asm volatile("mbarrier.pending_count.b64 %0, %1;" : "=r"(r) : "l"(token));
    o[n++] = r;
  };
  init(&b, 5);
  wide token;
  asm volatile("mbarrier.arrive.noComplete.shared.b64 %0, [%1], 2;" : "=l"(token) : "r"(a));
  pending(token);               // 5 were missing
  o[n++] = is_over(&b, token);  // 0
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 %0, [%1], 2;" : "=l"(token) : "r"(a));
  pending(token);  // 3
  asm volatile("mbarrier.arrive_drop.shared.b64 %0, [%1];" : "=l"(token) : "r"(a));
  pending(token);                  // 1
  o[n++] = is_over(&b, token);     // 1: all five are there
  o[n++] = is_parity_over(&b, 0);  // 1: phase 0 is over
  o[n++] = is_parity_over(&b, 1);  // 0: phase 1 runs
  pending(arrive(&b));             // 4: one thread has dropped out
  asm volatile("mbarrier.arrive.expect_tx.shared.b64 %0, [%1], 64;" : "=l"(token) : "r"(a));
  asm volatile("mbarrier.arrive.shared.b64 _, [%0], 2;" ::"r"(a));
  o[n++] = is_over(&b, token);  // 0: 64 bytes are missing
  asm volatile("mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%0], 48;" ::"r"(a));
  o[n++] = is_over(&b, token);  // 0
  asm volatile("mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%0], 16;" ::"r"(a));
  o[n++] = is_over(&b, token);  // 1
  asm volatile("mbarrier.inval.shared.b64 [%0];" ::"r"(a));
}

TEST(Mbarrier, CountsWhatArrives) {
  device_array<word> out(std::vector<word>(16, 99));
  look<<<1, 1>>>(out.data);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  std::vector<word> const expected{5, 0, 3, 1, 1, 1, 0, 4, 0, 0, 1, 99, 99, 99, 99, 99};
  EXPECT_EQ(out.host(), expected);
}

// A warp fetches for the others; the copies arrive at the barrier by themselves.
__global__ void fetch(int const* in, int* out, int inc) {
  __shared__ wide b;
  __shared__ alignas(16) int s[128];
  int const t = threadIdx.x;
  if (t == 0) init(&b, inc != 0 ? 64 : 32);
  __syncthreads();
  if (t < 32) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(shared_address(s + 4 * t)),
                 "l"(in + 4 * t)
                 : "memory");
    if (inc != 0) {
      asm volatile("cp.async.mbarrier.arrive.shared.b64 [%0];" ::"r"(shared_address(&b))
                   : "memory");
      arrive(&b);
      arrive(&b);
    } else {
      asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(&b))
                   : "memory");
    }
  }
  while (!is_parity_over(&b, 0)) {}
  out[t] = s[127 - t];
}

TEST(Mbarrier, CopiesArriveByThemselves) {
  std::vector<int> in(128);
  std::iota(in.begin(), in.end(), 100);
  device_array<int> from(in), out(std::size_t{128});
  for (int inc = 0; inc < 2; ++inc) {
    fetch<<<1, 128>>>(from.data, out.data, inc);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    auto const r = out.host();
    for (int t = 0; t < 128; ++t) EXPECT_EQ(r[t], 100 + 127 - t) << t;
  }
}

__global__ void masked_copy(int const* in, int* out) {
  __shared__ alignas(16) int s[128];
  int const t = threadIdx.x;
  for (int k = 0; k < 4; ++k) s[4 * t + k] = -1;
  // Where the source is ignored it may point anywhere: it is not read.
  int const* const from = t % 3 == 0 ? nullptr : in + 4 * t;
  asm volatile(
      "{.reg .pred p; setp.eq.u32 p, %2, 0; cp.async.cg.shared.global [%0], [%1], 16, p;}" ::"r"(
          shared_address(s + 4 * t)),
      "l"(from), "r"(t % 3)
      : "memory");
  asm volatile("cp.async.wait_all;" ::: "memory");
  for (int k = 0; k < 4; ++k) out[4 * t + k] = s[4 * t + k];
}

TEST(AsyncCopy, IgnoresItsSourceWhereToldTo) {
  std::vector<int> in(128);
  std::iota(in.begin(), in.end(), 100);
  device_array<int> from(in), out(std::size_t{128});
  masked_copy<<<1, 32>>>(from.data, out.data);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const r = out.host();
  for (int i = 0; i < 128; ++i) EXPECT_EQ(r[i], i / 4 % 3 == 0 ? 0 : in[i]) << i;
}

__constant__ int constant = 3;
__global__ void spaces(word* o, int const* global, __grid_constant__ int const parameter) {
  __shared__ int shared;
  int local[2] = {int(o[0]), 1};
  auto const ask = [&](void const* p) {
    word r = 0, x;
#define ASK(space)                                                               \
  asm volatile("{.reg .pred p; isspacep." space " p, %1; selp.u32 %0, 1, 0, p;}" \
               : "=r"(x)                                                         \
               : "l"(p));                                                        \
  r = 2 * r + x;
    ASK("const")
    ASK("param")
    ASK("global")
    ASK("shared")
    ASK("local")
#undef ASK
    return r;
  };
  o[0] = ask(global);
  o[1] = ask(&shared);
  o[2] = ask(local + (o[3] & 1));
  o[4] = ask(&constant) >> 3;
  o[5] = ask(&parameter) >> 3;
  asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
  asm volatile("prefetchu.L1 [%0];" ::"l"(global));
  asm volatile("applypriority.global.L2::evict_normal [%0], 128;" ::"l"(global));
  asm volatile(
      "{.reg .b64 p; createpolicy.fractional.L2::evict_first.b64 p, 1.0;"
      " ld.global.L2::cache_hint.u32 %0, [%1], p;}"
      : "=r"(o[3])
      : "l"(global));
}

TEST(Spaces, AreToldApart) {
  device_array<word> out(std::vector<word>(6, 0));
  device_array<int> in(std::vector<int>(64, 77));
  spaces<<<1, 1>>>(out.data, in.data, 9);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(out.host(), (std::vector<word>{4, 2, 1, 77, 2, 1}));
}

}  // namespace mbarrier_test
