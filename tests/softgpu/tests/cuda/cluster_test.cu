// Clusters of one block, and what else needs a device of sm_90 or later: the cluster's barrier and
// special registers, dependent launches, elected threads.
#include <cstdint>
#include <vector>

#include "device_array.hpp"

namespace cluster_test {

using word = std::uint32_t;

#define READ(name)                                 \
  asm volatile("mov.u32 %0, " name ";" : "=r"(x)); \
  o[n++] = x;

__global__ void registers(word* out) {
  word* const o = out + 16 * blockIdx.x;
  word x = 0, n = 0;
  READ("%%cluster_ctarank")
  READ("%%cluster_nctarank")
  READ("%%cluster_ctaid.x")
  READ("%%cluster_nctaid.y")
  READ("%%clusterid.x")
  READ("%%nclusterid.x")
  asm volatile("{.reg .pred p; mov.pred p, %%is_explicit_cluster; selp.u32 %0, 1, 0, p;}"
               : "=r"(x));
  o[n++] = x;
  __shared__ int variable;
  auto const at = word(__cvta_generic_to_shared(&variable));
  asm volatile("getctarank.shared::cluster.u32 %0, %1;" : "=r"(x) : "r"(at));
  o[n++] = x;
  asm volatile("st.shared::cluster.u32 [%1], 5; ld.shared::cta.u32 %0, [%1];" : "=r"(x) : "r"(at));
  o[n++] = x;
  asm volatile("griddepcontrol.wait; griddepcontrol.launch_dependents;");
}

TEST(Cluster, HasOneBlock) {
  device_array<word> out(std::vector<word>(48, 99));
  registers<<<3, 1>>>(out.data);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const r = out.host();
  for (word b = 0; b < 3; ++b)
    EXPECT_EQ(std::vector<word>(&r[16 * b], &r[16 * b] + 9),
              (std::vector<word>{0, 1, 0, 1, b, 3, 0, 0, 5}));
}

__global__ void turn(int* out, int steps) {
  __shared__ int s[2][128];
  int const t = threadIdx.x;
  s[0][t] = t;
  for (int k = 0; k < steps; ++k) {
    asm volatile("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
    s[1 - k % 2][t] = s[k % 2][(t + 40) % 128];
  }
  out[t] = s[steps % 2][t];
}

TEST(Cluster, BarrierOrdersSharedMemory) {
  device_array<int> out(std::size_t{128});
  turn<<<1, 128>>>(out.data, 5);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (int t = 0; t < 128; ++t) EXPECT_EQ(out.host()[t], (t + 200) % 128) << t;
}

}  // namespace cluster_test
