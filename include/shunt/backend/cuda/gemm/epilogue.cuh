#pragma once
#include "shunt/backend/cuda/gemm/job.cuh"
#include "shunt/experts/activations.hpp"

/// What becomes of the sums of a product: each of these is called once for each output.
namespace shunt::cuda {
inline namespace SHUNT_ABI {

/// An activation in a kernel. Shunt's own are told apart at run time, so that they share one kernel;
/// a user's own gets its own.
template <class Act> struct device_activation {
  Act own;
  [[nodiscard]] SHUNT_HD bool gated() const noexcept { return Act::gated; }
  [[nodiscard]] __device__ slopes_of_pair slopes(float g, float u) const noexcept {
    if constexpr (Act::gated) {
      return own.slopes(g, u);
    } else {
      slope_of_one const s = own.slope(g);
      return {s.value, s.slope, 0.0f};
    }
  }
  [[nodiscard]] __device__ float value(float g, float u) const noexcept {
    if constexpr (Act::gated) {
      return own.value(g, u);
    } else {
      return own.value(g);
    }
  }
};
template <> struct device_activation<activation> {
  activation own;
  [[nodiscard]] SHUNT_HD bool gated() const noexcept { return own.kind >= activation_kind::swiglu; }
  [[nodiscard]] __device__ slopes_of_pair slopes(float g, float u) const noexcept {
    auto const plain = [](slope_of_one s) { return slopes_of_pair{s.value, s.slope, 0.0f}; };
    switch (own.kind) {
      case activation_kind::identity: return {g, 1.0f, 0.0f};
      case activation_kind::relu: return plain(math::relu_slope(g));
      case activation_kind::relu2: return plain(math::relu2_slope(g));
      case activation_kind::gelu: return plain(math::gelu_slope(g));
      case activation_kind::gelu_tanh: return plain(math::gelu_tanh_slope(g));
      case activation_kind::swiglu: return math::swiglu_slopes(g, u);
      case activation_kind::geglu: return math::geglu_slopes(g, u);
      case activation_kind::swiglu_clamped: return math::swiglu_clamped_slopes(g, u, own.a, own.b);
      case activation_kind::swiglu_capped: return math::swiglu_capped_slopes(g, u, own.a);
      case activation_kind::situ_glu: return math::situ_glu_slopes(g, u, own.a, own.b);
    }
    return {};
  }
  [[nodiscard]] __device__ float value(float g, float u) const noexcept {
    return slopes(g, u).value;
  }
};
/// The activation as kernels take it.
template <any_activation A> [[nodiscard]] auto activation_of(A const& act) noexcept {
  if constexpr (std::same_as<A, activation> || requires { A::kind; }) {
    return device_activation<activation>{activation(act)};
  } else {
    return device_activation<A>{act};
  }
}

/// One sum to its place.
__device__ inline void put(gemm_store const& to, offset_t row, offset_t column,
                           float sum) noexcept {
  offset_t const at = row * to.stride + column;
  float x = sum;
  if (to.scale.factor != nullptr) {
    float const scale = scale_of(to.scale, row);
    x = to.accumulate ? __fmaf_rn(x, scale, element_at(to.type, to.data, at)) : __fmul_rn(x, scale);
  } else if (to.accumulate) {
    x = __fadd_rn(element_at(to.type, to.data, at), x);
  }
  put_element(to.type, to.data, at, x);
}

/// Stored, as gemm_store says: rows of an expert, or of a weight gradient without experts.
struct epilogue_store {
  gemm_store to;
  __device__ void operator()(gemm_job const&, gemm_tile const& tile, offset_t row, offset_t column,
                             float sum, float) const noexcept {
    put(to, tile.first + row, column, sum);
  }
};
/// Sums + bias, kept as pre-activations where asked, activation, row factor, output. The activation
/// sees what was kept: rounded.
template <class Act> struct epilogue_forward {
  gemm_store c{}, pre{};
  gemm_experts<void const> bias{};
  Act act;
  bool round_pre = false;

  __device__ float kept(gemm_tile const& tile, offset_t row, offset_t n, float sum) const noexcept {
    if (bias.data != nullptr || bias.each != nullptr) {
      sum = __fadd_rn(sum, element_at(bias.type, vector_of(bias, tile.expert),
                                      physical_row(bias.pairs, n) * bias.row_stride));
    }
    if (pre.data != nullptr) put(pre, row, n, sum);
    if (pre.data == nullptr && !round_pre) return sum;
    return rounded(pre.data != nullptr ? pre.type : c.type, sum);
  }
  __device__ void operator()(gemm_job const& job, gemm_tile const& tile, offset_t r,
                             offset_t column, float first, float second) const noexcept {
    offset_t const row = tile.first + r, half = job.n / 2;
    // Loops of one or two, so that the kernel holds one copy of what is in them.
    float part[2] = {first, second};
    if (bias.data != nullptr || bias.each != nullptr || pre.data != nullptr || round_pre) {
#pragma unroll 1
      for (int h = 0; h < (job.paired ? 2 : 1); ++h) {
        float const x = kept(tile, row, h * half + column, h == 0 ? part[0] : part[1]);
        (h == 0 ? part[0] : part[1]) = x;
      }
    }
#pragma unroll 1
    for (int h = 0; h < (job.paired && !act.gated() ? 2 : 1); ++h) {
      put(c, row, h * half + column, act.value(h == 0 ? part[0] : part[1], part[1]));
    }
  }
};

__device__ inline float element(gemm_rows const& from, offset_t row, offset_t column) noexcept {
  return element_at(from.type, from.data, row * from.stride + column);
}

/// Sums that are gradients of an activation's output: through the activation and its row factor, with
/// what the products around it need. See activation_backward.
template <class Act> struct epilogue_activation {
  static constexpr bool whole_warps = true;
  Act act;
  gemm_rows pre{};
  gemm_store d_pre{}, out{};
  gemm_scale scale{};
  view<float, 2, space::device> parts = {};  ///< d_act · f(pre), summed by 32 columns

  /// One element; gives its product for the factor's gradient.
  __device__ float at(offset_t row, offset_t column, offset_t columns, float d_act) const noexcept {
    bool const padding = scale.slot != nullptr && scale.slot[row] < 0;
    slopes_of_pair s{};
    float factor = 0.0f, d = 0.0f;
    if (!padding) {
      float const gate = element(pre, row, column);
      s = act.slopes(gate, act.gated() ? element(pre, row, columns + column) : gate);
      factor = scale_of(scale, row);
      d = __fmul_rn(d_act, factor);
    }
    put(d_pre, row, column, padding ? 0.0f : __fmul_rn(d, s.gate));
    if (act.gated()) put(d_pre, row, columns + column, padding ? 0.0f : __fmul_rn(d, s.up));
    if (out.data != nullptr) put(out, row, column, padding ? 0.0f : __fmul_rn(s.value, factor));
    return padding ? 0.0f : __fmul_rn(d_act, s.value);
  }
  /// Called by whole warps, whose lanes have 32 columns of one row.
  __device__ void operator()(gemm_job const& job, gemm_tile const& tile, offset_t r,
                             offset_t column, float sum, float, bool inside) const noexcept {
    offset_t const row = tile.first + r;
    float const product = inside ? at(row, column, job.k, sum) : 0.0f;
    if (!parts) return;
    float const part = warp_sum(product);
    if (inside && column % warp_lanes == 0) parts(row, column / warp_lanes) = part;
  }
};

/// Sums to the caller's weight gradients, wherever their rows lie.
struct epilogue_gradient {
  gemm_experts<void> dw{};
  bool accumulate = false;
  __device__ void operator()(gemm_job const&, gemm_tile const& tile, offset_t row, offset_t column,
                             float sum, float) const noexcept {
    float* const at = row_of<float>(dw, tile.expert, row) + column * dw.column_stride;
    *at = accumulate ? __fadd_rn(*at, sum) : sum;
  }
};

}  // namespace SHUNT_ABI
}  // namespace shunt::cuda
