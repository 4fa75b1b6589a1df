#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

namespace lm {

using table_rows = std::vector<std::vector<std::string>>;

/// Characters, not bytes, of a UTF-8 text.
[[nodiscard]] inline std::size_t cells(std::string const& text) noexcept {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

/// Columns that stand under each other: the first to the left, the others to the right.
inline void print_table(table_rows const& rows, std::FILE* to = stdout) {
  std::vector<std::size_t> wide;
  for (auto const& row : rows) {
    wide.resize(std::max(wide.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) wide[i] = std::max(wide[i], cells(row[i]));
  }
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::string line;
    for (std::size_t i = 0; i < rows[r].size(); ++i) {
      std::string const pad(wide[i] - cells(rows[r][i]), ' ');
      line += i == 0 ? rows[r][i] + pad : "   " + pad + rows[r][i];
    }
    std::fprintf(to, "%s\n", line.c_str());
    if (r != 0) continue;
    std::size_t all = 3 * (wide.size() - 1);
    for (std::size_t w : wide) all += w;
    std::fprintf(to, "%s\n", std::string(all, '-').c_str());
  }
}

}  // namespace lm
