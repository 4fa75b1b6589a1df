#pragma once
#include "shunt/backend/host/nn/lanes.hpp"
#include "shunt/backend/host/pool.hpp"
#include "shunt/nn/detail/args.hpp"

namespace shunt::host {
inline namespace SHUNT_ABI {

using shunt::nn::detail::embedding_args;
using shunt::nn::detail::embedding_backward_args;

}  // namespace SHUNT_ABI
}  // namespace shunt::host

#define SHUNT_REGION_FILE "shunt/backend/host/nn/embedding_kernels.inl"
#include "shunt/backend/host/simd/for_each_region.inl"

namespace shunt::host {
inline namespace SHUNT_ABI {

template <class T>
void embedding(on_host const& on, embedding_args<T> const& a, offset_t tokens) noexcept {
  auto* const kernel = SHUNT_ISA_PICK(on, nn::gather_rows<T>);
  parallel_ranges(on, tokens, 64,
                  [&](offset_t first, offset_t last, int) { kernel(a, first, last); });
}

template <class T>
void embedding_backward(on_host const& on, embedding_backward_args<T> const& a) noexcept {
  auto* const kernel = SHUNT_ISA_PICK(on, nn::scatter_columns<T>);
  parallel_ranges(on, a.width, 64,
                  [&](offset_t first, offset_t last, int) { kernel(a, first, last); });
}

}  // namespace SHUNT_ABI
}  // namespace shunt::host

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

template <> struct embedding_backend<on_host> {
  template <class T>
  static status forward(on_host const& on, embedding_args<T> const& a, offset_t tokens) noexcept {
    host::embedding(on, a, tokens);
    return {};
  }
  template <class T>
  static status backward(on_host const& on, embedding_backward_args<T> const& a) noexcept {
    host::embedding_backward(on, a);
    return {};
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
