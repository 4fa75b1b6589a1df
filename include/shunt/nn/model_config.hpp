#pragma once
#include <cstdint>
#include <cstdio>

#include "shunt/core/abi.hpp"
#include "shunt/core/check.hpp"
#include "shunt/route/options.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {

/// A causal language model: embedding, `layers` blocks of attention and feed-forward, norm, head.
/// The feed-forward is a mixture of experts or, with `dense`, one SwiGLU network of `intermediate`.
struct model_config {
  index_t vocabulary = 256;         ///< bytes
  index_t layers = 4;               ///< blocks, one after the other
  index_t width = 256;              ///< numbers a token has between blocks
  index_t heads = 4;                ///< width / heads wide each
  index_t kv_heads = 2;             ///< divides heads
  index_t context = 256;            ///< longest sequence
  bool dense = false;               ///< no experts: one feed-forward of `intermediate`
  index_t experts = 16;             ///< E
  index_t top_k = 2;                ///< K
  index_t intermediate = 256;       ///< of one expert, or of the dense feed-forward
  index_t shared_intermediate = 0;  ///< of a shared expert in addition to the chosen ones; 0: none
  bool tied_head = false;           ///< the head is the embedding, transposed
  float norm_epsilon = 1e-5f;       ///< ε of every norm
  double rotary_base = 10000.0;     ///< base of the rotary frequencies
  route_options route{.gates = gate_kind::renormalized};  ///< of every mixture
  /// Experts of each layer that the flat buffer has; the others are on other ranks. −1: all. config_of_rank sets it.
  index_t experts_here = -1;
  float balance_loss = 0.01f;  ///< coefficient of the load-balance loss of each layer
  float z_loss = 0.0f;         ///< coefficient of the router's z-loss of each layer

  /// Experts of each layer that the flat buffer has.
  [[nodiscard]] constexpr index_t held() const noexcept {
    return experts_here < 0 ? experts : experts_here;
  }
  /// Width of one head.
  [[nodiscard]] constexpr index_t head_dim() const noexcept { return width / heads; }
  /// Width of queries, keys and values together.
  [[nodiscard]] constexpr index_t qkv_width() const noexcept {
    return (heads + 2 * kv_heads) * head_dim();
  }
};

/// One tensor of the flat parameter buffer.
struct model_parameter {
  char name[48] = {};   ///< "layers.3.experts.up": unique, the name in a checkpoint
  offset_t offset = 0;  ///< of its first element in the flat buffer
  int rank = 1;         ///< axes, 1 to 3
  axes<3> extents{};    ///< the first `rank` count
  bool decays = true;   ///< weight decay acts on it (matrices; not norms)
  /// Elements.
  [[nodiscard]] constexpr offset_t size() const noexcept {
    offset_t n = 1;
    for (int d = 0; d < rank; ++d) n *= extents[static_cast<std::size_t>(d)];
    return n;
  }
};

/// Calls f(model_parameter const&) for each tensor, in the order of the flat buffer, without gaps.
/// Those that decay come first:
///   embedding [V,W] · head [V,W] (not tied) · for each layer
///   layers.N.attention.qkv [(heads + 2 kv_heads) D, W] (queries, keys, values) ·
///   layers.N.attention.out [W, heads D] · layers.N.gate [E,W] · layers.N.experts.up [E,2I,W] (gate
///   half, then linear half) · layers.N.experts.down [E,W,I] · layers.N.shared.up [2Is,W] ·
///   layers.N.shared.down [W,Is], or, dense, layers.N.dense.up [2I,W] · layers.N.dense.down [W,I];
/// then the norms: layers.N.attention.norm [W] · layers.N.feed.norm [W] · norm [W].
template <class F> void for_each_parameter(model_config const& config, F&& f) {
  offset_t offset = 0;
  auto emit = [&](bool decays, int rank, axes<3> extents, char const* format, int layer = 0) {
    model_parameter p;
    std::snprintf(p.name, sizeof p.name, format, layer);
    p.offset = offset;
    p.rank = rank;
    p.extents = extents;
    p.decays = decays;
    offset += p.size();
    f(static_cast<model_parameter const&>(p));
  };
  offset_t const w = config.width, i = config.intermediate, e = config.experts;
  offset_t const s = config.shared_intermediate, d = config.head_dim(), held = config.held();
  emit(true, 2, {{config.vocabulary, w}}, "embedding");
  if (!config.tied_head) emit(true, 2, {{config.vocabulary, w}}, "head");
  for (int n = 0; n < config.layers; ++n) {
    emit(true, 2, {{config.qkv_width(), w}}, "layers.%d.attention.qkv", n);
    emit(true, 2, {{w, config.heads * d}}, "layers.%d.attention.out", n);
    if (config.dense) {
      emit(true, 2, {{2 * i, w}}, "layers.%d.dense.up", n);
      emit(true, 2, {{w, i}}, "layers.%d.dense.down", n);
      continue;
    }
    emit(true, 2, {{e, w}}, "layers.%d.gate", n);
    emit(true, 3, {{held, 2 * i, w}}, "layers.%d.experts.up", n);
    emit(true, 3, {{held, w, i}}, "layers.%d.experts.down", n);
    if (s > 0) {
      emit(true, 2, {{2 * s, w}}, "layers.%d.shared.up", n);
      emit(true, 2, {{w, s}}, "layers.%d.shared.down", n);
    }
  }
  for (int n = 0; n < config.layers; ++n) {
    emit(false, 1, {{w}}, "layers.%d.attention.norm", n);
    emit(false, 1, {{w}}, "layers.%d.feed.norm", n);
  }
  emit(false, 1, {{w}}, "norm");
}

