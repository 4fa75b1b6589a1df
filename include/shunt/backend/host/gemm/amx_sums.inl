// No include guard: the micro-kernel of products by the tiles of AMX: a block of sums held in four tiles.

/// A block of sums, of one or two tiles by one or two panels: the first tiles of both operands, and how far the
/// second ones lie behind them.
struct amx_block {
  char const *left, *right;
  std::int64_t left_row,
      left_step;  ///< bytes to a left tile's next row, and to the next step's tile
  std::int64_t left_apart, right_apart, steps;
  float* sums;
  std::int64_t row, second_row;  ///< floats to the next row, and to the second tile's first one
  bool resume;
};

/// Over every step, `lines` cache lines of what comes next are asked for. A function of its own: tests/two_units
/// reads its code.
template <amx_terms Terms, int Tiles, int Panels>
__attribute__((noinline)) void amx_sums(amx_block const& at, prefetch_cursor& next,
                                        std::int64_t lines) noexcept {
  // Copies: assembly may write all that lies in memory.
  char const *left = at.left, *right = at.right;
  std::int64_t const left_row = at.left_row, left_step = at.left_step, steps = at.steps;
  std::int64_t const left_apart = at.left_apart, right_apart = at.right_apart;
  std::int64_t const row = at.row * static_cast<std::int64_t>(sizeof(float));
  auto const each_sum = [&](auto body) __attribute__((always_inline)) {
    unroll<Tiles>([&](auto t) __attribute__((always_inline)) {
      unroll<Panels>([&](auto p) __attribute__((always_inline)) {
        body(std::integral_constant<int, 2 * t.value + p.value>{},
             at.sums + t.value * at.second_row + p.value * panel_columns);
      });
    });
  };
  if (at.resume) {
    each_sum([&](auto i, float* c) __attribute__((always_inline)) { amx_load<i.value>(c, row); });
  } else {
    each_sum([&](auto i, float*) __attribute__((always_inline)) { amx_zero<i.value>(); });
  }
  std::int64_t const batches = (lines + prefetch_width - 1) / prefetch_width;
  for (std::int64_t step = 0; step < steps; ++step) {  // each operand just before its first use
    amx_load<6>(right, amx_row);
    amx_load<4>(left, left_row);
    amx_dots<Terms, 0, 4, 6>();
    if constexpr (Panels == 2) {
      amx_load<7>(right + right_apart, amx_row);
      amx_dots<Terms, 1, 4, 7>();
    }
    if constexpr (Tiles == 2) {
      amx_load<5>(left + left_apart, left_row);
      amx_dots<Terms, 2, 5, 6>();
      if constexpr (Panels == 2) amx_dots<Terms, 3, 5, 7>();
    }
    left += left_step;
    right += amx_tile;
    if (batches == 0) continue;
    prefetch_batch ask = next_prefetch_batch(next, batches * prefetch_width, 1, at.sums);
    std::int64_t const on = ask.apart == 0 ? 0 : next.parts > 1 ? 64 : 64 * prefetch_width;
    for (std::int64_t i = 0; i < batches; ++i, ask.at += on) {
      unroll<prefetch_width>([&](auto j) __attribute__((always_inline)) {
        __builtin_prefetch(ask.at + j.value * ask.apart, 0, 2);
      });
    }
  }
  each_sum([&](auto i, float* c) __attribute__((always_inline)) { amx_store<i.value>(c, row); });
}

/// All `tiles` heights of rows times one or two panels that are ready; of each step `lines` are asked for.
template <amx_terms Terms>
void amx_multiply(std::int64_t tiles, std::int64_t panels, amx_block at, prefetch_cursor& next,
                  std::int64_t lines) noexcept {
  for (std::int64_t t = 0; t < tiles; t += 2) {
    if (tiles - t > 1) {
      panels > 1 ? amx_sums<Terms, 2, 2>(at, next, lines) : amx_sums<Terms, 2, 1>(at, next, lines);
    } else {
      panels > 1 ? amx_sums<Terms, 1, 2>(at, next, lines) : amx_sums<Terms, 1, 1>(at, next, lines);
    }
    at.left += 2 * at.left_apart;
    at.sums += 2 * at.second_row;
  }
}
