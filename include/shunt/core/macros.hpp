#pragma once
#include "shunt/core/compiler.hpp"

/// The library's only macros beside SHUNT_VERSION: how one source serves host and device compilers.
#if defined(__CUDACC__)
#define SHUNT_HD __host__ __device__
#else
#define SHUNT_HD
#endif
