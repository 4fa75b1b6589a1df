#pragma once
// States what Shunt needs of a compiler, in one sentence. The public headers include this file before any
// standard header that an older library lacks (<concepts>).
#if defined(__clang__) ? __clang_major__ < 14 : __GNUC__ < 11
#error "Shunt needs g++ 11 or later, or clang++ 14 or later"
#define SHUNT_STOP_
#elif __cplusplus < 202002L
#error "Shunt needs C++20 or later: compile with -std=c++20"
#define SHUNT_STOP_
#endif
// A missing file ends the compilation: after an #error alone hundreds of others follow.
#if defined(SHUNT_STOP_)
#include "the #error above says what is needed"
#endif
