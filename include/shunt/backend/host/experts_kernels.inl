// No include guard: what the experts' products do with their sums, and the activations by rows.

/// value += bias.
__attribute__((noinline)) inline void add_bias(gemm_experts<void const> const& bias,
                                               std::int64_t expert, std::int64_t n,
                                               std::int64_t count, float* value) noexcept {
  with_element_type(bias.type, [&](auto* tag) {
    using element = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    if (bias.row_stride == 1 && (bias.pairs.half_rows == 0 || bias.pairs.block == 0)) {
      element const* const from = row_of<element const>(bias, expert, n);
      std::int64_t j = 0;
      for (; j + lanes <= count; j += lanes) store(value + j, load(value + j) + load(from + j));
      std::int64_t const left = count - j;
      if (left > 0) store(value + j, load(value + j) + load_first(from + j, left));
    } else {
      for (std::int64_t j = 0; j < count; ++j) {
        value[j] = value[j] + load_first(row_of<element const>(bias, expert, n + j), 1)[0];
      }
    }
  });
}

/// Rounds a piece of a row to T and back: what a reader of the stored row would see.
template <class T> SHUNT_INLINE void round_row(float* value, std::int64_t count) noexcept {
  T piece[lanes];
  for (std::int64_t i = 0; i < count; i += lanes) {
    store(piece, load(value + i));
    store(value + i, load(piece));
  }
}

/// Keeps a piece of a row of pre-activations, where asked, and leaves what was kept: rounded. Of any type, as an
/// option says it.
__attribute__((noinline)) inline void keep_row(expert_finish const& to, std::int64_t row,
                                               std::int64_t n, float* value,
                                               std::int64_t count) noexcept {
  bool const keeps = to.pre.data != nullptr;
  with_element_type(keeps ? to.pre.type : to.c.type, [&](auto* tag) {
    using element = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    if (keeps) {
      put_row(value, count, false, static_cast<element*>(to.pre.data) + row * to.pre.stride + n);
    }
    if constexpr (sizeof(element) < sizeof(float)) round_row<element>(value, count);
  });
}

/// Sums + bias, kept as pre-activations where asked, activation, row factor, output. The activation
/// sees what was kept: rounded.
template <class Output>
void epilogue_forward(gemm_job const& job, gemm_block const& block) noexcept {
  expert_finish const& to = *static_cast<expert_finish const*>(job.epilogue_context);
  bool const keeps = to.pre.data != nullptr || (to.round_pre && to.c.type != element_type::f32);
  int const halves = block.second != nullptr ? 2 : 1;
  std::int64_t const half_columns = job.n / 2;
  for (std::int64_t r = 0; r < block.rows; ++r) {
    float* const part[2] = {block.first + r * block.stride,
                            halves == 2 ? block.second + r * block.stride : nullptr};
    for (int h = 0; h < halves; ++h) {
      std::int64_t const n = h * half_columns + block.column;
      if (to.bias.data != nullptr || to.bias.each != nullptr) {
        add_bias(to.bias, block.expert, n, block.columns, part[h]);
      }
      if (keeps) keep_row(to, block.row + r, n, part[h], block.columns);
    }
    bool const apart = halves == 2 && !to.activation.gated;  // a plain activation of each half
    activate(to.activation, part[0], part[1], part[0], block.columns);
    if (apart) activate(to.activation, part[1], nullptr, part[1], block.columns);
    with_known<Output>(to.c.type, [&](auto* tag) {
      using element = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
      put_sums<element>(to.c, block.row + r, block.column, part[0], block.columns);
      if (apart) {
        put_sums<element>(to.c, block.row + r, half_columns + block.column, part[1], block.columns);
      }
    });
  }
}

