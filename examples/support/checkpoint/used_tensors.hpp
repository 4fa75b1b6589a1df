#pragma once
#include <cctype>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "safetensors_header.hpp"

namespace checkpoint {

/// Memory for what cannot be used where it lies; each piece begins on 64 bytes.
class owned_memory {
 public:
  template <class T> [[nodiscard]] T* take(std::uint64_t count) {
    auto const size = static_cast<std::size_t>(count) * sizeof(T);
    pieces_.emplace_back(::operator new(size, alignment));
    bytes_ += size;
    return static_cast<T*>(pieces_.back().get());
  }
  [[nodiscard]] std::uint64_t bytes() const noexcept { return bytes_; }

 private:
  static constexpr std::align_val_t alignment{64};
  struct release {
    void operator()(void* piece) const noexcept { ::operator delete(piece, alignment); }
  };
  std::vector<std::unique_ptr<void, release>> pieces_;
  std::uint64_t bytes_ = 0;
};

/// Tensors of one name but for the expert's number, and what became of them.
struct used_tensor {
  std::string name, kind;  ///< ... experts.*. ...
  std::vector<std::uint64_t> shape;
  std::uint64_t count = 0, bytes = 0;  ///< of all of them, in the files
  std::uint64_t in_place = 0;          ///< how many are used where they lie
};

class used_tensors {
 public:
  void note(tensor const& t, bool in_place) {
    names_.insert(t.name);
    std::string const name = without_number(t.name);
    used_tensor* entry = nullptr;
    for (used_tensor& u : all_) {
      if (u.name == name && u.kind == t.kind && u.shape == t.shape) entry = &u;
    }
    if (entry == nullptr) {
      all_.push_back({name, t.kind, t.shape});
      entry = &all_.back();
    }
    ++entry->count;
    entry->bytes += t.bytes;
    if (in_place) ++entry->in_place;
    (in_place ? bytes_in_place_ : bytes_copied_) += t.bytes;
  }
  [[nodiscard]] std::vector<used_tensor> const& all() const noexcept { return all_; }
  [[nodiscard]] bool has(std::string_view name) const { return names_.find(name) != names_.end(); }
  /// In the files, of tensors that are used where they lie, and of the others.
  [[nodiscard]] std::uint64_t bytes_in_place() const noexcept { return bytes_in_place_; }
  [[nodiscard]] std::uint64_t bytes_copied() const noexcept { return bytes_copied_; }

 private:
  [[nodiscard]] static std::string without_number(std::string name) {
    constexpr std::string_view before = ".experts.";
    std::size_t const at = name.find(before);
    if (at == std::string::npos) return name;
    std::size_t const from = at + before.size();
    std::size_t to = from;
    while (to < name.size() && std::isdigit(static_cast<unsigned char>(name[to])) != 0) ++to;
    if (to > from) name.replace(from, to - from, "*");
    return name;
  }

  std::vector<used_tensor> all_;
  std::set<std::string, std::less<>> names_;
  std::uint64_t bytes_in_place_ = 0, bytes_copied_ = 0;
};

}  // namespace checkpoint
