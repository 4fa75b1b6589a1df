// No include guard: rows of a table, there and back.
namespace nn {

template <class T>
void gather_rows(embedding_args<T> const& a, std::int64_t first, std::int64_t last) noexcept {
  for (std::int64_t t = first; t < last; ++t) {
    index_t const id = a.id[t * a.id_step];
    T* const to = a.rows + t * a.row;
    T const* const from = a.table + id * a.table_row;
    for (std::int64_t i = 0; i < a.width; i += lanes) {
      store_up_to(to + i, id < 0 ? vf{} : load_up_to(from + i, a.width - i), a.width - i);
    }
  }
}

/// The columns [first, last) of the table's gradient: tokens one after another, so that each entry is
/// a chain of additions in token order, whoever owns the columns.
template <class T>
void scatter_columns(embedding_backward_args<T> const& a, std::int64_t first,
                     std::int64_t last) noexcept {
  if (!a.accumulate) {
    for (std::int64_t v = 0; v < a.entries; ++v) {
      for (std::int64_t i = first; i < last; i += lanes) {
        store_up_to(a.table + v * a.table_row + i, vf{}, last - i);
      }
    }
  }
  for (std::int64_t t = 0; t < a.tokens; ++t) {
    index_t const id = a.id[t * a.id_step];
    if (id < 0) continue;
    T const* const from = a.rows + t * a.row;
    float* const to = a.table + id * a.table_row;
    for (std::int64_t i = first; i < last; i += lanes) {
      store_up_to(to + i, load_up_to(to + i, last - i) + load_up_to(from + i, last - i), last - i);
    }
  }
}

}  // namespace nn