/// d_bias[n] (+)= sum of the expert's rows of dc, in row order.
template <class Left>
void bias_gradient(gemm_job const& job, expert_grads const& to, gemm_block const& block) noexcept {
  float* const out = to.d_bias + block.expert * to.d_bias_expert;
  float sums[gemm_block_rows + lanes];
  zero_row(sums, gemm_block_rows + lanes);
  with_known<Left>(job.a.type, [&](auto* tag) {
    using element = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    for (std::int64_t i = 0; i < block.segment_rows; ++i) {
      std::int64_t const r = block.segment_first + i;
      element const* const row = row_of<element>(job.a, r);
      if (row == nullptr) continue;
      vf const scale = fill(scale_of(job.a.scale, r));
      bool const scaled = job.a.scale.factor != nullptr;
      for (std::int64_t n = 0; n < block.rows; n += lanes) {
        std::int64_t const left = block.rows - n;
        vf const x =
            left >= lanes ? load(row + block.row + n) : load_first(row + block.row + n, left);
        vf const sum = load(sums + n);
        store(sums + n, scaled ? fma(scale, x, sum) : sum + x);
      }
    }
  });
  for (std::int64_t n = 0; n < block.rows; ++n) {
    float* const at = out + physical_row(to.dw.pairs, block.row + n) * to.d_bias_row;
    *at = to.accumulate ? *at + sums[n] : sums[n];
  }
}

/// Whole cache lines of floats, to where no cache needs them.
SHUNT_INLINE void stream_lines(float const* from, std::int64_t count, float* to) noexcept {
  for (std::int64_t i = 0; i < count; i += lanes) store_nontemporal(to + i, load(from + i));
}

/// Sums to the caller's weight gradients, wherever their rows lie.
template <class Left>
void epilogue_gradient(gemm_job const& job, gemm_block const& block) noexcept {
  expert_grads const& to = *static_cast<expert_grads const*>(job.epilogue_context);
  gemm_pairs const pairs = to.dw.pairs;
  float* row = nullptr;
  for (std::int64_t r = 0; r < block.rows; ++r) {
    std::int64_t const n = block.row + r;
    bool const next = r > 0 && pairs.block == 0 && n != pairs.half_rows;  // behind the one before
    row = next ? row + to.dw.row_stride : row_of<float>(to.dw, block.expert, n);
    float const* const sums = block.first + r * block.stride;
    constexpr std::int64_t line = 16;
    if (job.nontemporal && block.columns % line == 0 &&
        reinterpret_cast<std::uintptr_t>(row + block.column) % 64 == 0) {
      stream_lines(sums, block.columns, row + block.column);
      continue;
    }
    if (to.dw.column_stride == 1) {
      put_row(sums, block.columns, to.accumulate, row + block.column);
      continue;
    }
    for (std::int64_t j = 0; j < block.columns; ++j) {
      float* const at = row + (block.column + j) * to.dw.column_stride;
      *at = to.accumulate ? *at + sums[j] : sums[j];
    }
  }
  if (to.d_bias != nullptr && block.column == 0) bias_gradient<Left>(job, to, block);
}

/// One packed panel: 16 rows side by side for each column.
template <class T>
void pack_panel(gemm_experts<void const> const& from, std::int64_t N, std::int64_t K,
                std::int64_t expert, std::int64_t panel, T* packed) noexcept {
  std::int64_t const half = from.pairs.half_rows;
  std::int64_t const half_panels = (half + panel_columns - 1) / panel_columns;
  bool const up = half != 0 && panel >= half_panels;
  std::int64_t const first = (up ? panel - half_panels : panel) * panel_columns;
  std::int64_t const most = half != 0 ? half : N;
  for (int j = 0; j < panel_columns; ++j) {
    bool const inside = first + j < most;
    std::int64_t const n = (up ? half : 0) + (inside ? first + j : 0);
    T const* const row = row_of<T const>(from, expert, n);
    for (std::int64_t k = 0; k < K; ++k) {
      packed[k * panel_columns + j] = inside ? row[k * from.column_stride] : T{};
    }
  }
}

inline constexpr std::int64_t piece_columns = 128;  // of a row, whose floats stay in L1

