#pragma once
#include "shunt/backend/host/activations.hpp"
#include "shunt/backend/host/gemm/driver.hpp"

namespace shunt::host {

/// The context of epilogue_forward. c.scale holds the rows' factors.
struct expert_finish {
  gemm_store c{}, pre{};
  gemm_experts<void const> bias{};
  activation_code activation{};
  bool round_pre = false;
};

/// The context of epilogue_gradient.
struct expert_grads {
  gemm_experts<void> dw{};
  float* d_bias = nullptr;
  std::int64_t d_bias_expert = 0, d_bias_row = 1;
  bool accumulate = false;
};

/// Activations by rows: pre [R, columns or 2 columns], all else [R, columns].
struct activation_job {
  activation_code code{};
  std::int64_t columns = 0;
  gemm_rows pre{}, d_act{};
  gemm_store d_pre{}, act{};
  gemm_scale scale{};
  float* d_scale = nullptr;
};

}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/experts_kernels.inl"
#include "shunt/backend/host/simd/for_each_region.inl"
