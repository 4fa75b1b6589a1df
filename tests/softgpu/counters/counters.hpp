#pragma once
#include "machine/block.hpp"
namespace softgpu::counters {
/// Keeps what a finished launch executed for take_counts().
void record(launch const& l, double seconds);
}  // namespace softgpu::counters
