// Reads of local memory that nobody wrote: arrays whose elements a thread picks at run time. Only a
// read none of whose bytes has been written counts, as copies of structures take their padding along
// and vectors what lies beside them. Arguments of calls are left out: the machine copies those.
#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "checks/block_checks.hpp"
#include "checks/faults.hpp"
#include "checks/memory_checks.hpp"
#include "checks/shared_shadow.hpp"

namespace softgpu::checks {
namespace {

/// Whether an instruction names a variable of the source's, not a parameter.
bool reads_a_variable(access const& a) {
  ptx::instruction const& i = a.w.here.code->source->body[std::size_t(a.o.source)];
  auto const& words = i.modifiers;
  return i.opcode == "ld" && std::none_of(words.begin(), words.end(), [](std::string_view m) {
           return m.starts_with("param");
         });
}

}  // namespace

void local_shadow::begin() {
  if (top_ != 0)
    for (std::size_t at = 0; at < written_.size(); at += stride_)
      std::memset(written_.data() + at, 0, top_);
  top_ = 0;
}

std::uint8_t* local_shadow::of(std::size_t thread, std::uint64_t address, unsigned bytes) {
  top_ = std::max<std::size_t>(top_, address + bytes);
  return written_.data() + thread * stride_ + address;
}

void local_shadow::make(std::size_t threads, std::size_t stride) {
  if (!written_.empty()) return;
  stride_ = stride;
  written_.assign(threads * stride, 0);
}

void local_touch(access& a, lane_mask good) {
  block& b = *a.w.block;
  local_shadow& s = static_cast<shared_shadow*>(b.shared_shadow.get())->local;
  s.make(b.warps.size() * lanes_per_warp, static_cast<std::size_t>(a.w.local_stride));
  lane_mask unwritten = 0;
  for (lane_mask left = good; left != 0; left &= left - 1) {
    int const lane = std::countr_zero(left);
    std::size_t const thread = static_cast<std::size_t>(a.w.index) * lanes_per_warp + lane;
    std::uint8_t* const state = s.of(thread, a.address[lane], a.bytes);
    if (a.kind != access_kind::load)
      std::memset(state, 1, a.bytes);
    else if (std::memchr(state, 1, a.bytes) == nullptr)
      unwritten |= lane_mask{1} << lane;
  }
  if (unwritten == 0 || !reads_a_variable(a)) return;
  raise_fault(a.w, a.o, unwritten, fault::uninitialized,
              "read of " + std::to_string(a.bytes) + " bytes of local memory at " +
                  std::to_string(a.address[std::countr_zero(unwritten)]) + " that nobody wrote");
}

}  // namespace softgpu::checks
