// The checks of every kind of access: vectors, shared, local and parameter memory, cp.async and
// ldmatrix. Each wrong kernel is caught, its right twin is not.
#include "reports.hpp"

namespace checks_access_test {

bool contains(std::vector<softgpu::report> const& found, char const* what) {
  return !found.empty() && found[0].sentence.find(what) != std::string::npos;
}

__global__ void sum_of_four(float const* a, float* b, int shift) {
  float4 const v = *reinterpret_cast<float4 const*>(a + threadIdx.x * 4 + shift);
  b[threadIdx.x] = v.x + v.y + v.z + v.w;
}

TEST(Vectors, Bounds) {
  device_array<float> a(std::vector<float>(130)), b(std::size_t{32});
  auto const bad = reports_of([&] { sum_of_four<<<1, 32>>>(a.data, b.data, 4); });
  EXPECT_ONE(bad, fault::out_of_bounds);
  EXPECT_TRUE(contains(bad, "read of 16 bytes")) << all_of(bad);
  EXPECT_EQ(bad[0].thread[0], 31u);  // its vector begins inside and ends outside
  EXPECT_NONE((sum_of_four<<<1, 32>>>(a.data, b.data, 0)));
}

TEST(Vectors, Alignment) {
  device_array<float> a(std::vector<float>(132)), b(std::size_t{32});
  auto const bad = reports_of([&] { sum_of_four<<<1, 32>>>(a.data, b.data, 2); });
  EXPECT_ONE(bad, fault::misaligned);
  EXPECT_EQ(bad[0].count, 32u);
  EXPECT_NONE((sum_of_four<<<1, 32>>>(a.data, b.data, 4)));
}

TEST(Vectors, OneUnwrittenElement) {
  device_array<float> a(std::size_t{128}), b(std::size_t{32});
  cudaMemset(a.data, 0, 4 * 127);
  auto const bad = reports_of([&] { sum_of_four<<<1, 32>>>(a.data, b.data, 0); });
  EXPECT_ONE(bad, fault::uninitialized);
  EXPECT_EQ(bad[0].thread[0], 31u);
  cudaMemset(a.data, 0, 4 * 128);
  EXPECT_NONE((sum_of_four<<<1, 32>>>(a.data, b.data, 0)));
}

__global__ void shared_at(int* out, int offset) {
  extern __shared__ int s[];
  for (int i = threadIdx.x; i < 64; i += 32) s[i] = i;
  __syncwarp();
  char const* const at = reinterpret_cast<char const*>(s + threadIdx.x) + offset;
  out[threadIdx.x] = *reinterpret_cast<int const*>(at);
}

TEST(Shared, BoundsAndAlignment) {
  device_array<int> out(std::size_t{32});
  auto const outside = reports_of([&] { shared_at<<<1, 32, 256>>>(out.data, 132); });
  EXPECT_ONE(outside, fault::out_of_bounds);
  EXPECT_TRUE(contains(outside, "shared memory")) << all_of(outside);
  EXPECT_EQ(outside[0].thread[0], 31u);
  auto const before = reports_of([&] { shared_at<<<1, 32, 256>>>(out.data, -8); });
  EXPECT_ONE(before, fault::out_of_bounds);
  EXPECT_EQ(before[0].count, 2u);
  auto const odd = reports_of([&] { shared_at<<<1, 32, 256>>>(out.data, 2); });
  EXPECT_ONE(odd, fault::misaligned);
  EXPECT_NONE((shared_at<<<1, 32, 256>>>(out.data, 128)));
}

__global__ void local_at(int* out, int offset) {
  int mine[16];
  for (int i = 0; i < 16; ++i) mine[i] = out[i];
  unsigned long long local;  // a local address, as ld.local takes it
  asm volatile("cvta.to.local.u64 %0, %1;" : "=l"(local) : "l"(mine));
  int v;
  asm volatile("ld.local.s32 %0, [%1];" : "=r"(v) : "l"(local + offset) : "memory");
  out[threadIdx.x] = v;
}

TEST(Local, BoundsAndAlignment) {
  device_array<int> out(std::vector<int>(32, 1));
  auto const outside = reports_of([&] { local_at<<<1, 32>>>(out.data, 1 << 20); });
  EXPECT_ONE(outside, fault::out_of_bounds);
  EXPECT_TRUE(contains(outside, "local memory")) << all_of(outside);
  auto const odd = reports_of([&] { local_at<<<1, 32>>>(out.data, 5); });
  EXPECT_ONE(odd, fault::misaligned);
  EXPECT_NONE((local_at<<<1, 32>>>(out.data, 60)));
}

struct padded {
  char small;
  double large;
};
__global__ void pick(int const* order, int* out, int written) {
  int mine[16];
  padded other[4];
  for (int i = 0; i < written; ++i) mine[order[i]] = i;
  for (int i = 0; i < 4; ++i) other[order[i]].small = char(i), other[order[i]].large = i;
  padded const copy = other[order[threadIdx.x % 4]];  // its padding has not been written
  out[threadIdx.x] = mine[order[threadIdx.x % 16]] + copy.small + int(copy.large);
}

TEST(Local, Unwritten) {
  std::vector<int> order(16);
  for (int i = 0; i < 16; ++i) order[i] = i < 4 ? 3 - i : i;
  device_array<int> o(order), out(std::size_t{64});
  auto const bad = reports_of([&] { pick<<<1, 32>>>(o.data, out.data, 15); });
  EXPECT_ONE(bad, fault::uninitialized);
  EXPECT_TRUE(contains(bad, "of local memory at")) << all_of(bad);
  EXPECT_EQ(bad[0].thread[0], 15u);
  EXPECT_NONE((pick<<<1, 32>>>(o.data, out.data, 16)));
  EXPECT_NONE((pick<<<3, 64>>>(o.data, out.data, 16)));
  EXPECT_EQ(reports_of([&] { pick<<<3, 64>>>(o.data, out.data, 15); }).size(), 1u);
}

struct eight {
  int v[8];
};
__global__ void parameter_at(__grid_constant__ eight const p, int* out, int index) {
  out[threadIdx.x] = p.v[index];
}

TEST(Parameters, Bounds) {
  device_array<int> out(std::size_t{32});
  eight const p{{1, 2, 3, 4, 5, 6, 7, 8}};
  auto const bad = reports_of([&] { parameter_at<<<1, 32>>>(p, out.data, 400); });
  EXPECT_ONE(bad, fault::out_of_bounds);
  EXPECT_NONE((parameter_at<<<1, 32>>>(p, out.data, 7)));
  EXPECT_EQ(out.host()[3], 8);
}

/// Copies 16 bytes a thread to shared memory and waits, or does not.
__global__ void fetch(int4 const* a, int* out, int from_shift, int to_shift, bool wait) {
  __shared__ __align__(16) char s[32 * 16 + 16];
  unsigned const to = unsigned(__cvta_generic_to_shared(s)) + threadIdx.x * 16 + to_shift;
  char const* const from = reinterpret_cast<char const*>(a + threadIdx.x) + from_shift;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
  if (wait) asm volatile("cp.async.wait_all;" ::: "memory");
  __syncthreads();
  out[threadIdx.x] = *reinterpret_cast<int volatile*>(s + threadIdx.x * 16);
}

TEST(AsyncCopies, BoundsAlignmentAndUnwritten) {
  device_array<int4> a(std::vector<int4>(33, int4{1, 2, 3, 4})), fresh(std::size_t{32});
  device_array<int> out(std::size_t{32});
  auto const outside = reports_of([&] { fetch<<<1, 32>>>(a.data, out.data, 32, 0, true); });
  EXPECT_EQ(outside.at(0).what, fault::out_of_bounds) << all_of(outside);
  EXPECT_EQ(outside[0].thread[0], 31u);
  auto const odd = reports_of([&] { fetch<<<1, 32>>>(a.data, out.data, 8, 0, true); });
  EXPECT_EQ(odd.at(0).what, fault::misaligned) << all_of(odd);
  EXPECT_TRUE(contains(odd, "read of 16 bytes")) << all_of(odd);
  auto const odd_target = reports_of([&] { fetch<<<1, 32>>>(a.data, out.data, 0, 8, true); });
  EXPECT_EQ(odd_target.at(0).what, fault::misaligned) << all_of(odd_target);
  auto const past = reports_of([&] { fetch<<<1, 32>>>(a.data, out.data, 0, 32, true); });
  EXPECT_EQ(past.at(0).what, fault::out_of_bounds) << all_of(past);
  auto const unwritten = reports_of([&] { fetch<<<1, 32>>>(fresh.data, out.data, 0, 0, true); });
  EXPECT_ONE(unwritten, fault::uninitialized);
  EXPECT_NONE((fetch<<<1, 32>>>(a.data, out.data, 16, 0, true)));
  EXPECT_EQ(out.host()[31], 1);
}

TEST(AsyncCopies, ReadBeforeTheirWait) {
  device_array<int4> a(std::vector<int4>(33, int4{1, 2, 3, 4}));
  device_array<int> out(std::size_t{32});
  auto const bad = reports_of([&] { fetch<<<1, 32>>>(a.data, out.data, 0, 0, false); });
  EXPECT_ONE(bad, fault::uninitialized);
  EXPECT_NONE((fetch<<<1, 32>>>(a.data, out.data, 0, 0, true)));
}

/// Loads four matrices from rows of 16 bytes, of which so many have been written.
__global__ void load_rows(unsigned* out, int shift, int rows) {
  __shared__ __align__(16) unsigned s[32 * 4];
  for (int i = threadIdx.x; i < rows * 4; i += 32) s[i] = i;
  __syncwarp();
  unsigned const at = unsigned(__cvta_generic_to_shared(s)) + threadIdx.x * 16 + shift;
  unsigned a, b, c, d;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
               : "r"(at)
               : "memory");
  out[threadIdx.x] = a + b + c + d;
}

