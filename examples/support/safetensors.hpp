#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "atomic_file.hpp"
#include "hash.hpp"
#include "problem.hpp"

/// The safetensors format (https://github.com/huggingface/safetensors): eight bytes of length, a JSON
/// header, then the tensors' bytes without gaps. Written whole or not at all; read with nothing taken
/// on trust. A file of ours also carries a checksum of header and data in its metadata.
namespace lm {

struct element_kind {
  std::string_view name;
  std::uint64_t bytes;
};
inline constexpr std::array<element_kind, 14> element_kinds = {{{"F64", 8},
                                                                {"F32", 4},
                                                                {"F16", 2},
                                                                {"BF16", 2},
                                                                {"F8_E4M3", 1},
                                                                {"F8_E5M2", 1},
                                                                {"I64", 8},
                                                                {"I32", 4},
                                                                {"I16", 2},
                                                                {"I8", 1},
                                                                {"U64", 8},
                                                                {"U32", 4},
                                                                {"U8", 1},
                                                                {"BOOL", 1}}};

[[nodiscard]] constexpr std::uint64_t bytes_of_kind(std::string_view name) noexcept {
  for (element_kind const& kind : element_kinds) {
    if (kind.name == name) return kind.bytes;
  }
  return 0;
}

/// A tensor to be written: its bytes are the caller's.
struct tensor_source {
  std::string name, kind;
  std::vector<std::uint64_t> shape;
  void const* data;
};

/// A tensor of a file that was read.
struct tensor_entry {
  std::string kind;
  std::vector<std::uint64_t> shape;
  std::uint64_t begin, end;  ///< bytes, counted from the start of the data
};

using metadata_map = std::map<std::string, std::string>;

namespace detail {

inline constexpr std::uint64_t longest_header = 100'000'000;  // what the format's own reader allows
inline constexpr char const* checksum_key = "shunt.checksum";

/// The product of the extents times `bytes`, or nothing where that leaves 63 bits.
[[nodiscard]] inline bool size_of(std::vector<std::uint64_t> const& shape, std::uint64_t bytes,
                                  std::uint64_t& size) noexcept {
  size = bytes;
  bool const empty = std::find(shape.begin(), shape.end(), 0u) != shape.end();
  if (empty) size = 0;
  for (std::uint64_t extent : shape) {
    if (!empty && extent > (std::uint64_t{1} << 62) / size) return false;
    size *= empty ? 1 : extent;
  }
  return true;
}

/// Parses the header; a key that comes twice in one object makes it invalid.
[[nodiscard]] inline nlohmann::json parse_header(std::string const& text, bool& twice) {
  std::vector<std::set<std::string>> open;
  auto const watch = [&](int, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    using event_t = nlohmann::json::parse_event_t;
    if (event == event_t::object_start) open.emplace_back();
    if (event == event_t::object_end && !open.empty()) open.pop_back();
    if (event == event_t::key && !open.empty()) {
      twice |= !open.back().insert(value.get<std::string>()).second;
    }
    return true;
  };
  return nlohmann::json::parse(text, watch, false);
}

/// The same text for the same header, whoever wrote it: keys in order, no checksum.
[[nodiscard]] inline std::string canonical(nlohmann::json header) {
  if (header.contains("__metadata__")) header["__metadata__"].erase(checksum_key);
  return header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace detail

/// Writes all tensors into `path`: the old file stays whole until the new one is safe on the disk.
inline void write_safetensors(std::filesystem::path const& path, std::vector<tensor_source> tensors,
                              metadata_map const& metadata = {}) {
  // Widest elements first, then by name: with a header of a multiple of eight bytes all are aligned.
  std::stable_sort(tensors.begin(), tensors.end(), [](auto const& a, auto const& b) {
    std::uint64_t const wide_a = bytes_of_kind(a.kind), wide_b = bytes_of_kind(b.kind);
    return wide_a != wide_b ? wide_a > wide_b : a.name < b.name;
  });
  nlohmann::json header = nlohmann::json::object();
  header["__metadata__"] = metadata;
  std::uint64_t offset = 0;
  std::vector<std::uint64_t> sizes;
  for (tensor_source const& t : tensors) {
    std::uint64_t size = 0;
    if (bytes_of_kind(t.kind) == 0 || !detail::size_of(t.shape, bytes_of_kind(t.kind), size) ||
        header.contains(t.name)) {
      throw problem("tensor " + t.name + " cannot be written: its type is unknown, its shape too " +
                    "large, or its name comes twice");
    }
    header[t.name] = {
        {"dtype", t.kind}, {"shape", t.shape}, {"data_offsets", {offset, offset + size}}};
    sizes.push_back(size);
    offset += size;
  }
  std::uint64_t checksum = hash(detail::canonical(header));
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    checksum = hash(tensors[i].data, static_cast<std::size_t>(sizes[i]), checksum);
  }
  header["__metadata__"][detail::checksum_key] = hex(checksum);
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');

  atomic_file file(path);
  std::array<unsigned char, 8> length{};
  for (std::size_t i = 0; i < 8; ++i) {
    length[i] = static_cast<unsigned char>(std::uint64_t{text.size()} >> (8 * i));
  }
  file.write(length.data(), length.size());
  file.write(text.data(), text.size());
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    file.write(tensors[i].data, static_cast<std::size_t>(sizes[i]));
  }
  file.commit();
}

/// A safetensors file whose header has been read and found in order.
class safetensors_file {
 public:
  explicit safetensors_file(std::filesystem::path path) : path_(std::move(path)) {
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(path_, ignored)) {
      throw problem("there is no file " + path_.string());
    }
    in_.open(path_, std::ios::binary);
    if (!in_) throw problem("cannot open " + path_.string());
    in_.seekg(0, std::ios::end);
    std::uint64_t const file_bytes = static_cast<std::uint64_t>(in_.tellg());
    std::array<unsigned char, 8> length_bytes{};
    if (file_bytes < 8)
      refuse("it has " + std::to_string(file_bytes) + " bytes, less than a length");
    read_at(0, length_bytes.data(), 8);
    std::uint64_t length = 0;
    for (std::size_t i = 0; i < 8; ++i) length |= std::uint64_t{length_bytes[i]} << (8 * i);
    if (length > detail::longest_header) {
      refuse("its header would have " + std::to_string(length) + " bytes; at most " +
             std::to_string(detail::longest_header) + " are allowed");
    }
    if (length > file_bytes - 8) {
      refuse("its header ends beyond the file: " + std::to_string(length) + " bytes of " +
             std::to_string(file_bytes - 8));
    }
    std::string text(static_cast<std::size_t>(length), ' ');
    read_at(8, text.data(), text.size());
    if (text.empty() || text[0] != '{') refuse("its header does not begin with {");
    bool twice = false;
    header_ = detail::parse_header(text, twice);
    if (header_.is_discarded() || !header_.is_object()) refuse("its header is not a JSON object");
    if (twice) refuse("its header names something twice");
    data_at_ = 8 + length;
    data_bytes_ = file_bytes - data_at_;
    read_metadata();
    read_entries();
  }