/// Elements of the flat buffer.
[[nodiscard]] inline offset_t parameter_count(model_config const& config) noexcept {
  offset_t count = 0;
  for_each_parameter(config, [&](model_parameter const& p) { count += p.size(); });
  return count;
}
/// Of them: those that weight decay acts on; they come first.
[[nodiscard]] inline offset_t decayed_count(model_config const& config) noexcept {
  offset_t count = 0;
  for_each_parameter(config, [&](model_parameter const& p) { count += p.decays ? p.size() : 0; });
  return count;
}
/// Parameters that one token meets: of E experts only K count, of the embedding one row.
[[nodiscard]] inline offset_t active_parameters(model_config const& config) noexcept {
  offset_t count = 0;
  for_each_parameter(config, [&](model_parameter const& p) {
    bool const per_expert = p.rank == 3;
    count += per_expert ? p.size() / config.experts * config.top_k : p.size();
  });
  if (!config.tied_head) count -= offset_t{config.vocabulary - 1} * config.width;
  return count;
}
/// Floating-point operations of one token's forward pass in a sequence of `length`: two for each
/// multiply-add of the matrices it meets and of causal attention (half of length² scores). A training
/// step takes three times that.
[[nodiscard]] inline double forward_flops(model_config const& config, index_t length) noexcept {
  double const norms = static_cast<double>(parameter_count(config) - decayed_count(config));
  double matrices = static_cast<double>(active_parameters(config)) - norms;
  if (!config.tied_head) matrices -= static_cast<double>(config.width);  // the embedding's row
  double const widths = static_cast<double>(config.layers) * static_cast<double>(config.width);
  return 2.0 * __builtin_fma(widths, static_cast<double>(length) + 1, matrices);
}

namespace detail {
/// parameter_count in double: close, and right where the count does not fit 64 bits. Rows of `width`,
/// counted by fma, as no product may feed an addition.
[[nodiscard]] inline double approximate_parameters(model_config const& c) noexcept {
  double const i = c.intermediate, e = c.experts, s = c.shared_intermediate;
  double const others = static_cast<double>(c.width) + c.qkv_width() + 2;  // attention and norms
  double const layer = c.dense ? __builtin_fma(3.0, i, others)
                               : __builtin_fma(3 * e, i, __builtin_fma(3.0, s, e + others));
  double const tables = c.tied_head ? 1.0 : 2.0;
  return c.width * __builtin_fma(tables, c.vocabulary, __builtin_fma(c.layers, layer, 1.0));
}
}  // namespace detail

namespace detail {
/// What one process refuses: experts that are elsewhere.
[[nodiscard]] inline status has_all_experts(char const* who, model_config const& c) noexcept {
  if (c.dense || c.held() == c.experts) return {};
  return status::fail(error::bad_argument,
                      "%s: model_config.experts_here is %d; it must be -1 or %d (experts): see "
                      "nn/model_across.hpp",
                      who, c.experts_here, c.experts);
}
}  // namespace detail

/// Whether the numbers fit each other, and all offsets and bytes of the parameters 63 bits.
[[nodiscard]] inline status check_config(model_config const& c) noexcept {
  constexpr offset_t most = 1 << 24;
  if (status bad = first_of(check::between("model_config.vocabulary", c.vocabulary, 1, most),
                            check::between("model_config.layers", c.layers, 0, 1 << 14),
                            check::between("model_config.width", c.width, 1, most),
                            check::between("model_config.heads", c.heads, 1, c.width),
                            check::between("model_config.kv_heads", c.kv_heads, 1, c.heads),
                            check::between("model_config.context", c.context, 1, most),
                            check::between("model_config.intermediate", c.intermediate, 1, most));
      !bad.ok()) {
    return bad;
  }
  if (c.width % c.heads != 0 || c.heads % c.kv_heads != 0) {
    return status::fail(error::bad_argument,
                        "model_config: width %d, heads %d, kv_heads %d; each must be a multiple of "
                        "the next",
                        c.width, c.heads, c.kv_heads);
  }
  if (status bad = c.dense ? status{}
                           : first_of(check::between("model_config.experts", c.experts, 1, most),
                                      check::between("model_config.top_k", c.top_k, 1, c.experts),
                                      check::between("model_config.shared_intermediate",
                                                     c.shared_intermediate, 0, most),
                                      check::between("model_config.experts_here", c.experts_here,
                                                     -1, c.experts));
      !bad.ok()) {
    return bad;
  }
  if (double const all = detail::approximate_parameters(c); all >= 0x1p58) {
    return status::fail(error::too_large,
                        "model_config has %g parameters; there must be fewer than 2^58", all);
  }
  return {};
}

}  // namespace SHUNT_ABI
}  // namespace shunt::nn
