// No include guard: pack A, the left operand of a product as a block of floats.

SHUNT_INLINE bool in_place(gemm_rows const& rows) noexcept {
  return rows.type == element_type::f32 && rows.slot == nullptr && rows.scale.factor == nullptr;
}

/// Elements [first, first + count) of rows [row, row + rows), as floats, one row each `to_stride`.
template <class Known>
void copy_rows(gemm_rows const& from, std::int64_t row, std::int64_t rows, std::int64_t first,
               std::int64_t count, float* to, std::int64_t to_stride) noexcept {
  with_known<Known>(from.type, [&](auto* tag) {
    using element = std::remove_cv_t<std::remove_pointer_t<decltype(tag)>>;
    for (std::int64_t r = 0; r < rows; ++r) {
      auto const* const at = row_of<element>(from, row + r);
      float* const out = to + r * to_stride;
      if (at == nullptr) {
        zero_row(out, count);
      } else if (from.scale.factor != nullptr) {
        widen_row_scaled(at + first, count, scale_of(from.scale, row + r), out);
      } else {
        widen_row(at + first, count, out);
      }
    }
  });
}

/// Rows [row, row + rows) of the left operand for the k of [k, k + depth): in place where they are
/// floats as they are needed, else as a block of floats.
template <class Job>
void pack_a(Job const& job, gemm_segment const& segment, std::int64_t row, std::int64_t rows,
            std::int64_t k, std::int64_t depth, float* block, tile_at& at) noexcept {
  using known = typename gemm_known<Job>::left;
  if (is<gemm_kind::wgrad>(job)) {  // copied always: the columns of a wide matrix share few sets
    at.a_stride = (rows + 15) / 16 * 16;
    copy_rows<known>(job.a, segment.first + k, depth, row, rows, block, at.a_stride);
    at.across = true;
    at.a = block;
  } else if (in_place(job.a)) {
    at.a = row_of<float>(job.a, segment.first + row) + k;
    at.a_stride = job.a.stride;
  } else {
    copy_rows<known>(job.a, segment.first + row, rows, k, depth, block, depth);
    at.a = block;
    at.a_stride = depth;
  }
}

/// body(piece, k) for the pieces of a few rows of it, k ascending: all k at once where they fit. Copied
/// always but one row: rows a power of two apart would share few sets of the caches with the weights. An
/// odd number of rows has one of zeros behind it.
template <class Job, class Body>
SHUNT_INLINE void for_each_a_piece(Job const& job, gemm_segment const& segment, std::int64_t row,
                                   std::int64_t rows, std::int64_t depth, float* block,
                                   Body&& body) noexcept {
  constexpr std::int64_t unit = 128;  // a multiple of what is decoded together, and of cache lines
  constexpr std::int64_t apart = 16;
  std::int64_t const even = rows + rows % 2;
  std::int64_t const room = (gemm_block_rows * gemm_depth / even - apart) / unit * unit;
  bool const there = rows == 1 && in_place(job.a);
  std::int64_t const most = there || depth < room ? depth : room;
  tile_at at{};
  for (std::int64_t k = 0; k < depth; k += most) {
    at.depth = depth - k < most ? depth - k : most;
    at.a_stride = at.depth + apart;
    if (there) {
      at.a = row_of<float>(job.a, segment.first + row) + k;
    } else {
      copy_rows<typename gemm_known<Job>::left>(job.a, segment.first + row, rows, k, at.depth,
                                                block, at.a_stride);
      if (even > rows) zero_row(block + rows * at.a_stride, at.depth);
      at.a = block;
    }
    body(at, k);
  }
}