  [[nodiscard]] std::map<std::string, tensor_entry> const& tensors() const noexcept {
    return tensors_;
  }
  [[nodiscard]] metadata_map const& metadata() const noexcept { return metadata_; }
  [[nodiscard]] std::filesystem::path const& path() const noexcept { return path_; }

  /// Copies a tensor, which must have this type and shape, to `to`.
  void read(std::string const& name, std::string_view kind, std::span<std::uint64_t const> shape,
            void* to) {
    auto const found = tensors_.find(name);
    if (found == tensors_.end()) refuse("it has no tensor " + name);
    tensor_entry const& entry = found->second;
    if (entry.kind != kind) {
      refuse("tensor " + name + " is " + entry.kind + "; it must be " + std::string(kind));
    }
    if (!std::equal(shape.begin(), shape.end(), entry.shape.begin(), entry.shape.end())) {
      refuse("tensor " + name + " has shape " + shape_text(entry.shape) + "; it must be " +
             shape_text(shape));
    }
    read_at(data_at_ + entry.begin, to, static_cast<std::size_t>(entry.end - entry.begin));
  }

  /// Refuses a file whose bytes are not those that were written. A file that others wrote carries no
  /// checksum; `required` refuses that too.
  void verify(bool required) {
    auto const found = metadata_.find(detail::checksum_key);
    if (found == metadata_.end()) {
      if (required) refuse("it carries no checksum: it was not written by this program");
      return;
    }
    std::uint64_t checksum = hash(detail::canonical(header_));
    std::vector<char> piece;
    for (tensor_entry const& entry : in_order()) {
      piece.resize(static_cast<std::size_t>(entry.end - entry.begin));
      read_at(data_at_ + entry.begin, piece.data(), piece.size());
      checksum = hash(piece.data(), piece.size(), checksum);
    }
    if (hex(checksum) != found->second) refuse("its checksum does not fit: the file is damaged");
  }

