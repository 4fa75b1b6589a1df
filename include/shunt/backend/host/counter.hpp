#pragma once
#include "shunt/backend/host/simd/isa.hpp"
#include "shunt/core/counter.hpp"
#include "shunt/core/status.hpp"

namespace shunt::detail {
inline namespace SHUNT_ABI {

template <> struct counter_backend<on_host> {
  template <class I> static status advance(on_host const&, view<I, 1> counter, I by) noexcept {
    for (offset_t i = 0; i < counter.extent(0); ++i) counter[i] = advanced(counter[i], by);
    return {};
  }
};

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
