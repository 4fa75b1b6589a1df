#pragma once
// The device functions that PTX calls without defining them: vprintf, __assertfail, malloc, free.

#include <string_view>

#include "machine/op.hpp"

namespace softgpu {

/// The handler of such a function; null where it is unknown. Its extras are the frame offsets of
/// the returned value (if any) and of the arguments.
handler find_builtin(std::string_view name);

}  // namespace softgpu
