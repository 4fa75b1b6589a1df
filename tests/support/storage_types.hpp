#pragma once
#include <gtest/gtest.h>

#include "shunt/core/numeric.hpp"

namespace shunt::test {

/// What tokens, rows and weights are stored as: a suite of types runs once for each. The sanitizer
/// builds leave fp16 out: it touches the bytes that bf16 touches and differs in how they are
/// converted, and each type is a third of the time these builds take.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
using storage_types = testing::Types<float, bf16>;
#else
using storage_types = testing::Types<float, bf16, fp16>;
#endif

}  // namespace shunt::test
