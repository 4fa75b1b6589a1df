// The checks of shared memory: each wrong kernel is caught, its right twin is not.
#include "reports.hpp"

namespace checks_shared_test {

__global__ void half_written(int* out, int written) {
  __shared__ int s[64];
  if (threadIdx.x < written) s[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = s[threadIdx.x];
}

TEST(Checks, UnwrittenSharedMemory) {
  device_array<int> b(std::size_t{64});
  auto const bad = reports_of([&] { half_written<<<1, 64>>>(b.data, 40); });
  EXPECT_ONE(bad, fault::uninitialized);
  EXPECT_EQ(bad[0].thread[0], 40u);
  EXPECT_TRUE(reports_of([&] { half_written<<<1, 64>>>(b.data, 64); }).empty());
}

__global__ void neighbor(int* out, bool wait_between, bool wait_after) {
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
  auto const read_before_written = reports_of([&] { neighbor<<<1, 128>>>(b.data, false, true); });
  bool raced = false;
  for (auto const& r : read_before_written)
    raced |= r.what == fault::shared_race || r.what == fault::uninitialized;
  EXPECT_TRUE(raced);
  auto const overwritten = reports_of([&] { neighbor<<<1, 128>>>(b.data, true, false); });
  ASSERT_FALSE(overwritten.empty());  // read after the other's write, and written after its read
  for (auto const& r : overwritten) EXPECT_EQ(r.what, fault::shared_race) << r.to_string();
  EXPECT_TRUE(reports_of([&] { neighbor<<<1, 128>>>(b.data, true, true); }).empty());
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

// All warps read a word that one then writes: where that one was the last to read, the reads before
// it still count.
__global__ void read_by_all(int* out, int writer, bool wait) {
  __shared__ int s;
  if (threadIdx.x == 0) s = 5;
  __syncthreads();
  if (threadIdx.x % 32 != 0) return;
  int const v = s;
  if (wait) __syncthreads();
  if (threadIdx.x == writer) s = v + 1;
  out[threadIdx.x] = v;
}

TEST(Checks, AWriteRacesWithReadsBeforeItsOwn) {
  device_array<int> b(std::size_t{128});
  for (int writer = 0; writer < 128; writer += 32) {
    auto const bad = reports_of([&] { read_by_all<<<1, 128>>>(b.data, writer, false); });
    ASSERT_FALSE(bad.empty()) << writer;
    for (auto const& r : bad) EXPECT_EQ(r.what, fault::shared_race) << r.to_string();
    EXPECT_NONE((read_by_all<<<1, 128>>>(b.data, writer, true)));
  }
}

struct float4_sum {  // 16 bytes
  float4 v;
  __device__ explicit float4_sum(int x) : v{float(x), 0, 0, 0} {}
  float4_sum() = default;
  __device__ explicit operator int() const { return int(v.x + v.y + v.z + v.w); }
};

// Lanes of one warp: they may run apart, so a word passes between them only over __syncwarp.
template <class T>
__global__ void turn_around(int* out, bool sync_between, bool sync_after, int rounds) {
  __shared__ T s[32];
  int const t = threadIdx.x;
  for (int i = 0; i < rounds; ++i) {
    s[t] = T(t + i);
    if (sync_between) __syncwarp();
    T const v = s[31 - t];
    if (sync_after) __syncwarp();
    out[t] = int(v);
  }
}

template <class T> void expect_warp_races() {
  device_array<int> b(std::size_t{32});
  auto const read = reports_of([&] { turn_around<T><<<1, 32>>>(b.data, false, true, 2); });
  EXPECT_ONE(read, fault::shared_race);
  EXPECT_NE(read[0].sentence.find("of its warp wrote, with no __syncwarp between"),
            std::string::npos)
      << all_of(read);
  auto const written = reports_of([&] { turn_around<T><<<1, 32>>>(b.data, true, false, 2); });
  EXPECT_ONE(written, fault::shared_race);
  EXPECT_NE(written[0].sentence.find("of its warp read, with no __syncwarp"), std::string::npos)
      << all_of(written);
  EXPECT_NONE((turn_around<T><<<1, 32>>>(b.data, true, true, 3)));
}

TEST(Checks, RacesWithinAWarp) {
  expect_warp_races<int>();
  expect_warp_races<double>();
  expect_warp_races<float4_sum>();
}

__global__ void own_bytes(int* out) {  // each lane its own part of a word, and one word for all
  __shared__ char s[32];
  __shared__ int same;
  s[threadIdx.x] = char(threadIdx.x);
  same = 7;
  __syncwarp();
  s[threadIdx.x] += 1;
  out[threadIdx.x] = s[threadIdx.x] + same;
  s[threadIdx.x] += 1;
}

TEST(Checks, LanesMayWriteOneWordTogether) {
  device_array<int> b(std::size_t{32});
  EXPECT_NONE((own_bytes<<<1, 32>>>(b.data)));
  EXPECT_EQ(b.host()[3], 4 + 7);
}

__global__ void pairs(int* out, bool alike) {
  __shared__ int s[16];
  s[threadIdx.x / 2] = alike ? threadIdx.x / 2 : threadIdx.x;
  __syncwarp();
  out[threadIdx.x] = s[threadIdx.x / 2];
}

TEST(Checks, LanesThatWriteDifferentValuesToOneWord) {
  device_array<int> b(std::size_t{32});
  auto const bad = reports_of([&] { pairs<<<1, 32>>>(b.data, false); });
  EXPECT_ONE(bad, fault::shared_race);
  EXPECT_NE(bad[0].sentence.find("lanes 0 and 1 write different values"), std::string::npos)
      << all_of(bad);
  EXPECT_NONE((pairs<<<1, 32>>>(b.data, true)));
}

}  // namespace checks_shared_test
