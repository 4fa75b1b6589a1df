// What the kernels that only move move: the bytes of global memory that their warps touch, without
// any cache, against the least that the job needs; and what ptxas makes of them.
#include <gtest/gtest.h>

#include <string>

#include <softgpu/softgpu.hpp>

#include "shunt/combine.cuh"
#include "shunt/route.cuh"
#include "support/device_plan.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace traffic_test {

/// DeepSeek-V2-Lite's layer, for fewer tokens.
constexpr shape s{.tokens = 192, .hidden = 2048, .experts = 64, .top_k = 6};

struct fixture {
  plan_fixture host = plan_of({}, s, chosen_experts(s, skew::uniform, 1));
  device_plan_fixture device{s, host};
  on_device<bf16> x{std::vector<bf16>(192 * 2048)}, rows{std::vector<bf16>(192 * 6 * 2048)},
      y{192 * 2048};
  on_device<float> gate{std::vector<float>(192 * 6, 0.5f)};
  double const token_bytes = 192.0 * 2048 * 2, row_bytes = 6 * token_bytes;

  fixture() { (void)softgpu::take_counts(); }
};

/// Bytes touched by the launches since the last call, over the least.
double touched(double least) {
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  double bytes = 0;
  for (softgpu::launch_counts const& c : softgpu::take_counts()) {
    bytes += static_cast<double>(c.dram_bytes());
    EXPECT_EQ(c.local_bytes, 0u) << c.kernel << " keeps something in local memory";
  }
  EXPECT_GT(bytes, 0);
  return bytes / least;
}

TEST(CudaTraffic, PermuteMovesFivePercentMoreThanTheLeastAtMost) {
  fixture const q;
  ASSERT_TRUE(dispatch(on_cuda{}, q.x.as(192, 2048), q.device.plan, q.rows.as(1152, 2048)).ok());
  double const plain = touched(q.token_bytes + q.row_bytes);
  EXPECT_LE(plain, 1.05);
  ASSERT_TRUE(dispatch(on_cuda{}, q.x.as(192, 2048), q.device.plan, q.rows.as(1152, 2048),
                       {.gate = q.gate.as(192, 6)})
                  .ok());
  double const gated = touched(q.token_bytes + q.row_bytes);
  EXPECT_LE(gated, 1.05);
  std::printf("permute: %.3f of the least, with gates %.3f\n", plain, gated);
}

TEST(CudaTraffic, CombineMovesFivePercentMoreThanTheLeastAtMost) {
  fixture const q;
  ASSERT_TRUE(
      combine(on_cuda{}, q.rows.as(1152, 2048), q.device.plan, q.gate.as(192, 6), q.y.as(192, 2048))
          .ok());
  double const plain = touched(q.token_bytes + q.row_bytes);
  EXPECT_LE(plain, 1.05);
  ASSERT_TRUE(combine(on_cuda{}, q.rows.as(1152, 2048), q.device.plan, q.gate.as(192, 6),
                      q.y.as(192, 2048),
                      {.shared = q.x.as(192, 2048), .residual = q.x.as(192, 2048)})
                  .ok());
  double const beside = touched(3 * q.token_bytes + q.row_bytes);
  EXPECT_LE(beside, 1.05);
  std::printf("combine: %.3f of the least, with shared and residual %.3f\n", plain, beside);
}

TEST(CudaTraffic, BackwardOfDispatchIsCombinesTraffic) {
  fixture const q;
  ASSERT_TRUE(
      dispatch_backward(on_cuda{}, q.rows.as(1152, 2048), q.device.plan, q.y.as(192, 2048)).ok());
  EXPECT_LE(touched(q.token_bytes + q.row_bytes), 1.05);
}

/// Qwen3's router: a row of ids, and of gates, is one sector.
TEST(CudaTraffic, RouteReadsLogitsOnceAndWritesIdsAndGates) {
  on_device<float> const logits(std::vector<float>(256 * 128, 1.0f)), gate(256 * 8);
  on_device<index_t> const expert(256 * 8);
  on_cuda const on;
  shape const sizes{.tokens = 256, .experts = 128, .top_k = 8};
  on_device<std::byte> const work(static_cast<offset_t>(route_scratch_bytes(on, sizes)));
  routing<space::device> out;
  out.expert = expert.as(256, 8);
  out.gate = gate.as(256, 8);
  (void)softgpu::take_counts();
  ASSERT_TRUE(route(on, logits.as(256, 128), out, {work.data(), work.size()},
                    {.gates = gate_kind::renormalized})
                  .ok());
  double const ratio = touched(256.0 * 128 * 4 + 256.0 * 8 * 8);
  EXPECT_LE(ratio, 1.05);
  std::printf("route: %.3f of the least\n", ratio);
}

