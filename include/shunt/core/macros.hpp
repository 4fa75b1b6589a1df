#pragma once
#include "shunt/core/compiler.hpp"

/// The macros of device code: how one source serves host and device compilers.
#if defined(__CUDACC__)
#define SHUNT_HD __host__ __device__
#else
#define SHUNT_HD
#endif
