#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../atomic_file.hpp"
#include "../hash.hpp"
#include "../problem.hpp"
#include "checksum.hpp"
#include "element_kind.hpp"
#include "safetensors_header.hpp"

namespace checkpoint {

/// A tensor to be written: its bytes are the caller's.
struct tensor_source {
  std::string name, kind;
  std::vector<std::uint64_t> shape;
  void const* data;
};

/// Writes all tensors into `path`: the old file stays whole until the new one is safe on the disk.
/// The metadata carry a checksum of header and data.
inline void write_safetensors(std::filesystem::path const& path, std::vector<tensor_source> tensors,
                              metadata_map const& metadata = {}) {
  // Widest elements first, then by name: with a header of a multiple of eight bytes all are aligned.
  std::stable_sort(tensors.begin(), tensors.end(), [](auto const& a, auto const& b) {
    std::uint64_t const wide_a = bits_of_kind(a.kind), wide_b = bits_of_kind(b.kind);
    return wide_a != wide_b ? wide_a > wide_b : a.name < b.name;
  });
  nlohmann::json header = nlohmann::json::object();
  header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  std::vector<std::size_t> sizes;
  for (tensor_source const& t : tensors) {
    std::uint64_t size = 0;
    if (bits_of_kind(t.kind) == 0 || !size_of(t.shape, bits_of_kind(t.kind), size) ||
        header.contains(t.name)) {
      throw lm::problem("tensor " + t.name + " cannot be written: its type is unknown, its shape " +
                        "too large or no whole number of bytes, or its name comes twice");
    }
    header[t.name] = {
        {"dtype", t.kind}, {"shape", t.shape}, {"data_offsets", {offset, offset + size}}};
    sizes.push_back(static_cast<std::size_t>(size));
    offset += size;
  }
  std::uint64_t checksum = header_hash(header);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    checksum = lm::hash(tensors[i].data, sizes[i], checksum);
  }
  header["__metadata__"][checksum_key] = lm::hex(checksum);
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');

  lm::atomic_file file(path);
  std::array<unsigned char, 8> length{};
  for (std::size_t i = 0; i < 8; ++i) {
    length[i] = static_cast<unsigned char>(std::uint64_t{text.size()} >> (8 * i));
  }
  file.write(length.data(), length.size());
  file.write(text.data(), text.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) file.write(tensors[i].data, sizes[i]);
  file.commit();
}

}  // namespace checkpoint
