// A compiler older than those that the tests know is refused by one sentence.
// expect-error: Shunt needs g++ 11 or later, or clang++ 14 or later
#if !defined(SHUNT_EXPECT_OK) && defined(__clang__)
#undef __clang_major__
#define __clang_major__ 13
#elif !defined(SHUNT_EXPECT_OK)
#undef __GNUC__
#define __GNUC__ 10
#endif
#include <shunt/core/compiler.hpp>
