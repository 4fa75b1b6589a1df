// Streams and events: what is ordered is, and what is not ordered shows. Everything here holds on
// any device; what only the software device promises is in runtime_test.cu.
#include <atomic>
#include <future>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "device_array.hpp"
#include "streams.hpp"

namespace stream_test {

__global__ void set(int* out, int n, int value) {
  int const i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = value;
}
__global__ void add(int* out, int const* in, int n, int value) {
  int const i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[i] = in[i] + value;
}

TEST(Stream, WorkOfAStreamIsInOrder) {
  stream s;
  device_array<int> a(std::vector<int>(100, 1)), b(std::vector<int>(100, 0));
  pinned out(100);
  add<<<1, 128, 0, s>>>(b.data, a.data, 100, 10);
  add<<<1, 128, 0, s>>>(a.data, b.data, 100, 100);
  ASSERT_EQ(cudaMemcpyAsync(out.data, a.data, 400, cudaMemcpyDeviceToHost, s), cudaSuccess);
  ASSERT_EQ(cudaMemsetAsync(a.data, 0, 400, s), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(out.data[i], 111);
  EXPECT_EQ(a.host()[5], 0);
}

TEST(Stream, EventsOrderStreams) {
  stream producer, consumer;
  event ready(cudaEventDisableTiming);
  device_array<int> a(std::vector<int>(64, 0)), b(std::vector<int>(64, 0));
  for (int round = 1; round < 4; ++round) {
    set<<<1, 64, 0, producer>>>(a.data, 64, round);
    ASSERT_EQ(cudaEventRecord(ready, producer), cudaSuccess);
    ASSERT_EQ(cudaStreamWaitEvent(consumer, ready), cudaSuccess);
    add<<<1, 64, 0, consumer>>>(b.data, a.data, 64, 100);
    ASSERT_EQ(cudaEventRecord(ready, consumer), cudaSuccess);
    ASSERT_EQ(cudaStreamWaitEvent(producer, ready), cudaSuccess);
  }
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(b.host()[63], 103);
}

TEST(Stream, AWaitMeansTheRecordBeforeIt) {
  stream s, other;
  event e;
  device_array<int> a(std::vector<int>(1, 0)), b(std::vector<int>(1, 0));
  set<<<1, 1, 0, s>>>(a.data, 1, 1);
  ASSERT_EQ(cudaEventRecord(e, s), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(other, e), cudaSuccess);
  add<<<1, 1, 0, other>>>(b.data, a.data, 1, 0);
  ASSERT_EQ(cudaEventRecord(e, other), cudaSuccess);  // the earlier wait keeps its place
  ASSERT_EQ(cudaEventSynchronize(e), cudaSuccess);
  EXPECT_EQ(b.host()[0], 1);
  event never;
  EXPECT_EQ(cudaStreamWaitEvent(s, never), cudaSuccess);
  EXPECT_EQ(cudaEventQuery(never), cudaSuccess);
  EXPECT_EQ(cudaEventSynchronize(never), cudaSuccess);
}

TEST(Stream, TheLegacyStreamOrdersBlockingOnes) {
  stream blocking(cudaStreamDefault), second(cudaStreamDefault);
  device_array<int> a(std::vector<int>(64, 0)), b(std::vector<int>(64, 0));
  set<<<1, 64, 0, blocking>>>(a.data, 64, 7);
  add<<<1, 64>>>(b.data, a.data, 64, 1);
  add<<<1, 64, 0, second>>>(a.data, b.data, 64, 1);
  ASSERT_EQ(cudaStreamSynchronize(second), cudaSuccess);
  std::vector<int> out(64);
  ASSERT_EQ(cudaMemcpy(out.data(), a.data, 256, cudaMemcpyDeviceToHost), cudaSuccess);
  EXPECT_EQ(out[0], 9);
}

TEST(Stream, QueriesAndEventsComeToAnEnd) {
  stream s;
  event begin, end;
  device_array<int> a(std::size_t{64});
  EXPECT_EQ(cudaStreamQuery(s), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(begin, s), cudaSuccess);
  for (int i = 0; i < 5; ++i) set<<<1, 64, 0, s>>>(a.data, 64, i);
  ASSERT_EQ(cudaEventRecord(end, s), cudaSuccess);
  cudaError_t e;
  while ((e = cudaEventQuery(end)) == cudaErrorNotReady) {}
  ASSERT_EQ(e, cudaSuccess);
  while ((e = cudaStreamQuery(s)) == cudaErrorNotReady) {}
  ASSERT_EQ(e, cudaSuccess);
  cudaGetLastError();  // not ready is remembered as an error
  float ms = -1;
  ASSERT_EQ(cudaEventElapsedTime(&ms, begin, end), cudaSuccess);
  EXPECT_GE(ms, 0);
  EXPECT_LT(ms, 60000);
  EXPECT_EQ(a.host()[0], 4);
}

TEST(Stream, EventsRefuseWhatTheyCannotTell) {
  event timed, untimed(cudaEventDisableTiming), never;
  float ms = 0;
  ASSERT_EQ(cudaEventRecord(timed), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(untimed), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(cudaEventElapsedTime(&ms, timed, untimed), cudaErrorInvalidResourceHandle);
  EXPECT_EQ(cudaEventElapsedTime(&ms, timed, never), cudaErrorInvalidResourceHandle);
  cudaEvent_t none = nullptr;
  EXPECT_EQ(cudaEventCreateWithFlags(&none, 0x80), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
}

TEST(Stream, HostFunctionsTakeTheirTurn) {
  stream s;
  pinned p(2);
  p.data[0] = p.data[1] = 0;
  device_array<int> a(std::vector<int>{0});
  set<<<1, 1, 0, s>>>(a.data, 1, 5);
  ASSERT_EQ(cudaMemcpyAsync(p.data, a.data, 4, cudaMemcpyDeviceToHost, s), cudaSuccess);
  ASSERT_EQ(cudaLaunchHostFunc(
                s, [](void* p) { static_cast<int*>(p)[1] = static_cast<int*>(p)[0] * 2; }, p.data),
            cudaSuccess);
  ASSERT_EQ(cudaMemcpyAsync(a.data, p.data + 1, 4, cudaMemcpyHostToDevice, s), cudaSuccess);
  ASSERT_EQ(cudaStreamAddCallback(
                s,
                [](cudaStream_t, cudaError_t e, void* p) {
                  if (e == cudaSuccess) ++static_cast<int*>(p)[1];
                },
                p.data, 0),
            cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(a.host()[0], 10);
  EXPECT_EQ(p.data[1], 11);
}

TEST(Stream, PageableMemoryIsDoneWithWhenTheCallReturns) {
  stream s;
  device_array<int> a(std::size_t{4}), b(std::size_t{4});
  std::vector<int> host{1, 2, 3, 4};
  ASSERT_EQ(cudaMemcpyAsync(a.data, host.data(), 16, cudaMemcpyHostToDevice, s), cudaSuccess);
  host.assign(4, 0);  // the call took the bytes
  add<<<1, 4, 0, s>>>(b.data, a.data, 4, 10);
  ASSERT_EQ(cudaMemcpyAsync(host.data(), b.data, 16, cudaMemcpyDeviceToHost, s), cudaSuccess);
  EXPECT_EQ(host, (std::vector<int>{11, 12, 13, 14}));  // and here it waited
}

TEST(Stream, StreamOrderedMemory) {
  stream s, other;
  event allocated, used;
  int* p = nullptr;
  ASSERT_EQ(cudaMallocAsync(&p, 4000, s), cudaSuccess);
  ASSERT_EQ(cudaEventRecord(allocated, s), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(other, allocated), cudaSuccess);
  set<<<4, 256, 0, other>>>(p, 1000, 3);
  device_array<int> sum(std::vector<int>(1000, 0));
  add<<<4, 256, 0, other>>>(sum.data, p, 1000, 1);
  ASSERT_EQ(cudaEventRecord(used, other), cudaSuccess);
  ASSERT_EQ(cudaStreamWaitEvent(s, used), cudaSuccess);
  ASSERT_EQ(cudaFreeAsync(p, s), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(sum.host()[999], 4);
}

TEST(Stream, WorkOfADestroyedStreamStillRuns) {
  device_array<int> a(std::vector<int>{0});
  {
    stream s;
    set<<<1, 1, 0, s>>>(a.data, 1, 6);
  }
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(a.host()[0], 6);
}

TEST(Stream, MoreWorkThanAQueueHolds) {
  stream s;
  device_array<int> a(std::vector<int>{0});
  for (int i = 0; i < 3000; ++i) add<<<1, 1, 0, s>>>(a.data, a.data, 1, 1);
  ASSERT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  EXPECT_EQ(a.host()[0], 3000);
}

TEST(Stream, AThreadHasADefaultStreamOfItsOwn) {
  device_array<int> a(std::vector<int>{0});
  std::thread([&] {
    set<<<1, 1, 0, cudaStreamPerThread>>>(a.data, 1, 4);
    EXPECT_EQ(cudaStreamSynchronize(cudaStreamPerThread), cudaSuccess);
  }).join();
  add<<<1, 1, 0, cudaStreamPerThread>>>(a.data, a.data, 1, 1);
  add<<<1, 1>>>(a.data, a.data, 1, 10);  // the legacy stream waits for it
  EXPECT_EQ(a.host()[0], 15);
}

TEST(Stream, AHostThatWaitsByItselfGoesOn) {
  stream s;
  pinned flag(1);
  *flag.data = 0;
  std::promise<int> told;
  set<<<1, 1, 0, s>>>(flag.data, 1, 3);
  ASSERT_EQ(cudaLaunchHostFunc(
                s, [](void* p) { static_cast<std::promise<int>*>(p)->set_value(8); }, &told),
            cudaSuccess);
  EXPECT_EQ(told.get_future().get(), 8);  // without a call that would wait for the stream
  EXPECT_EQ(*static_cast<int volatile*>(flag.data), 3);
}

TEST(Stream, FlagsAndPriorities) {
  int least = -1, greatest = 1;
  ASSERT_EQ(cudaDeviceGetStreamPriorityRange(&least, &greatest), cudaSuccess);
  EXPECT_EQ(least, 0);
  EXPECT_LT(greatest, 0);
  cudaStream_t s = nullptr;
  ASSERT_EQ(cudaStreamCreateWithPriority(&s, cudaStreamNonBlocking, -1), cudaSuccess);
  unsigned flags = 0;
  int priority = 0, device = -1;
  EXPECT_EQ(cudaStreamGetFlags(s, &flags), cudaSuccess);
  EXPECT_EQ(flags, unsigned{cudaStreamNonBlocking});
  EXPECT_EQ(cudaStreamGetPriority(s, &priority), cudaSuccess);
  EXPECT_EQ(priority, -1);
  EXPECT_EQ(cudaGetDevice(&device), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(s), cudaSuccess);
  EXPECT_EQ(cudaStreamCreateWithFlags(&s, 0x40), cudaErrorInvalidValue);
  EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
}

TEST(Stream, ThreadsWithAStreamEach) {
  constexpr int threads = 4, n = 512;
  std::atomic<int> wrong = 0;
  std::vector<std::thread> all;
  for (int t = 0; t < threads; ++t)
    all.emplace_back([&, t] {
      stream s;
      event e;
      for (int round = 0; round < 5; ++round) {
        device_array<int> a(std::size_t{n}), b(std::size_t{n});
        pinned out(n);
        set<<<n / 128, 128, 0, s>>>(a.data, n, t);
        add<<<n / 128, 128, 0, s>>>(b.data, a.data, n, 100 * round);
        cudaMemcpyAsync(out.data, b.data, n * sizeof(int), cudaMemcpyDeviceToHost, s);
        cudaEventRecord(e, s);
        if (round % 2 == 0 ? cudaEventSynchronize(e) : cudaStreamSynchronize(s)) ++wrong;
        for (int i = 0; i < n; ++i) wrong += out.data[i] != t + 100 * round;
      }
    });
  for (std::thread& t : all) t.join();
  EXPECT_EQ(wrong, 0);
}

__global__ void step(int* p, int to, int from, int value) {
  p[to] = 3 * (p[from] % 10000) + p[to] % 10000 + value;
}

/// A random program over a few cells and streams, with the events that order what must be: each
/// step waits for the last write of what it touches, and for the reads of what it writes.
struct random_program {
  static constexpr int cells = 6, streams = 4, steps = 60;
  std::mt19937 random;
  std::vector<std::unique_ptr<event>> events;
  std::vector<event*> written = std::vector<event*>(cells, nullptr);
  std::vector<std::vector<event*>> reads = std::vector<std::vector<event*>>(cells);
  std::vector<int> expected;
  explicit random_program(unsigned seed) : random(seed), expected(cells, 1) {}

  event* record(cudaStream_t s) {
    events.push_back(std::make_unique<event>(cudaEventDisableTiming));
    EXPECT_EQ(cudaEventRecord(*events.back(), s), cudaSuccess);
    return events.back().get();
  }
  void wait(cudaStream_t s, event const* e) {
    if (e != nullptr) EXPECT_EQ(cudaStreamWaitEvent(s, *e), cudaSuccess);
  }
  void run(int* data, std::vector<std::unique_ptr<stream>> const& all) {
    for (int i = 0; i < steps; ++i) {
      int const to = random() % cells, from = random() % cells, value = random() % 100;
      cudaStream_t const s = *all[random() % streams];
      wait(s, written[from]);
      wait(s, written[to]);
      for (event const* e : reads[to]) wait(s, e);
      step<<<1, 1, 0, s>>>(data, to, from, value);
      event* const done = record(s);
      reads[from].push_back(done);
      written[to] = done;
      reads[to].clear();
      expected[to] = 3 * (expected[from] % 10000) + expected[to] % 10000 + value;
    }
  }
};

TEST(Stream, RandomProgramsWithTheEventsTheyNeed) {
  std::vector<std::unique_ptr<stream>> all;
  for (int i = 0; i < random_program::streams; ++i) all.push_back(std::make_unique<stream>());
  for (unsigned seed = 0; seed < 20; ++seed) {
    device_array<int> direct(std::vector<int>(random_program::cells, 1)),
        replayed(std::vector<int>(random_program::cells, 1));
    random_program now(seed), later(seed);
    now.run(direct.data, all);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(direct.host(), now.expected) << seed;

    cudaGraph_t g = nullptr;
    cudaGraphExec_t exec = nullptr;
    ASSERT_EQ(cudaStreamBeginCapture(*all[0], cudaStreamCaptureModeGlobal), cudaSuccess);
    event const* const fork = later.record(*all[0]);
    for (auto const& s : all) later.wait(*s, fork);
    later.run(replayed.data, all);
    for (auto const& s : all) later.wait(*all[0], later.record(*s));
    ASSERT_EQ(cudaStreamEndCapture(*all[0], &g), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&exec, g, 0), cudaSuccess);
    ASSERT_EQ(cudaGraphLaunch(exec, *all[0]), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(*all[0]), cudaSuccess);
    EXPECT_EQ(replayed.host(), later.expected) << seed;
    EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(g), cudaSuccess);
  }
}

}  // namespace stream_test
