#pragma once
#include "shunt/core/abi.hpp"
#include "shunt/core/arena.hpp"
#include "shunt/core/view.hpp"
#include "shunt/nn/detail/angle.hpp"

/// What the primitives of nn hand to a backend once the arguments are checked, and the numbers that
/// stand in their arithmetic, so that every backend keeps them. A backend is a specialization of the
/// templates at the end.
namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

/// Pieces of `each` that n makes.
SHUNT_HD constexpr offset_t pieces_of(offset_t n, offset_t each) noexcept {
  return (n + each - 1) / each;
}

template <class T, class W> struct rms_norm_args {
  T const* x;
  offset_t x_row;
  T const* add;  // null: no residual
  offset_t add_row;
  T* sum;
  offset_t sum_row;
  W const* weight;
  T* y;
  offset_t y_row;
  float* inverse;  // null: not wanted
  offset_t inverse_step;
  offset_t width;
  float epsilon;
};

template <class T, class W> struct rms_norm_backward_args {
  T const* x;
  offset_t x_row;
  W const* weight;
  float const* inverse;
  offset_t inverse_step;
  T const* d_y;
  offset_t d_y_row;
  T const* add;  // null: nothing is added to dx
  offset_t add_row;
  T* d_x;  // null: not wanted
  offset_t d_x_row;
  offset_t width;
};

inline constexpr offset_t norm_block = 64;  // tokens whose share of dw is one partial row

template <space S>
float* carve_norm_backward(arena<S>& a, offset_t tokens, offset_t width) noexcept {
  return a.template take<float>(pieces_of(tokens, norm_block) * width);
}

/// Position of the first token of each sequence: one number, or read when the kernel runs. Instruction
/// sets' regions are handed the number, as they call no function that is shared with the rest.
struct first_positions {
  offset_t number = 0;
  index_t const* at = nullptr;  // null: `number`
  offset_t step = 0;            // from a sequence to the next; 0: one for all

  [[nodiscard]] SHUNT_HD offset_t of(offset_t sequence) const noexcept {
    return at == nullptr ? number : at[sequence * step];
  }
};

template <class T> struct rotary_args {
  T* x;
  offset_t batch_step, token_step, head_step;
  offset_t length, heads, pairs;
  first_positions first;
  offset_t positions;  // rows of the table
  float const *cosine, *sine;
  offset_t cosine_row, sine_row;
  float turn;  // 1, or -1 for the way back
  bool adjacent;
};

template <class T> struct embedding_args {
  T const* table;
  offset_t table_row, entries;
  index_t const* id;
  offset_t id_step;
  T* rows;
  offset_t row, width;
};
template <class T> struct embedding_backward_args {
  T const* rows;
  offset_t row;
  index_t const* id;
  offset_t id_step;
  float* table;
  offset_t table_row, entries, tokens, width;
  bool accumulate;
};

struct cross_entropy_args {
  float* logits;
  offset_t logits_row;
  index_t const* target;
  offset_t target_step;
  float* loss;
  offset_t loss_step, vocabulary;
  float scale;
  offset_t const* valid;  // targets that count

  /// What the gradients of one token are multiplied with.
  [[nodiscard]] SHUNT_HD float share() const noexcept {
    return *valid == 0 ? 0.0f : scale / static_cast<float>(*valid);
  }
};

// Tokens whose logits are in memory at a time. It stands in the order of d_weight's sums; 256 rows
// fill the GEMM's blocks and keep 1 KB of logits a token of a byte vocabulary in L2.
inline constexpr offset_t cross_entropy_chunk = 256;

struct cross_entropy_scratch {
  float *logits, *loss;
  offset_t* valid;
};
template <space S>
cross_entropy_scratch carve_cross_entropy(arena<S>& a, offset_t tokens,
                                          offset_t vocabulary) noexcept {
  offset_t const chunk = tokens < cross_entropy_chunk ? tokens : cross_entropy_chunk;
  return {.logits = a.template take<float>(chunk * vocabulary),
          .loss = a.template take<float>(tokens),
          .valid = a.template take<offset_t>(1)};
}

/// What the number of a step and its rate come to.
struct adamw_factors {
  float unbias1, unbias2;  // 1 / (1 - beta^step)
  float rate, keep;        // keep = 1 - rate * weight_decay
  bool usable;             // false: a step below 1 or a rate that is not finite; nothing may change
};

template <class T> struct adamw_args {
  float const* gradient;
  float *parameter, *first_moment, *second_moment;
  T* copy;                      // null: none
  float const* norm;            // null: no clipping, no check
  std::int64_t const* step_at;  // null: `step`; else read when the kernel runs
  float const* rate_at;         // null: `rate`; likewise
  std::int64_t step;
  float clip, beta1, beta2, rest1, rest2, epsilon, rate, weight_decay;

  [[nodiscard]] SHUNT_HD adamw_factors factors() const noexcept {
    std::int64_t const n = step_at == nullptr ? step : *step_at;
    float const eta = rate_at == nullptr ? rate : *rate_at;
    double const one = 1.0;
    // fma, as no product may feed a subtraction; that of the two floats is exact anyway.
    auto const unbias = [&](float beta) {
      return static_cast<float>(one /
                                __builtin_fma(-one, power_of(static_cast<double>(beta), n), one));
    };
    double const keep =
        __builtin_fma(-static_cast<double>(eta), static_cast<double>(weight_decay), one);
    bool const usable = n >= 1 && eta - eta == 0.0f;
    return {unbias(beta1), unbias(beta2), eta, static_cast<float>(keep), usable};
  }

  /// What gradients are multiplied with; below 0: their norm is not finite, nothing may change.
  [[nodiscard]] SHUNT_HD float scale() const noexcept {
    if (norm == nullptr) return 1.0f;
    if (!(*norm < __builtin_inff())) return -1.0f;
    return clip > 0.0f && *norm > clip ? clip / *norm : 1.0f;
  }
};

