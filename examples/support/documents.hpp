#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "hash.hpp"
#include "problem.hpp"

namespace lm {

/// A text that is learned from or held out as a whole. The pieces of a long file are documents of one
/// group, and go the same way.
struct document {
  std::string text;
  std::uint64_t group;
};

namespace detail {

inline constexpr std::size_t longest_document = 16384;
inline constexpr std::uintmax_t longest_file = 64u << 20;

[[nodiscard]] inline std::string read_file(std::filesystem::path const& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

/// Comment lines at the very start: the license, which is the same in every file.
[[nodiscard]] inline std::string_view without_license(std::string_view text) noexcept {
  for (;;) {
    bool const comment = text.substr(0, 2) == "//" || text.substr(0, 2) == "# " ||
                         text.substr(0, 2) == "#!" || text.substr(0, 1) == "\n";
    std::size_t const end = text.find('\n');
    if (!comment || end == std::string_view::npos) return text;
    text.remove_prefix(end + 1);
  }
}

inline void add_document(std::vector<document>& to, std::string_view text,
                         std::uint64_t group = 0) {
  while (!text.empty() && (text.front() == '\n' || text.front() == '\r')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  if (text.size() >= 16) to.push_back({std::string(text), group != 0 ? group : hash(text)});
}

}  // namespace detail

/// True for a text in which lines of a single percent sign part the documents.
[[nodiscard]] inline bool is_fortune_text(std::string_view text) noexcept {
  return text.find("\n%\n") != std::string_view::npos;
}

/// Cuts a text into documents. Short scraps (under 16 bytes) are left out.
[[nodiscard]] inline std::vector<document> documents_of(std::string_view text) {
  std::vector<document> result;
  if (is_fortune_text(text)) {
    while (!text.empty()) {
      std::size_t const bar = text.substr(0, 2) == "%\n" ? 0 : text.find("\n%\n");
      if (bar == std::string_view::npos) break;
      detail::add_document(result, text.substr(0, bar));
      text.remove_prefix(bar + (bar == 0 && text[0] == '%' ? 2 : 3));
    }
    if (text.size() >= 2 && text.substr(text.size() - 2) == "\n%") text.remove_suffix(2);
    detail::add_document(result, text);
    return result;
  }
  text = detail::without_license(text);
  std::uint64_t const group = hash(text);
  while (text.size() > detail::longest_document) {
    // At the last blank line, else the last line end, else just there.
    std::string_view const head = text.substr(0, detail::longest_document);
    std::size_t cut = head.rfind("\n\n");
    if (cut == std::string_view::npos || cut < head.size() / 2) cut = head.rfind('\n');
    if (cut == std::string_view::npos || cut < head.size() / 2) cut = head.size() - 1;
    detail::add_document(result, text.substr(0, cut + 1), group);
    text.remove_prefix(cut + 1);
  }
  detail::add_document(result, text, group);
  return result;
}

/// The text files under `place` (a file or a folder; no links, nothing hidden, none of the folders
/// in `skip`), in an order that depends on their relative names only.
[[nodiscard]] inline std::vector<std::filesystem::path> files_under(
    std::filesystem::path const& place, std::vector<std::string> const& skip = {}) {
  namespace fs = std::filesystem;
  std::error_code error;
  if (fs::is_regular_file(place, error)) return {place};
  if (!fs::is_directory(place, error)) {
    throw problem("there is no file or folder " + place.string());
  }
  std::vector<std::pair<std::uint64_t, fs::path>> found;
  fs::recursive_directory_iterator at(place, fs::directory_options::skip_permission_denied, error);
  for (; !error && at != fs::recursive_directory_iterator(); at.increment(error)) {
    std::string const name = at->path().filename().string();
    bool const hidden = !name.empty() && name[0] == '.';
    if (at->is_directory(error)) {
      if (hidden || std::find(skip.begin(), skip.end(), name) != skip.end()) {
        at.disable_recursion_pending();
      }
    } else if (!hidden && !at->is_symlink(error) && at->is_regular_file(error)) {
      found.emplace_back(hash(at->path().lexically_relative(place).generic_string()), at->path());
    }
  }
  std::sort(found.begin(), found.end());
  std::vector<fs::path> result;
  for (auto& [key, path] : found) result.push_back(std::move(path));
  return result;
}

/// The documents of all text files under `place`, until `enough` bytes are read.
[[nodiscard]] inline std::vector<document> read_documents(
    std::filesystem::path const& place, std::size_t enough,
    std::vector<std::string> const& skip = {}) {
  std::vector<document> result;
  std::size_t bytes = 0;
  for (std::filesystem::path const& path : files_under(place, skip)) {
    std::error_code error;
    if (bytes >= enough) break;
    if (std::filesystem::file_size(path, error) > detail::longest_file || error) continue;
    std::string const text = detail::read_file(path);
    if (text.find('\0') != std::string::npos) continue;  // not a text
    for (document& part : documents_of(text)) {
      bytes += part.text.size();
      result.push_back(std::move(part));
    }
  }
  return result;
}

}  // namespace lm
