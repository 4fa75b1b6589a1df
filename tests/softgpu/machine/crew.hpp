#pragma once
// The host threads that run blocks. They stay from launch to launch, and a launch that is done
// before one of them comes does not wait for it: most launches of tests are tiny.

#include <cstddef>
#include <functional>

namespace softgpu {

/// Calls `work` here and on as many as `helpers` other threads at once. Returns when this call and
/// all that have begun are done. `work` must do all that is left to do, whoever else has begun.
void with_helpers(std::size_t helpers, std::function<void()> const& work);

}  // namespace softgpu