inline constexpr offset_t norm_piece = 4096;  // elements of one partial sum of squares

template <space S> float* carve_gradient_norm(arena<S>& a, offset_t count) noexcept {
  return a.template take<float>(pieces_of(count, norm_piece));
}

// 64 keys stand in the arithmetic of attention (where the online softmax takes a new peak); a cache's
// rows of values are padded to 32.
inline constexpr offset_t attention_keys = 64, attention_strip = 32;

constexpr offset_t attention_padded(offset_t n, offset_t to) noexcept {
  return pieces_of(n, to) * to;
}

template <class T, space S> struct attention_call {
  view<T const, 4, S> q, k, v;
  view<T, 4, S> out;
  view<float, 3, S> log_sum;  // null: not wanted
  float scale;
};
template <class T, space S> struct attention_backward_call {
  view<T const, 4, S> q, k, v, out, d_out;
  view<T, 4, S> d_q, d_k, d_v;
  view<float const, 3, S> log_sum;
  float scale;
};

template <class P> struct norm_backend;
template <class P> struct linear_backend;
template <class P> struct rotary_backend;
template <class P> struct embedding_backend;
template <class P> struct cross_entropy_backend;
template <class P> struct optimizer_backend;
template <class P> struct attention_backend;
template <class P> struct block_backend;
template <class P> struct model_backend;

}  // namespace detail

/// Where the new tokens of each sequence begin: one position for all sequences, or numbers in the
/// policy's memory that are read when the kernel runs: [1], for all sequences, or [B]. A captured CUDA
/// graph can then be replayed at later positions, which advance() (counter.hpp) makes.
template <space S = space::host> class token_positions {
 public:
  constexpr token_positions(index_t number = 0) noexcept : number_(number) {}    ///< one for all
  constexpr token_positions(view<index_t const, 1, S> at) noexcept : at_(at) {}  ///< [1] or [B]
  constexpr token_positions(view<index_t, 1, S> at) noexcept : at_(at) {}        ///< [1] or [B]

  /// The one number; 0 where memory is read.
  [[nodiscard]] constexpr index_t number() const noexcept { return number_; }
  /// The numbers in memory; null where number() says it.
  [[nodiscard]] constexpr view<index_t const, 1, S> memory() const noexcept { return at_; }
  /// Whether the kernel reads the positions from memory.
  [[nodiscard]] constexpr bool in_memory() const noexcept { return at_.data() != nullptr; }
  /// Whether sequences have positions of their own.
  [[nodiscard]] constexpr bool per_sequence() const noexcept {
    return in_memory() && at_.extent(0) != 1;
  }

 private:
  index_t number_ = 0;
  view<index_t const, 1, S> at_;
};

namespace detail {
template <space S>
[[nodiscard]] constexpr first_positions positions_of(token_positions<S> const& p) noexcept {
  if (!p.in_memory()) return {p.number(), nullptr, 0};
  return {0, p.memory().data(), p.per_sequence() ? p.memory().stride(0) : 0};
}
}  // namespace detail

/// B sequences of S tokens; heads a multiple of kv_heads (grouped queries).
struct attention_shape {
  /// B, S, heads, kv_heads and the heads' width D, in this order.
  index_t batch = 0, length = 0, heads = 0, kv_heads = 0, head_dim = 0;
};

/// Keys and values of past tokens, in memory of the caller, laid out as attention reads them: the
/// keys of each sequence and head in panels [key / 64][D][64], the values in rows padded to 32.
/// The memory needs no initial value. One per layer.
template <class T, space S = space::host> struct kv_cache {
  T* memory = nullptr;  ///< elements() of T
  /// Sequences, tokens that a sequence may have, heads, and their width D, in this order.
  index_t batch = 0, capacity = 0, kv_heads = 0, head_dim = 0;

  /// Tokens a sequence, up to whole panels.
  [[nodiscard]] SHUNT_HD constexpr offset_t padded() const noexcept {
    return detail::pieces_of(capacity, detail::attention_keys) * detail::attention_keys;
  }
  /// Width of a row of values, padding included.
  [[nodiscard]] SHUNT_HD constexpr offset_t wide() const noexcept {
    return detail::pieces_of(head_dim, detail::attention_strip) * detail::attention_strip;
  }
  /// Elements that `memory` must have.
  [[nodiscard]] constexpr offset_t elements() const noexcept {
    return offset_t{batch} * kv_heads * padded() * (head_dim + wide());
  }
  /// Of sequence and head `part` = sequence · kv_heads + head.
  [[nodiscard]] SHUNT_HD constexpr T* keys(offset_t part = 0) const noexcept {
    return memory + part * padded() * head_dim;
  }
  /// The same of the values.
  [[nodiscard]] SHUNT_HD constexpr T* values(offset_t part = 0) const noexcept {
    return memory + (offset_t{batch} * kv_heads * head_dim + part * wide()) * padded();
  }
};

}  // namespace SHUNT_ABI
}  // namespace shunt::nn
