#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "../hash.hpp"
#include "../problem.hpp"
#include "checksum.hpp"
#include "mapped_file.hpp"
#include "safetensors_header.hpp"

namespace checkpoint {

/// A safetensors file (https://github.com/huggingface/safetensors) whose header has been read and
/// found in order. Its tensors lie in the mapping: they are used there, or copied out.
class safetensors_file {
 public:
  explicit safetensors_file(std::filesystem::path path)
      : path_(std::move(path)),
        mapping_(mapped_file(path_)),
        header_(path_.string(), mapping_->bytes()) {}
  /// The same of bytes that are the caller's and outlive this.
  safetensors_file(std::string const& name, std::span<std::byte const> bytes)
      : path_(name), header_(name, bytes) {}

  [[nodiscard]] tensor_map const& tensors() const noexcept { return header_.tensors; }
  [[nodiscard]] metadata_map const& metadata() const noexcept { return header_.metadata; }
  [[nodiscard]] std::filesystem::path const& path() const noexcept { return path_; }

  /// Null where there is none of that name.
  [[nodiscard]] tensor const* find(std::string_view name) const noexcept {
    auto const found = header_.tensors.find(name);
    return found == header_.tensors.end() ? nullptr : &found->second;
  }

  /// Copies a tensor, which must have this type and shape, to `to`.
  void read(std::string const& name, std::string_view kind, std::span<std::uint64_t const> shape,
            void* to) const {
    tensor const* const t = find(name);
    if (t == nullptr) refuse("it has no tensor " + name);
    if (t->kind != kind) {
      refuse("tensor " + name + " is " + quotable(t->kind) + "; it must be " + std::string(kind));
    }
    if (!std::equal(shape.begin(), shape.end(), t->shape.begin(), t->shape.end())) {
      refuse("tensor " + name + " has shape " + shape_text(t->shape) + "; it must be " +
             shape_text(shape));
    }
    if (t->bytes > 0) std::memcpy(to, t->data, static_cast<std::size_t>(t->bytes));
  }

  /// Refuses a file whose bytes are not those that were written. A file that others wrote carries no
  /// checksum; `required` refuses that too.
  void verify(bool required) const {
    auto const found = metadata().find(checksum_key);
    if (found == metadata().end()) {
      if (required) refuse("it carries no checksum: it was not written by this program");
      return;
    }
    std::uint64_t checksum = header_hash(parse_object(header_.text, path_.string()));
    for (tensor const* t : header_.in_order()) {
      checksum = lm::hash(t->data, static_cast<std::size_t>(t->bytes), checksum);
    }
    if (lm::hex(checksum) != found->second) {
      refuse("its checksum does not fit: the file is damaged");
    }
  }

  [[noreturn]] void refuse(std::string const& why) const {
    throw lm::problem(path_.string() + " is refused: " + why);
  }

 private:
  std::filesystem::path path_;
  std::optional<mapped_file> mapping_;
  safetensors_header header_;
};

}  // namespace checkpoint