  [[noreturn]] void refuse(std::string const& why) const {
    throw problem(path_.string() + " is refused: " + why);
  }

 private:
  [[nodiscard]] static std::string shape_text(std::span<std::uint64_t const> shape) {
    std::string text = "[";
    for (std::uint64_t extent : shape) {
      text += (text.size() > 1 ? "," : "") + std::to_string(extent);
    }
    return text + "]";
  }

  void read_at(std::uint64_t at, void* to, std::size_t size) {
    in_.clear();
    in_.seekg(static_cast<std::streamoff>(at));
    in_.read(static_cast<char*>(to), static_cast<std::streamsize>(size));
    if (static_cast<std::size_t>(in_.gcount()) != size) refuse("it could not be read to its end");
  }

  void read_metadata() {
    auto const found = header_.find("__metadata__");
    if (found == header_.end()) return;
    if (!found->is_object()) refuse("its __metadata__ is not an object");
    for (auto const& [key, value] : found->items()) {
      if (!value.is_string()) refuse("its __metadata__ has a value that is not a string: " + key);
      metadata_[key] = value.get<std::string>();
    }
  }

  [[nodiscard]] std::vector<std::uint64_t> numbers(nlohmann::json const& list,
                                                   std::string const& what) const {
    if (!list.is_array()) refuse(what + " is not a list");
    std::vector<std::uint64_t> result;
    for (nlohmann::json const& number : list) {
      if (!number.is_number_unsigned()) refuse(what + " holds " + number.dump() + ", not a count");
      result.push_back(number.get<std::uint64_t>());
    }
    return result;
  }

  void read_entries() {
    for (auto const& [name, value] : header_.items()) {
      if (name == "__metadata__") continue;
      std::string const who = "tensor " + name;
      if (!value.is_object() || value.size() != 3 || !value.contains("dtype") ||
          !value["dtype"].is_string() || !value.contains("shape") ||
          !value.contains("data_offsets")) {
        refuse(who + " must have dtype, shape and data_offsets, and nothing else");
      }
      tensor_entry entry{value["dtype"].get<std::string>(),
                         numbers(value["shape"], who + ": shape"), 0, 0};
      auto const offsets = numbers(value["data_offsets"], who + ": data_offsets");
      if (offsets.size() != 2) refuse(who + " must have two data_offsets");
      entry.begin = offsets[0];
      entry.end = offsets[1];
      std::uint64_t const width = bytes_of_kind(entry.kind);
      if (width == 0) refuse(who + " has the unknown type " + entry.kind);
      if (entry.begin > entry.end || entry.end > data_bytes_) {
        refuse(who + " lies at [" + std::to_string(entry.begin) + ", " + std::to_string(entry.end) +
               ") of " + std::to_string(data_bytes_) + " bytes of data");
      }
      std::uint64_t size = 0;
      if (!detail::size_of(entry.shape, width, size) || size != entry.end - entry.begin) {
        refuse(who + " has " + std::to_string(entry.end - entry.begin) +
               " bytes, which its shape and type do not give");
      }
      tensors_.emplace(name, std::move(entry));
    }
    std::uint64_t reached = 0;
    for (tensor_entry const& entry : in_order()) {
      if (entry.begin != reached) {
        refuse("its tensors overlap or leave a gap at byte " + std::to_string(reached));
      }
      reached = entry.end;
    }
    if (reached != data_bytes_) {
      refuse(std::to_string(data_bytes_ - reached) + " bytes follow its last tensor");
    }
  }

  [[nodiscard]] std::vector<tensor_entry> in_order() const {
    std::vector<tensor_entry> order;
    for (auto const& [name, entry] : tensors_) order.push_back(entry);
    std::sort(order.begin(), order.end(), [](auto const& a, auto const& b) {
      return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
    });
    return order;
  }

  std::filesystem::path path_;
  std::ifstream in_;
  nlohmann::json header_;
  std::uint64_t data_at_ = 0, data_bytes_ = 0;
  std::map<std::string, tensor_entry> tensors_;
  metadata_map metadata_;
};

}  // namespace lm