/// Elements [first, first + count) of a row as floats, zero up to the next strip.
template <class Void>
void read_piece(element_type type, Void const* data, std::int64_t at, std::int64_t count,
                float* to) noexcept {
  with_element_type(type, [&](auto* tag) {
    using element = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    widen_row(static_cast<element const*>(data) + at, count, to);
  });
  for (std::int64_t i = count; i % strip_width != 0; ++i) to[i] = 0.0f;
}
template <class Store>
void write_piece(Store const& to, std::int64_t row, std::int64_t column, float* from,
                 std::int64_t count) noexcept {
  with_element_type(to.type, [&](auto* tag) {
    using element = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    put_row(from, count, false, static_cast<element*>(to.data) + row * to.stride + column);
  });
}

/// out = activation(pre) times the row's factor, for rows [first, last).
template <class Job>
void activate_rows(Job const& job, std::int64_t first, std::int64_t last) noexcept {
  float gate[piece_columns], up[piece_columns];
  for (std::int64_t r = first; r < last; ++r) {
    vf const scale = fill(scale_of(job.scale, r));
    for (std::int64_t c = 0; c < job.columns; c += piece_columns) {
      std::int64_t const count = job.columns - c < piece_columns ? job.columns - c : piece_columns;
      std::int64_t const at = r * job.pre.stride + c;
      read_piece(job.pre.type, job.pre.data, at, count, gate);
      if (job.code.gated) read_piece(job.pre.type, job.pre.data, at + job.columns, count, up);
      activate(job.code, gate, up, gate, count);
      for (std::int64_t i = 0; i < count; i += lanes) store(gate + i, load(gate + i) * scale);
      write_piece(job.act, r, c, gate, count);
    }
  }
}

/// The gradients of rows [first, last).
template <class Job>
void activate_rows_backward(Job const& job, std::int64_t first, std::int64_t last) noexcept {
  float gate[piece_columns], up[piece_columns], d_act[piece_columns];
  float value[piece_columns], d_gate[piece_columns], d_up[piece_columns];
  for (std::int64_t r = first; r < last; ++r) {
    bool const padding = job.scale.slot != nullptr && job.scale.slot[r] < 0;
    vf const scale = fill(scale_of(job.scale, r));
    float dot = 0.0f;
    for (std::int64_t c = 0; c < job.columns; c += piece_columns) {
      std::int64_t const count = job.columns - c < piece_columns ? job.columns - c : piece_columns;
      if (padding) {
        zero_row(value, count);
        zero_row(d_gate, count);
        zero_row(d_up, count);
      } else {
        std::int64_t const at = r * job.pre.stride + c;
        read_piece(job.pre.type, job.pre.data, at, count, gate);
        if (job.code.gated) read_piece(job.pre.type, job.pre.data, at + job.columns, count, up);
        read_piece(job.d_act.type, job.d_act.data, r * job.d_act.stride + c, count, d_act);
        activate_slopes(job.code, gate, up, value, d_gate, d_up, count);
        for (std::int64_t i = count; i % strip_width != 0; ++i) value[i] = 0.0f;
        for (std::int64_t i = 0; i < count; i += strip_width) {
          strip part;
          for (int s = 0; s < strip_vectors; ++s) {
            part.part[s] = product(load(d_act + i + s * lanes), load(value + i + s * lanes));
          }
          dot = dot + sum_of(part);
        }
        for (std::int64_t i = 0; i < count; i += lanes) {
          vf const d = load(d_act + i) * scale;
          store(value + i, load(value + i) * scale);
          store(d_gate + i, d * load(d_gate + i));
          if (job.code.gated) store(d_up + i, d * load(d_up + i));
        }
      }
      write_piece(job.d_pre, r, c, d_gate, count);
      if (job.code.gated) write_piece(job.d_pre, r, job.columns + c, d_up, count);
      if (job.act.data != nullptr) write_piece(job.act, r, c, value, count);
    }
    if (job.d_scale != nullptr) job.d_scale[r] = padding ? 0.0f : dot;
  }
}

#if defined(SHUNT_ONCE)
#include "shunt/backend/host/experts_once.inl"
#endif