TEST(Ldmatrix, BoundsAlignmentAndUnwritten) {
  device_array<unsigned> out(std::size_t{32});
  auto const outside = reports_of([&] { load_rows<<<1, 32>>>(out.data, 16, 32); });
  EXPECT_ONE(outside, fault::out_of_bounds);
  EXPECT_EQ(outside[0].thread[0], 31u);
  auto const odd = reports_of([&] { load_rows<<<1, 32>>>(out.data, -8, 32); });
  EXPECT_ONE(odd, fault::misaligned);
  EXPECT_TRUE(contains(odd, "16 bytes")) << all_of(odd);
  auto const unwritten = reports_of([&] { load_rows<<<1, 32>>>(out.data, 0, 31); });
  EXPECT_ONE(unwritten, fault::uninitialized);
  EXPECT_EQ(unwritten[0].thread[0], 31u);
  EXPECT_NONE((load_rows<<<1, 32>>>(out.data, 0, 32)));
}

__device__ __forceinline__ int inner(int const* a, int i) { return a[i]; }
__device__ __forceinline__ int outer(int const* a, int i) { return inner(a, i) + 1; }
__global__ void inlined_twice(int const* a, int* b, int n) {
  b[threadIdx.x] = outer(a, n);  // the line that is named
}

TEST(Places, AnInlinedReadNamesItsLineAndTheKernels) {
  device_array<int> a(std::vector<int>(8)), b(std::size_t{32});
  auto const bad = reports_of([&] { inlined_twice<<<1, 32>>>(a.data, b.data, 8); });
  EXPECT_ONE(bad, fault::out_of_bounds);
  constexpr int here = __LINE__;
  EXPECT_EQ(file_name(bad[0].inlined_file), file_name(__FILE__)) << all_of(bad);
  EXPECT_EQ(bad[0].line, here - 10) << all_of(bad);
  EXPECT_EQ(bad[0].inlined_line, here - 7) << all_of(bad);
}

}  // namespace checks_access_test
