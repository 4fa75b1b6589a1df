#pragma once
// What a test may ask of the software NCCL beside NCCL's own calls.

#include <cstdint>
#include <string>
#include <vector>

namespace softnccl {

/// What was wrong with the calls since the last time, a sentence each: sizes, types or kinds of calls
/// that do not fit each other, reductions. A program that leaves any behind exits with 87.
std::vector<std::string> take_sentences();

/// For communicators made from now on: in which order the transfers of a group are enqueued, and on which of
/// the inner streams, which nothing orders among themselves.
void shuffle(std::uint64_t seed);

struct settings {
  int patience_ms = 20;  // how long a call waits for the other ranks before it is ncclInProgress
};
settings& configure();

}  // namespace softnccl
