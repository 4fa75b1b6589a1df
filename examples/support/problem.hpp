#pragma once
#include <stdexcept>
#include <string>

namespace lm {

/// What the examples throw where they cannot go on: a sentence for the user.
struct problem : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace lm
