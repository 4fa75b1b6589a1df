#pragma once
// Decoded functions, and a kernel: an entry with every function it may call.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "machine/op.hpp"
#include "ptx/module.hpp"

namespace softgpu {

/// One decoded function. Registers and local variables are offsets into the caller-given frame.
struct code {
  ptx::function const* source = nullptr;
  int id = 0;  // index into the module's functions
  std::vector<op> ops;
  std::vector<ref> extras;           // operands beyond d, a, b, c
  std::vector<std::int64_t> tables;  // branch tables: target op indices
  std::byte* constants = nullptr;    // rows; 64-byte aligned
  std::shared_ptr<void> constants_owner;
  std::int32_t frame_bytes = 0;             // registers
  std::int64_t local_bytes = 0;             // .local and call .param variables, per lane
  std::vector<std::int64_t> local_offsets;  // of function::locals, where they live in local memory
};

/// Everything known about a kernel before it is launched.
struct kernel {
  ptx::module const* module = nullptr;
  ptx::function const* source = nullptr;
  std::string name;                                // demangled
  std::map<int, std::unique_ptr<code>> functions;  // by code::id
  code const* entry = nullptr;
  std::int64_t shared_static = 0;      // bytes of static shared memory
  std::int64_t shared_dynamic_at = 0;  // address at which dynamic shared memory begins
  std::map<std::string_view, std::int64_t> shared_offsets;
  std::int64_t parameter_bytes = 0;
  std::vector<std::int64_t> parameter_offsets;
  std::int64_t local_bytes = 0;                         // local memory a thread may need
  int max_threads = 1024;                               // .maxntid / .reqntid
  mutable std::int64_t max_dynamic_shared = 48 * 1024;  // cudaFuncSetAttribute raises it
};

}  // namespace softgpu
