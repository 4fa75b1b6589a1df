// What the kernels that only move move: the bytes of global memory that their warps touch, without
// any cache, against the least that the job needs; and what ptxas makes of them.
#include <gtest/gtest.h>

#include "shunt/combine.cuh"
#include "shunt/route.cuh"
#include "support/device_plan.hpp"
#include "support/device_traffic.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace {

/// DeepSeek-V2-Lite's layer, for fewer tokens.
constexpr shape s{.tokens = 192, .hidden = 2048, .experts = 64, .top_k = 6};

struct scene {
  planned host = plan_of({}, s, chosen_experts(s, skew::uniform, 1));
  device_planned device{s, host};
  on_device<bf16> x{std::vector<bf16>(192 * 2048)}, rows{std::vector<bf16>(192 * 6 * 2048)},
      y{192 * 2048};
  on_device<float> gate{std::vector<float>(192 * 6, 0.5f)};
  double const token_bytes = 192.0 * 2048 * 2, row_bytes = 6 * token_bytes;

  scene() { (void)softgpu::take_counts(); }
};

TEST(CudaTraffic, PermuteMovesFivePercentMoreThanTheLeastAtMost) {
  scene const q;
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
  scene const q;
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
  scene const q;
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
  on_device<std::byte> const work(static_cast<offset_t>(route_bytes(on, sizes)));
  routing<space::device> out;
  out.expert = expert.as(256, 8);
  out.gate = gate.as(256, 8);
  (void)softgpu::take_counts();
  ASSERT_TRUE(route(on, logits.as(256, 128), out, {work.data(), work.size()},
                    {.gates = gate_kind::renormalised})
                  .ok());
  double const ratio = touched(256.0 * 128 * 4 + 256.0 * 8 * 8);
  EXPECT_LE(ratio, 1.05);
  std::printf("route: %.3f of the least\n", ratio);
}

TEST(CudaTraffic, NothingSpills) {
  auto const check = [](char const* name, auto* kernel) {
    expect_no_spill(name, reinterpret_cast<void const*>(kernel));
  };
  check("route, 256 experts", &cuda::route_tokens<8>);
  check("copy_rows", &cuda::copy_rows<int4>);
  check("scale_rows bf16", &cuda::scale_rows<8, bf16, bf16>);
  check("sum_rows bf16", &cuda::sum_rows<8, bf16, bf16>);
  check("row_dots bf16", &cuda::row_dots<bf16, bf16>);
  check("plan_in_one_block", &cuda::plan_in_one_block);
  check("place_slots", &cuda::place_slots);
  check("place_by_claim", &cuda::place_by_claim);
}

}  // namespace
}  // namespace shunt::test
