#pragma once
#include <gtest/gtest.h>

#include <string>

#include "shunt/core/status.hpp"

namespace shunt::test {

/// A refusal: its code and its sentence, word for word.
inline void expect_error(status const& is, error code, std::string const& sentence) {
  EXPECT_FALSE(is.ok()) << "accepted; expected: " << sentence;
  EXPECT_EQ(is.code(), code) << is.message();
  EXPECT_EQ(std::string(is.message()), sentence);
}

/// A refusal whose sentence has this part.
inline void expect_error(status const& is, std::string const& part) {
  EXPECT_FALSE(is.ok()) << "accepted; expected: " << part;
  EXPECT_NE(std::string(is.message()).find(part), std::string::npos) << is.message();
}

}  // namespace shunt::test