/// The same router's backward.
TEST(CudaTraffic, RouteBackwardReadsLogitsOnceAndWritesTheirGradients) {
  on_device<float> const logits(std::vector<float>(256 * 128, 1.0f)), d_logits(256 * 128),
      d_gate(std::vector<float>(256 * 8, 1.0f));
  on_device<index_t> const expert(std::vector<index_t>(256 * 8, 5));
  on_cuda const on;
  shape const sizes{.tokens = 256, .experts = 128, .top_k = 8};
  on_device<std::byte> const work(static_cast<offset_t>(route_scratch_bytes(on, sizes)));
  routing<space::device> chosen;
  chosen.expert = expert.as(256, 8);
  route_gradients<space::device> d;
  d.gate = d_gate.as(256, 8);
  (void)softgpu::take_counts();
  ASSERT_TRUE(route_backward(on, logits.as(256, 128), chosen, d, d_logits.as(256, 128),
                             {work.data(), work.size()}, {.gates = gate_kind::renormalized})
                  .ok());
  double const ratio = touched(2 * 256.0 * 128 * 4 + 256.0 * 8 * 8);
  EXPECT_LE(ratio, 1.05);
  std::printf("route_backward: %.3f of the least\n", ratio);
}

/// Columns of scores are written once and read five times: for each of four digits of the last score
/// that is taken, and for the taking.
TEST(CudaTraffic, ExpertChoiceTurnsScoresIntoColumnsWithoutWaste) {
  std::vector<float> z(1024 * 64);
  for (std::size_t i = 0; i < z.size(); ++i) z[i] = static_cast<float>(i * 7919 % 1021) * 0.01f;
  on_device<float> const logits(z), gate(64 * 32);
  on_device<index_t> const token(64 * 32);
  on_cuda const on;
  on_device<std::byte> const work(static_cast<offset_t>(
      route_expert_choice_scratch_bytes(on, {.tokens = 1024, .experts = 64})));
  (void)softgpu::take_counts();
  ASSERT_TRUE(route_expert_choice(
                  on, logits.as(1024, 64),
                  expert_choice<space::device>{.token = token.as(64, 32), .gate = gate.as(64, 32)},
                  {work.data(), work.size()})
                  .ok());
  double const ratio = touched(7 * 1024.0 * 64 * 4 + 64.0 * 32 * 8);
  EXPECT_LE(ratio, 1.05);
  std::printf("route_expert_choice: %.3f of the least\n", ratio);
}

TEST(CudaTraffic, NothingSpills) {
  auto const check = [](char const* name, auto* kernel) {
    for (auto const& r : softgpu::resources_of(reinterpret_cast<void const*>(kernel))) {
      EXPECT_EQ(r.error, "");
      EXPECT_EQ(r.spill_store_bytes + r.spill_load_bytes + r.stack_bytes, 0) << name;
      std::printf("%-20s %-7s %3d registers\n", name, r.architecture.c_str(), r.registers);
    }
  };
  check("route, 256 experts", &cuda::route_tokens<8>);
  check("route, 1024 experts", &cuda::route_tokens<cuda::shared_strips>);
  check("route_backward, 256", &cuda::route_gradients_of<8>);
  check("quantile_steps", &cuda::balance::quantile_steps);
  check("take_tokens", &cuda::take_tokens);
  check("copy_rows", &cuda::copy_rows<uint4>);
  check("scale_rows bf16", &cuda::scale_rows<8, bf16, bf16>);
  check("sum_rows bf16", &cuda::sum_rows<8, bf16, bf16>);
  check("row_dots bf16", &cuda::row_dots<bf16, bf16>);
  check("plan_in_one_block", &cuda::plan_in_one_block);
  check("place_slots", &cuda::place_slots);
  check("place_by_claim", &cuda::place_by_claim);
}

}  // namespace traffic_test
}  // namespace shunt::test
