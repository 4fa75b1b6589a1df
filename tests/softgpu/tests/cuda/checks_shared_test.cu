// The checks of shared memory: each wrong kernel is caught, its right twin is not.
#include "reports.hpp"

namespace {

__global__ void half_written(int* out, int written) {
  __shared__ int s[64];
  if (threadIdx.x < written) s[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}

TEST(Checks, UnwrittenSharedMemory) {
  device_array<int> b(std::size_t{64});
  auto const bad = reports_of([&] { half_written<<<1, 64>>>(b.data, 40); });
  EXPECT_ONE(bad, fault::uninitialised);
  EXPECT_EQ(bad[0].thread[0], 40u);
  EXPECT_TRUE(reports_of([&] { half_written<<<1, 64>>>(b.data, 64); }).empty());
}

__global__ void neighbour(int* out, bool wait_between, bool wait_after) {
  __shared__ int s[128];
  int const t = threadIdx.x;
  s[t] = t;
  if (wait_between) __syncthreads();
  int const v = s[(t + 32) % 128];
  if (wait_after) __syncthreads();
  s[t] = v;
  out[t] = v;
}

TEST(Checks, SharedRaceWithoutABarrier) {
  device_array<int> b(std::size_t{128});
  auto const read_before_written = reports_of([&] { neighbour<<<1, 128>>>(b.data, false, true); });
  bool raced = false;
  for (auto const& r : read_before_written)
    raced |= r.what == fault::shared_race || r.what == fault::uninitialised;
  EXPECT_TRUE(raced);
  auto const overwritten = reports_of([&] { neighbour<<<1, 128>>>(b.data, true, false); });
  ASSERT_FALSE(overwritten.empty());  // read after the other's write, and written after its read
  for (auto const& r : overwritten) EXPECT_EQ(r.what, fault::shared_race) << r.to_string();
  EXPECT_TRUE(reports_of([&] { neighbour<<<1, 128>>>(b.data, true, true); }).empty());
}

__global__ void producer_consumer(int* out, int consumer_barrier) {  // named barriers of two warps
  __shared__ int s[32];
  if (threadIdx.x < 32) {
    s[threadIdx.x] = threadIdx.x;
    asm volatile("bar.arrive 1, 64;" ::: "memory");
    if (consumer_barrier == 2) asm volatile("bar.arrive 2, 64;" ::: "memory");
  } else {
    if (consumer_barrier == 1)
      asm volatile("bar.sync 1, 64;" ::: "memory");
    else
      asm volatile("bar.sync 2, 64;" ::: "memory");
    out[threadIdx.x - 32] = s[threadIdx.x - 32];
  }
}

TEST(Checks, NamedBarriersOrderTheirWarps) {
  device_array<int> b(std::size_t{32});
  EXPECT_TRUE(reports_of([&] { producer_consumer<<<1, 64>>>(b.data, 1); }).empty());
  EXPECT_TRUE(reports_of([&] { producer_consumer<<<1, 64>>>(b.data, 2); }).empty());
  EXPECT_EQ(b.host()[5], 5);
}

}  // namespace
