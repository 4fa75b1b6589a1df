#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../problem.hpp"
#include "element_kind.hpp"
#include "json.hpp"

namespace checkpoint {

/// A tensor of a file: its elements lie at `data`, row-major, little-endian. Files of others may put
/// them at any address; `aligned` says whether it is one for elements of its kind.
struct tensor {
  std::string name, kind;
  std::vector<std::uint64_t> shape;
  std::byte const* data = nullptr;
  std::uint64_t bytes = 0;

  [[nodiscard]] bool aligned() const noexcept {
    return reinterpret_cast<std::uintptr_t>(data) % alignment_of_kind(kind) == 0;
  }
};

using metadata_map = std::map<std::string, std::string>;
using tensor_map = std::map<std::string, tensor, std::less<>>;

/// What stands at the head of a safetensors file, found in order: eight bytes of length, a JSON
/// object, then the tensors' bytes, each tensor's own, without gap or overlap. A pure function of the
/// bytes; throws a sentence that begins with `who` where anything else is found. A tensor of a type
/// that element_kinds lacks is listed like others: only the bytes of its shape are not checked.
struct safetensors_header {
  std::string_view text;  ///< the JSON, in the file
  metadata_map metadata;
  tensor_map tensors;

  safetensors_header(std::string const& who, std::span<std::byte const> file) : who_(who) {
    if (file.size() < 8) {
      refuse("it has " + std::to_string(file.size()) + " bytes, less than a length");
    }
    std::uint64_t length = 0;
    for (std::size_t i = 0; i < 8; ++i) length |= std::to_integer<std::uint64_t>(file[i]) << 8 * i;
    if (length > longest_json) {
      refuse("its header would have " + std::to_string(length) + " bytes; at most " +
             std::to_string(longest_json) + " are allowed");
    }
    if (length > file.size() - 8) {
      refuse("its header ends beyond the file: " + std::to_string(length) + " bytes of " +
             std::to_string(file.size() - 8));
    }
    auto const size = static_cast<std::size_t>(length);
    text = {reinterpret_cast<char const*>(file.data()) + 8, size};
    if (text.empty() || text[0] != '{') refuse("its header does not begin with {");
    data_ = file.subspan(8 + size);
    nlohmann::json const header = parse_object(text, who_ + " is refused: its header");
    read_metadata(header);
    read_tensors(header);
    check_order();
  }

 private:
  [[noreturn]] void refuse(std::string const& why) const {
    throw lm::problem(who_ + " is refused: " + why);
  }

  void read_metadata(nlohmann::json const& header) {
    auto const found = header.find("__metadata__");
    if (found == header.end()) return;
    if (!found->is_object()) refuse("its __metadata__ is not an object");
    for (auto const& [key, value] : found->items()) {
      if (!value.is_string()) {
        refuse("its __metadata__ has a value that is not a string: " + quotable(key));
      }
      metadata[key] = value.get<std::string>();
    }
  }

  [[nodiscard]] std::vector<std::uint64_t> numbers(nlohmann::json const& list,
                                                   std::string const& what) const {
    if (!list.is_array()) refuse(what + " is not a list");
    std::vector<std::uint64_t> result;
    for (nlohmann::json const& number : list) {
      if (!number.is_number_unsigned()) {
        refuse(what + " holds " + quotable(number.dump()) + ", not a count");
      }
      result.push_back(number.get<std::uint64_t>());
    }
    return result;
  }

  void read_tensors(nlohmann::json const& header) {
    for (auto const& [name, value] : header.items()) {
      if (name == "__metadata__") continue;
      std::string const who = "tensor " + quotable(name);
      if (!value.is_object() || value.size() != 3 || !value.contains("dtype") ||
          !value["dtype"].is_string() || !value.contains("shape") ||
          !value.contains("data_offsets")) {
        refuse(who + " must have dtype, shape and data_offsets, and nothing else");
      }
      auto const offsets = numbers(value["data_offsets"], who + ": data_offsets");
      if (offsets.size() != 2) refuse(who + " must have two data_offsets");
      if (offsets[0] > offsets[1] || offsets[1] > data_.size()) {
        refuse(who + " lies at [" + std::to_string(offsets[0]) + ", " + std::to_string(offsets[1]) +
               ") of " + std::to_string(data_.size()) + " bytes of data");
      }
      tensor t{name, value["dtype"].get<std::string>(), numbers(value["shape"], who + ": shape"),
               data_.data() + offsets[0], offsets[1] - offsets[0]};
      std::uint64_t const bits = bits_of_kind(t.kind);
      std::uint64_t size = 0;
      if (bits != 0 && (!size_of(t.shape, bits, size) || size != t.bytes)) {
        refuse(who + " has " + std::to_string(t.bytes) +
               " bytes, which its shape and type do not give");
      }
      tensors.emplace(name, std::move(t));
    }
  }

  void check_order() const {
    std::vector<tensor const*> const order = in_order();
    std::byte const* reached = data_.data();
    for (tensor const* t : order) {
      if (t->data != reached) {
        refuse("its tensors overlap or leave a gap at byte " +
               std::to_string(reached - data_.data()) + ", before tensor " + quotable(t->name));
      }
      reached += t->bytes;
    }
    if (reached != data_.data() + data_.size()) {
      refuse(std::to_string(data_.data() + data_.size() - reached) +
             " bytes follow its last tensor");
    }
  }

 public:
  /// As the tensors lie.
  [[nodiscard]] std::vector<tensor const*> in_order() const {
    std::vector<tensor const*> order;
    for (auto const& [name, t] : tensors) order.push_back(&t);
    std::sort(order.begin(), order.end(), [](tensor const* a, tensor const* b) {
      return a->data != b->data ? a->data < b->data : a->bytes < b->bytes;
    });
    return order;
  }

 private:
  std::string who_;
  std::span<std::byte const> data_;
};

}  // namespace checkpoint
