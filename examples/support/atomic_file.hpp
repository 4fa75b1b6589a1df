#pragma once
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

#include "problem.hpp"

namespace lm {

/// A file that appears whole or not at all: written beside its place under another name, flushed to
/// the disk, then renamed over the old one. Not committed, it leaves nothing behind.
class atomic_file {
 public:
  explicit atomic_file(std::filesystem::path path)
      : path_(std::move(path)), part_(path_.string() + ".part." + std::to_string(::getpid())) {
    file_ = ::open(part_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file_ < 0) fail("cannot create");
  }
  atomic_file(atomic_file const&) = delete;
  atomic_file& operator=(atomic_file const&) = delete;
  ~atomic_file() {
    if (file_ < 0) return;
    ::close(file_);
    ::unlink(part_.c_str());
  }

  void write(void const* data, std::size_t size) {
    auto const* bytes = static_cast<char const*>(data);
    while (size > 0) {
      ssize_t const wrote = ::write(file_, bytes, size);
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote < 0) fail("cannot write");
      bytes += wrote;
      size -= static_cast<std::size_t>(wrote);
    }
  }
  void write(std::string_view text) { write(text.data(), text.size()); }

  void commit() {
    if (::fsync(file_) != 0) fail("cannot flush");
    if (::rename(part_.c_str(), path_.c_str()) != 0) fail("cannot rename");
    ::close(file_);
    file_ = -1;
    // The new name itself is safe once the folder is.
    std::filesystem::path const folder = path_.has_parent_path() ? path_.parent_path() : ".";
    int const directory = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory >= 0) {
      ::fsync(directory);
      ::close(directory);
    }
  }

 private:
  [[noreturn]] void fail(char const* what) const {
    throw problem(std::string(what) + " " + part_ + ": " + std::strerror(errno));
  }

  std::filesystem::path path_;
  std::string part_;
  int file_ = -1;
};

}  // namespace lm
