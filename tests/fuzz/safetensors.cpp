// libFuzzer's target (and, with replay.cpp, an ordinary test) of what reads published checkpoints: a
// file of these bytes, a file with this header, this index or this config.json is refused with a
// sentence, or every byte of its tensors can be read. The first byte says which.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "../../examples/support/checkpoint/family.hpp"
#include "../../examples/support/checkpoint/safetensors.hpp"
#include "../../examples/support/checkpoint/shards.hpp"

namespace {

void must(bool holds, char const* what) {
  if (holds) return;
  std::fprintf(stderr, "broken contract: %s\n", what);
  std::abort();
}

/// Reads it in memory of exactly its size, so that a sanitizer sees the first byte too far.
void read_file(std::vector<std::byte> const& bytes) {
  checkpoint::safetensors_file const file("input", bytes);
  std::uint64_t total = 0;
  volatile unsigned sum = 0;
  for (auto const& [name, t] : file.tensors()) {
    std::uint64_t size = 0;
    must(checkpoint::size_of(t.shape, checkpoint::bits_of_kind(t.kind), size), "sizes fit");
    must(size == t.bytes, "a tensor has the bytes of its shape");
    for (std::uint64_t i = 0; i < t.bytes; ++i) sum = sum + std::to_integer<unsigned>(t.data[i]);
    total += t.bytes;
  }
  must(total <= bytes.size(), "no byte has two owners");
  file.verify(false);
}

void read_index(std::string_view text) {
  for (auto const& [name, shard] : checkpoint::read_index("input", text)) {
    must(shard.find('/') == std::string::npos && shard != ".." && !shard.empty(),
         "a shard lies beside its index");
  }
}

void read_config(std::string_view text) {
  checkpoint::layer_plan const plan = checkpoint::plan_of(checkpoint::config("input", text));
  shunt::shape const& n = plan.preset.sizes;
  must(n.experts > 0 && n.hidden > 0 && n.intermediate > 0, "sizes are counts");
  must(n.top_k > 0 && n.top_k <= n.experts, "no more are chosen than there are");
  must(plan.preset.shared_intermediate >= 0 && plan.block_rows > 0 && plan.block_columns > 0,
       "no width or block is negative or nothing");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  std::span<std::byte const> const in = std::as_bytes(std::span(data, size)).subspan(1);
  try {
    if (data[0] % 4 == 0) {
      read_file({in.begin(), in.end()});
    } else if (data[0] % 4 == 1 && in.size() >= 1) {  // the header, with the right length before it
      std::size_t const header = in.size() - 1, behind = std::to_integer<std::size_t>(in[0]);
      std::vector<std::byte> bytes(8);
      for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<std::byte>(header >> 8 * i);
      bytes.insert(bytes.end(), in.begin() + 1, in.end());
      bytes.resize(bytes.size() + behind);
      read_file(bytes);
    } else {
      std::string_view const text(reinterpret_cast<char const*>(in.data()), in.size());
      data[0] % 4 == 2 ? read_index(text) : read_config(text);
    }
  } catch (lm::problem const& refused) {
    must(std::string_view(refused.what()).find("input") == 0, "a sentence names the file");
  }
  return 0;
}
