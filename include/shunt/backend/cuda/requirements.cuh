#pragma once
// What the CUDA backend needs, in a sentence each. Every public .cuh includes this first, before
// anything that an older language or architecture would stumble over.
#if __cplusplus < 202002L
#error "Shunt needs C++20: compile with nvcc -std=c++20 (CMake: CMAKE_CUDA_STANDARD 20)"
#endif
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error \
    "Shunt's kernels need sm_80 or newer: take older architectures out of nvcc's -arch and -gencode (CMake: CMAKE_CUDA_ARCHITECTURES)"
#endif
