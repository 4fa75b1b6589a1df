#pragma once
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <utility>

#include "../problem.hpp"
#if __has_include(<sys/mman.h>)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#define CHECKPOINT_MAPS
#else
#include <fstream>
#include <vector>
#endif

namespace checkpoint {

/// A file's bytes, read-only: mapped, so that only what is looked at is read; where there is no mmap,
/// read as a whole. The addresses stay while this lives, moved or not. Whoever shortens the file
/// meanwhile takes the pages away (SIGBUS): replace files by renaming.
class mapped_file {
 public:
  explicit mapped_file(std::filesystem::path const& path) {
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(path, ignored)) {
      throw lm::problem("there is no file " + path.string());
    }
#ifdef CHECKPOINT_MAPS
    int const file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct ::stat about {};
    if (file < 0 || ::fstat(file, &about) != 0) fail("cannot open ", path, file);
    size_ = static_cast<std::size_t>(about.st_size);
    if (size_ > 0) {
      void* const at = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0);
      if (at == MAP_FAILED) fail("cannot map ", path, file);
      data_ = static_cast<std::byte const*>(at);
    }
    ::close(file);
#else
    std::ifstream in(path, std::ios::binary | std::ios::ate);
    if (!in) throw lm::problem("cannot open " + path.string());
    bytes_.resize(static_cast<std::size_t>(in.tellg()));
    in.seekg(0);
    in.read(reinterpret_cast<char*>(bytes_.data()), static_cast<std::streamsize>(bytes_.size()));
    if (!in) throw lm::problem("cannot read " + path.string());
    data_ = bytes_.data();
    size_ = bytes_.size();
#endif
  }
  mapped_file(mapped_file&& from) noexcept { swap(from); }
  mapped_file& operator=(mapped_file&& from) noexcept {
    swap(from);
    return *this;
  }
#ifdef CHECKPOINT_MAPS
  ~mapped_file() {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  }
#endif

  [[nodiscard]] std::span<std::byte const> bytes() const noexcept { return {data_, size_}; }

 private:
  void swap(mapped_file& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
#ifndef CHECKPOINT_MAPS
    std::swap(bytes_, other.bytes_);
#endif
  }
#ifdef CHECKPOINT_MAPS
  [[noreturn]] static void fail(char const* what, std::filesystem::path const& path, int file) {
    std::string const why = std::strerror(errno);
    if (file >= 0) ::close(file);
    throw lm::problem(what + path.string() + ": " + why);
  }
#else
  std::vector<std::byte> bytes_;
#endif

  std::byte const* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace checkpoint
#undef CHECKPOINT_MAPS
