#pragma once
#include "shunt/core/compiler.hpp"

// The library's version, the one place that says it: CMake reads this line for the package files.

/// major * 10000 + minor * 100 + patch. 0.2.0 is 200.
#define SHUNT_VERSION 200
