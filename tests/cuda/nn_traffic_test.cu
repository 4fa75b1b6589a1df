// What the kernels of nn move and what ptxas makes of them: bytes of global memory without any cache
// against the least that the job needs, and attention's shared memory and share of arithmetic.
#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include <softgpu/softgpu.hpp>

#include "shunt/nn/embedding.cuh"
#include "shunt/nn/kv_cache.cuh"
#include "shunt/nn/norm.cuh"
#include "shunt/nn/optimizer.cuh"
#include "support/device_plan.hpp"

namespace shunt::test {
namespace nn_traffic_test {

std::vector<softgpu::launch_counts> counts() {
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return softgpu::take_counts();
}
/// Bytes touched by the launches since the last call, over the least.
double touched(double least) {
  double bytes = 0;
  for (softgpu::launch_counts const& c : counts()) {
    bytes += static_cast<double>(c.dram_bytes());
    EXPECT_EQ(c.local_bytes, 0u) << c.kernel << " keeps something in local memory";
  }
  EXPECT_GT(bytes, 0);
  return bytes / least;
}
template <class T> on_device<T> filled(offset_t n) {
  return on_device<T>(std::vector<T>(static_cast<std::size_t>(n), from_float<T>(0.5f)));
}

TEST(CudaNnTraffic, RowsAreReadOnceForTheirSumAndOnceForTheirResult) {
  auto const x = filled<bf16>(64 * 2048), weight = filled<bf16>(2048), y = filled<bf16>(64 * 2048);
  double const row = 64 * 2048 * 2;
  (void)counts();
  ASSERT_TRUE(nn::rms_norm(on_cuda{}, x.as(64, 2048), weight.as(2048), y.as(64, 2048)).ok());
  double const norm = touched(4 * row);  // x twice, the weight, y: three of them from cache
  EXPECT_LE(norm, 1.02);
  auto const id = on_device<index_t>(std::vector<index_t>(64, 3));
  ASSERT_TRUE(nn::embedding(on_cuda{}, x.as(64, 2048), id.as(64), y.as(64, 2048)).ok());
  double const embedding = touched(2 * row);
  EXPECT_LE(embedding, 1.01);
  std::printf("rms_norm: %.3f of four rows, embedding: %.3f of two\n", norm, embedding);
}

TEST(CudaNnTraffic, AdamWReadsFourAndWritesThreeNumbersAndTheCopy) {
  offset_t const n = 1 << 16;
  auto const p = filled<float>(n), g = filled<float>(n), m = filled<float>(n), v = filled<float>(n),
             norm = filled<float>(1);
  auto const copy = filled<bf16>(n);
  (void)counts();
  ASSERT_TRUE(nn::adamw(on_cuda{},
                        nn::adamw_state<bf16, space::device>{p.as(n), g.as(n), m.as(n), v.as(n),
                                                             copy.as(n)},
                        norm.as(1), {.clip = 1.0f})
                  .ok());
  double const ratio = touched(static_cast<double>(n) * (7 * 4 + 2));
  EXPECT_LE(ratio, 1.05);  // and the norm, a sector a warp
  std::printf("adamw: %.3f of the least\n", ratio);
}

/// Attention of S tokens, 4 heads of D on 2 of keys and values.
template <class T> struct fixture {
  nn::attention_shape s;
  offset_t queries, keys;
  on_device<T> q, k, v, out, d_q, d_k, d_v;
  on_device<float> log_sum;
  on_device<std::byte> work;
  fixture(index_t length, index_t d)
      : s{1, length, 4, 2, d},
        queries(offset_t{length} * 4 * d),
        keys(queries / 2),
        q(values<T>(queries, 1)),
        k(values<T>(keys, 2)),
        v(values<T>(keys, 3)),
        out(queries),
        d_q(queries),
        d_k(keys),
        d_v(keys),
        log_sum(offset_t{length} * 4),
        work(static_cast<offset_t>(nn::attention_backward_scratch_bytes(on_cuda{}, s))) {
    (void)counts();
  }
  auto of_q(on_device<T> const& x) const { return x.as(1, s.length, 4, s.head_dim); }
  auto of_k(on_device<T> const& x) const { return x.as(1, s.length, 2, s.head_dim); }
  status forward() const {
    return nn::attention(on_cuda{}, of_q(q), of_k(k), of_k(v), of_q(out),
                         log_sum.as(1, 4, s.length), {});
  }
  status backward() const {
    return nn::attention_backward(on_cuda{}, of_q(q), of_k(k), of_k(v), of_q(out),
                                  log_sum.as(1, 4, s.length), of_q(out), of_q(d_q), of_k(d_k),
                                  of_k(d_v), {work.data(), work.size()});
  }
};

/// Prints a launch's share of useful multiply-adds among its lanes' instructions, or, on tensor cores,
/// its mma over the fewest that could do.
void report(char const* what, softgpu::launch_counts const& c, double multiply_adds) {
  double const accesses = static_cast<double>(c.shared_accesses);
  double const conflicts = static_cast<double>(c.bank_conflicts) / accesses;
  double const all = static_cast<double>(c.lane_instructions);
  double const mma = static_cast<double>(c.mma) / 32, least = multiply_adds / (16 * 8 * 16);
  if (c.mma > 0) {
    std::printf("%-28s %.2f of the fewest mma, %.1f instructions a mma", what, mma / least,
                all / static_cast<double>(c.mma));
  } else {
    std::printf("%-28s %.2f of the instructions are its multiply-adds", what, multiply_adds / all);
  }
  std::printf(", %.3f bank conflicts an access, %.1f MB\n", conflicts,
              static_cast<double>(c.dram_bytes()) * 1e-6);
  EXPECT_EQ(c.local_bytes, 0u) << c.kernel;
  EXPECT_LE(conflicts, 0.01) << c.kernel;
}

/// S = 256: the pairs of a query and a key that it sees, times D, is one product.
template <class T> void attention_of(index_t d, std::string const& name) {
  fixture<T> const q(256, d);
  double const product = 4.0 * 256 * 257 / 2 * d;
  ASSERT_TRUE(q.forward().ok());
  auto const forward = counts();
  ASSERT_EQ(forward.size(), 1u);
  report((name + " forward").c_str(), forward[0], 2 * product);
  ASSERT_TRUE(q.backward().ok());
  auto const backward = counts();
  ASSERT_EQ(backward.size(), 3u);
  report((name + " d_q").c_str(), backward[1], 3 * product);
  report((name + " d_k, d_v").c_str(), backward[2], 4 * product);
}
TEST(CudaNnTraffic, AttentionMultipliesWithoutBankConflicts) {
  attention_of<float>(64, "float D64");
  attention_of<float>(128, "float D128");
  attention_of<bf16>(64, "bf16 D64");
  attention_of<bf16>(128, "bf16 D128");
}

TEST(CudaNnTraffic, NothingSpills) {
  auto const check = [](char const* name, auto* kernel) {
    for (auto const& r : softgpu::resources_of(reinterpret_cast<void const*>(kernel))) {
      EXPECT_EQ(r.error, "");
      EXPECT_EQ(r.spill_store_bytes + r.spill_load_bytes + r.stack_bytes, 0) << name;
      std::printf("%-24s %-7s %3d registers\n", name, r.architecture.c_str(), r.registers);
    }
  };
  check("attend D128", &cuda::attend<2, float, false>);
  check("attend_mma D128 bf16", &cuda::attend_mma<128, bf16, false>);
  check("attend_keys_back_mma D128", &cuda::attend_keys_back_mma<128, bf16>);
  check("attend_keys_back D128", &cuda::attend_keys_back<2, float>);
}

}  // namespace nn_traffic_test
}  // namespace shunt::test
