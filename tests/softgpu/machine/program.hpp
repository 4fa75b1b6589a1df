#pragma once
// A loaded PTX module: its variables in device memory, its kernels decoded on first use.

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "machine/code.hpp"
#include "memory/map.hpp"

namespace softgpu {

class program {
 public:
  /// Parses and lays the module's variables out in device memory. Throws ptx::error.
  explicit program(std::string text);
  program(program const&) = delete;
  program& operator=(program const&) = delete;

  /// The kernel of a mangled name; null where the module has none. Throws ptx::error where an
  /// instruction it may reach is unsupported.
  kernel const* find_kernel(std::string_view name);
  [[nodiscard]] ptx::module const& module() const { return module_; }
  /// A variable's device address; 0 where there is none.
  [[nodiscard]] std::uint64_t variable(std::string_view name) const;
  [[nodiscard]] int function_id(std::string_view name) const;  // -1: none

 private:
  void place_variables();
  void relocate(ptx::variable const& v);
  void lay_out_shared(kernel& k);
  std::uint64_t symbol_address(std::string_view name) const;
  ptx::module module_;
  std::unordered_map<std::string_view, std::uint64_t> addresses_;
  std::unordered_map<std::string_view, int> function_ids_;
  std::unordered_map<std::string_view, std::unique_ptr<kernel>> kernels_;
  std::mutex mutex_;
};

/// Decodes one function of a kernel whose shared variables have been laid out.
std::unique_ptr<code> decode(program const& p, kernel const& k, ptx::function const& f, int id);

/// The 64-bit value that stands for a function.
inline std::uint64_t function_handle(int id) {
  return map::code_window + 16 * (static_cast<std::uint64_t>(id) + 1);
}

std::string demangle(std::string_view name);

}  // namespace softgpu
