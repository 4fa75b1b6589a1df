// libFuzzer's target (and, with replay.cpp, an ordinary test) of what reads published checkpoints: a
// file of these bytes, a file with this header, this index, this config.json or layer 0 of a file with
// both is refused with a sentence, or every byte of its tensors and every weight can be read. The
// first byte says which.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../../examples/support/checkpoint/loaded_layer.hpp"
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
    if (std::uint64_t const bits = checkpoint::bits_of_kind(t.kind); bits != 0) {
      must(checkpoint::size_of(t.shape, bits, size), "sizes fit");
      must(size == t.bytes, "a tensor has the bytes of its shape");
    }
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

/// The bytes of a file with this header and this data, in memory of exactly their size.
std::vector<std::byte> file_of(std::span<std::byte const> header, std::span<std::byte const> data) {
  std::vector<std::byte> bytes;
  bytes.reserve(8 + header.size() + data.size());
  for (std::size_t i = 0; i < 8; ++i) {
    bytes.push_back(static_cast<std::byte>(header.size() >> 8 * i));
  }
  bytes.insert(bytes.end(), header.begin(), header.end());
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}

/// config.json, a zero, a header, a zero, data.
void read_layer(std::span<std::byte const> in) {
  auto const next = [&] {
    std::size_t end = 0;
    while (end < in.size() && in[end] != std::byte{0}) ++end;
    std::span<std::byte const> const piece = in.first(end);
    in = in.subspan(end < in.size() ? end + 1 : end);
    return piece;
  };
  auto const about = next(), header = next();
  std::vector<std::byte> const bytes = file_of(header, in);
  checkpoint::shards files(checkpoint::safetensors_file("input", bytes));
  std::string_view const text(reinterpret_cast<char const*>(about.data()), about.size());
  checkpoint::loaded_layer const layer(std::move(files), checkpoint::config("input", text), 0);
  volatile float sum = 0;
  layer.visit([&](auto const& w) {
    for (auto const* m : {&w.up, &w.down, &w.shared_up, &w.shared_down}) {
      for (shunt::offset_t e = 0; e < m->experts(); ++e) {
        for (shunt::offset_t n = 0; n < m->rows(); ++n) {
          for (shunt::offset_t k = 0; k < m->columns(); ++k) {
            sum = sum + shunt::to_float(m->row(e, n)[k * m->stride(2)]);
          }
        }
      }
    }
  });
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
  if (size == 0) return 0;
  std::span<std::byte const> const in = std::as_bytes(std::span(data, size)).subspan(1);
  try {
    if (data[0] == 'L') {
      read_layer(in);
    } else if (data[0] % 4 == 0) {
      read_file({in.begin(), in.end()});
    } else if (data[0] % 4 == 1 && in.size() >= 1) {  // the header, with the right length before it
      read_file(
          file_of(in.subspan(1), std::vector<std::byte>(std::to_integer<std::size_t>(in[0]))));
    } else {
      std::string_view const text(reinterpret_cast<char const*>(in.data()), in.size());
      data[0] % 4 == 2 ? read_index(text) : read_config(text);
    }
  } catch (lm::problem const& refused) {
    must(std::string_view(refused.what()).find("input") == 0, "a sentence names the file");
  }
  return 0;
}
