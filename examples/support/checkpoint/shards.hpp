#pragma once
#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../problem.hpp"
#include "json.hpp"
#include "mapped_file.hpp"
#include "safetensors.hpp"

namespace checkpoint {

/// Tensor name -> shard, as model.safetensors.index.json says. A shard is a plain file name: one that
/// leads out of the index's own folder is refused.
[[nodiscard]] inline std::map<std::string, std::string, std::less<>> read_index(
    std::string const& who, std::string_view text) {
  auto const refuse = [&](std::string const& why) {
    throw lm::problem(who + " is refused: " + why);
  };
  nlohmann::json const index = parse_object(text, who + " is refused: it");
  auto const found = index.find("weight_map");
  if (found == index.end() || !found->is_object()) refuse("it has no weight_map object");
  std::map<std::string, std::string, std::less<>> map;
  for (auto const& [name, shard] : found->items()) {
    if (!shard.is_string()) refuse("the shard of tensor " + quotable(name) + " is not a string");
    std::string const file = shard.get<std::string>();
    bool const plain = !file.empty() && file != "." && file != ".." &&
                       file.find_first_of(std::string_view("/\\:\0", 4)) == std::string::npos;
    if (!plain) {
      refuse("the shard of tensor " + quotable(name) + " is \"" + quotable(file) +
             "\"; it must be the name of a file beside the index");
    }
    map.emplace(name, file);
  }
  return map;
}

/// The tensors of a published checkpoint: one safetensors file, or shards with their index. A shard
/// is mapped when its first tensor is asked for, and then holds all that the index says it holds.
class shards {
 public:
  /// A folder, or one safetensors file.
  explicit shards(std::filesystem::path const& place) : folder_(place) {
    namespace fs = std::filesystem;
    if (fs::is_regular_file(place)) {
      folder_ = place.parent_path();
      take_whole(place.filename().string());
    } else if (fs::is_regular_file(place / "model.safetensors")) {
      take_whole("model.safetensors");
    } else if (fs::is_regular_file(place / "model.safetensors.index.json")) {
      fs::path const index = place / "model.safetensors.index.json";
      mapped_file const file(index);
      std::string_view const text(reinterpret_cast<char const*>(file.bytes().data()),
                                  file.bytes().size());
      map_ = read_index(index.string(), text);
    } else {
      throw lm::problem("there is neither model.safetensors nor model.safetensors.index.json in " +
                        place.string());
    }
  }

  /// One file's tensors.
  explicit shards(safetensors_file file) : folder_(file.path()) {
    std::string const name = file.path().string();
    for (auto const& [tensor, t] : file.tensors()) map_.emplace(tensor, name);
    files_.emplace(name, std::move(file));
  }

  [[nodiscard]] bool has(std::string_view name) const noexcept {
    return map_.find(name) != map_.end();
  }
  /// Null where no shard has it.
  [[nodiscard]] tensor const* find(std::string_view name) {
    auto const entry = map_.find(name);
    return entry == map_.end() ? nullptr : open(entry->second).find(name);
  }
  /// Those that begin so, in alphabetical order.
  [[nodiscard]] std::vector<std::string_view> names(std::string_view beginning) const {
    std::vector<std::string_view> all;
    for (auto at = map_.lower_bound(beginning); at != map_.end(); ++at) {
      if (!std::string_view(at->first).starts_with(beginning)) break;
      all.push_back(at->first);
    }
    return all;
  }
  /// In alphabetical order, of all shards.
  [[nodiscard]] std::vector<std::string_view> names() const {
    std::vector<std::string_view> all;
    for (auto const& [name, shard] : map_) all.push_back(name);
    return all;
  }
  [[nodiscard]] std::filesystem::path const& folder() const noexcept { return folder_; }
  /// Shards that were mapped so far.
  [[nodiscard]] std::size_t opened() const noexcept { return files_.size(); }

 private:
  void take_whole(std::string const& file) {
    auto const place = files_.try_emplace(file, folder_ / file).first;
    for (auto const& [name, t] : place->second.tensors()) map_.emplace(name, file);
  }

  safetensors_file const& open(std::string const& shard) {
    if (auto const found = files_.find(shard); found != files_.end()) return found->second;
    safetensors_file file(folder_ / shard);
    for (auto const& [name, where] : map_) {
      if (where == shard && file.find(name) == nullptr) {
        file.refuse("it has no tensor " + quotable(name) + ", which the index says is in it");
      }
    }
    return files_.emplace(shard, std::move(file)).first->second;
  }

  std::filesystem::path folder_;
  std::map<std::string, std::string, std::less<>> map_;
  std::map<std::string, safetensors_file> files_;
};

}  // namespace checkpoint
