// The checks of barriers, warps and progress: each wrong kernel is caught, its right twin is not.
#include "reports.hpp"

namespace checks_sync_test {

__global__ void barrier_in_branch(int* out, int limit) {
  if (threadIdx.x < limit) {
    asm volatile("bar.sync 0;" ::: "memory");
    out[threadIdx.x] = 1;
  } else {
    out[threadIdx.x] = 2;
    asm volatile("bar.sync 0;" ::: "memory");
  }
}

TEST(Checks, DivergentBarrier) {
  device_array<int> b(std::size_t{64});
  auto const bad = reports_of([&] { barrier_in_branch<<<1, 64>>>(b.data, 40); });
  ASSERT_FALSE(bad.empty());
  EXPECT_EQ(bad[0].what, fault::divergent_barrier) << bad[0].to_string();
  EXPECT_TRUE(reports_of([&] { barrier_in_branch<<<1, 64>>>(b.data, 32); }).empty());
}

__global__ void missing_barrier(int* out, int waiting) {
  if (threadIdx.x < 32)
    asm volatile("bar.sync 1, 64;" ::: "memory");
  else if (waiting != 0)
    asm volatile("bar.sync 1, 64;" ::: "memory");
  out[threadIdx.x] = 1;
}

TEST(Checks, Deadlock) {
  device_array<int> b(std::size_t{64});
  auto const bad = reports_of([&] { missing_barrier<<<1, 64>>>(b.data, 0); });
  EXPECT_ONE(bad, fault::deadlock);
  EXPECT_EQ(last_error(), cudaErrorLaunchTimeout);
  EXPECT_TRUE(reports_of([&] { missing_barrier<<<1, 64>>>(b.data, 1); }).empty());
}

__global__ void half_synced(int* out, unsigned members) {
  if (threadIdx.x < 16)
    asm volatile("bar.warp.sync %0;" ::"r"(members) : "memory");  // the line that is named
  else
    asm volatile("barrier.sync 1, 64;" ::: "memory");
  out[threadIdx.x] = 1;
}

TEST(Checks, DeadlockAtAWarpsBarrier) {
  device_array<int> b(std::size_t{32});
  auto const bad = reports_of([&] { half_synced<<<1, 32>>>(b.data, ~0u); });
  EXPECT_ONE(bad, fault::deadlock);
  constexpr int named = __LINE__ - 10;
  std::string const place = "checks_sync_test.cu:" + std::to_string(named) + ", PTX line";
  EXPECT_NE(bad[0].sentence.find("16 lanes wait for the others at a warp instruction at " + place),
            std::string::npos)
      << bad[0].sentence;
  EXPECT_NE(bad[0].sentence.find("16 lanes wait at barrier 1 at"), std::string::npos);
}

__global__ void shuffle_from(int* out, unsigned members, int source) {
  if (members >> threadIdx.x & 1) out[threadIdx.x] = __shfl_sync(members, threadIdx.x, source);
}

TEST(Checks, ShuffleFromALaneOutside) {
  device_array<int> b(std::size_t{32});
  auto const bad = reports_of([&] { shuffle_from<<<1, 32>>>(b.data, 0xff, 9); });
  ASSERT_EQ(bad.size(), 1u);
  EXPECT_EQ(bad[0].what, fault::inactive_lane);
  EXPECT_NE(bad[0].inlined_file.find("checks_sync_test.cu"), std::string::npos)
      << bad[0].to_string();
  EXPECT_TRUE(reports_of([&] { shuffle_from<<<1, 32>>>(b.data, 0xff, 7); }).empty());
}

// What never ends: a thread of a warp alone, and all blocks that wait for what nobody does.
__global__ void count_until(int volatile* flag, int* out) {
  int n = 0;
  while (flag[0] == 0) *const_cast<int volatile*>(out + 1) = ++n;
  out[0] = 1;
}

/// A watchdog of a third of a second for one scope.
struct impatience {
  double before = softgpu::configure().watchdog_seconds;
  impatience() { softgpu::configure().watchdog_seconds = 0.3; }
  ~impatience() { softgpu::configure().watchdog_seconds = before; }
};

TEST(Watchdog, EndsALoopThatNeverEnds) {
  impatience const set;
  device_array<int> flag(std::vector<int>{0}), out(std::size_t{2});
  auto const bad = reports_of([&] { count_until<<<1, 64>>>(flag.data, out.data); });
  ASSERT_EQ(bad.size(), 1u) << all_of(bad);
  EXPECT_EQ(bad[0].what, fault::deadlock);
  EXPECT_EQ(last_error(), cudaErrorLaunchTimeout);
  auto const expect_error = [&](char const* what) {
    return bad[0].sentence.find(what) != std::string::npos;
  };
  EXPECT_TRUE(expect_error("no thread of the launch has exited for 0.3 seconds"))
      << bad[0].sentence;
  EXPECT_TRUE(expect_error("warp 0: 32 lanes are at checks_sync_test.cu:")) << bad[0].sentence;
  EXPECT_TRUE(expect_error("warp 1: 32 lanes are at checks_sync_test.cu:")) << bad[0].sentence;
  EXPECT_GT(bad[0].line, 0);
  device_array<int> set_flag(std::vector<int>{1});
  EXPECT_NONE((count_until<<<1, 64>>>(set_flag.data, out.data)));
}

__global__ void wait_for_all(unsigned* arrived, unsigned expected) {
  if (threadIdx.x == 0) {
    atomicAdd(arrived, 1);
    while (atomicAdd(arrived, 0) < expected) __nanosleep(100);
  }
  __syncthreads();
}

TEST(Watchdog, EndsBlocksThatWaitForOneThatNeverComes) {
  impatience const set;
  device_array<unsigned> one(std::vector<unsigned>{0}), other(std::vector<unsigned>{0});
  auto const bad = reports_of([&] { wait_for_all<<<4, 64>>>(one.data, 5); });
  ASSERT_EQ(bad.size(), 1u) << all_of(bad);
  EXPECT_EQ(bad[0].what, fault::deadlock);
  EXPECT_NE(bad[0].sentence.find("warp 1: 32 lanes wait at barrier 0"), std::string::npos)
      << bad[0].sentence;
  EXPECT_NONE((wait_for_all<<<4, 64>>>(other.data, 4)));
}

}  // namespace checks_sync_test
