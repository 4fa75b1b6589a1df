#pragma once
namespace softgpu {
/// Looks for leaks and unread reports when the process ends; such a process exits with 86.
void watch_exit();
}  // namespace softgpu
