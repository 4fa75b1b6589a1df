#pragma once
#include <ggml-backend.h>
#include <ggml.h>
#if __has_include(<ggml-cpu.h>)
#include <ggml-cpu.h>
#endif

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <shunt/backend/host/pages.hpp>

#include "support/pages.hpp"

/// Weights as ggml has them. ik_llama.cpp's ggml (PEERS_GGML_FORK) has types of their own for weights in
/// its order; the other has kinds of memory whose contents are reordered when they are set.
namespace bench::peers {

struct freeing {
  void operator()(ggml_context* c) const { ggml_free(c); }
  void operator()(ggml_backend_buffer* b) const { ggml_backend_buffer_free(b); }
};
using context = std::unique_ptr<ggml_context, freeing>;
using buffer = std::unique_ptr<ggml_backend_buffer, freeing>;

/// For tensors whose memory is ours.
inline context make_context() {
  return context(ggml_init({.mem_size = 16 * ggml_tensor_overhead() + ggml_graph_overhead(),
                            .mem_buffer = nullptr,
                            .no_alloc = true}));
}

inline void quantize(ggml_type type, float const* from, void* to, std::int64_t start,
                     std::int64_t rows, std::int64_t columns) {
#ifdef PEERS_GGML_FORK
  ggml_quantize_chunk(type, from, to, start, rows, columns, nullptr, nullptr);
#else
  ggml_quantize_chunk(type, from, to, start, rows, columns, nullptr);
#endif
}

/// A matrix for each expert, [K,N,E] in ggml's order of extents.
class matrices {
 public:
  /// Memory of the problem's.
  matrices(ggml_type type, void const* data, std::size_t K, std::size_t N, std::size_t E)
      : matrices(type, K, N, E) {
    w_->data = const_cast<void*>(data);
  }
  /// Rounded from floats.
  static matrices rounded(ggml_type type, float const* from, std::size_t K, std::size_t N,
                          std::size_t E) {
    matrices made(type, K, N, E);
    made.bytes_.resize(ggml_nbytes(made.w_));
    made.w_->data = made.bytes_.data();
    ggml_quantize_init(type);
#pragma omp parallel for
    for (std::size_t e = 0; e < E; ++e) {
      quantize(type, from, made.w_->data, std::int64_t(e * N * K), std::int64_t(N),
               std::int64_t(K));
    }
    return made;
  }
  [[nodiscard]] ggml_tensor* tensor() const { return w_; }

#ifndef PEERS_GGML_FORK
  /// In the order of one of the backend's other kinds of memory; none where none of them has the
  /// product for `from` on this processor.
  static std::optional<matrices> repacked(matrices const& from) {
    auto const [K, N, E, one] = from.w_->ne;
    auto* const backend = ggml_backend_cpu_reg();
    auto* const device = ggml_backend_reg_dev_get(backend, 0);
    auto const kinds_of = reinterpret_cast<ggml_backend_dev_get_extra_bufts_t>(
        ggml_backend_reg_get_proc_address(backend, "ggml_backend_dev_get_extra_bufts"));
    if (kinds_of == nullptr) return {};
    for (auto* kind = kinds_of(device); kind != nullptr && *kind != nullptr; ++kind) {
      matrices made(from.w_->type, std::size_t(K), std::size_t(N), std::size_t(E));
      std::size_t const bytes = ggml_backend_buft_get_alloc_size(*kind, made.w_);
      made.memory_.reset(ggml_backend_buft_alloc_buffer(*kind, bytes));
      void* const base = ggml_backend_buffer_get_base(made.memory_.get());
      shunt::advise_huge_pages(base, bytes);
      ggml_backend_tensor_alloc(made.memory_.get(), made.w_, base);
      auto* const c = made.in_.get();
      auto* const product =
          ggml_mul_mat_id(c, made.w_, ggml_new_tensor_3d(c, GGML_TYPE_F32, K, 1, 1),
                          ggml_new_tensor_2d(c, GGML_TYPE_I32, 1, 1));
      if (!ggml_backend_dev_supports_op(device, product)) continue;
      ggml_backend_tensor_set(made.w_, from.w_->data, 0, ggml_nbytes(from.w_));
      return made;
    }
    return {};
  }
#endif

 private:
  matrices(ggml_type type, std::size_t K, std::size_t N, std::size_t E)
      : in_(make_context()),
        w_(ggml_new_tensor_3d(in_.get(), type, std::int64_t(K), std::int64_t(N), std::int64_t(E))) {
  }
  context in_;
  ggml_tensor* w_;
  paged<char> bytes_;
  buffer memory_;
};

#ifdef PEERS_GGML_FORK
/// The type of weights in the library's own order.
inline std::optional<ggml_type> packed_type(ggml_type of) {
  if (of == GGML_TYPE_Q8_0) return GGML_TYPE_Q8_0_R8;
  if (of == GGML_TYPE_MXFP4) return GGML_TYPE_MXFP4_R8;
  if (of == GGML_TYPE_BF16 && ggml_cpu_has_avx512_bf16()) return GGML_TYPE_BF16_R16;
  return {};
}
#endif

}  // namespace bench::peers
