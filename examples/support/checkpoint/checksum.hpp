#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "../hash.hpp"

namespace checkpoint {

inline constexpr char const* checksum_key = "shunt.checksum";

/// The seed of a file's checksum: the hash of its header, the same for the same header, whoever wrote
/// it (keys in order, no checksum). The tensors' hashes are chained to it as they lie.
[[nodiscard]] inline std::uint64_t header_hash(nlohmann::json header) {
  if (header.contains("__metadata__")) header["__metadata__"].erase(checksum_key);
  return lm::hash(header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace checkpoint
