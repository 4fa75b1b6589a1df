#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>

#include "shunt/core/abi.hpp"

namespace shunt {

/// What kind of failure a status reports.
enum class error : std::uint8_t {
  none,             ///< no failure
  bad_argument,     ///< an option or a combination of options that has no meaning
  bad_shape,        ///< extents that do not fit each other
  null_pointer,     ///< no memory where some is needed
  arena_too_small,  ///< the sentence says how many bytes are needed
  overlap,          ///< input and output share memory where that is not allowed
  too_large,        ///< a count that does not fit its type
  unsupported,      ///< this build or this processor cannot do it
  backend,          ///< the device runtime, or another library that carries data, reported an error
  peer              ///< another rank died, left or did not answer in time: the sentence names it
};

/// What a primitive answers: `ok()`, or an error with a sentence that names the argument, what it
/// was and what it must be. Never allocates; trivially copyable. Returned before anything is written.
class [[nodiscard]] status {
 public:
  /// Of the sentence only its end is written: a primitive makes dozens of these.
  constexpr status() noexcept { sentence_[0] = '\0'; }

  /// A failed status; `format` is printf's. Longer sentences are cut at 223 characters.
  [[gnu::format(printf, 2, 3), gnu::abi_tag(SHUNT_HOST_ABI_TAG)]] static status fail(
      error code, char const* format, ...) noexcept {
    status result;
    result.code_ = code;
    std::va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(result.sentence_, sizeof result.sentence_, format, arguments);
    va_end(arguments);
    return result;
  }

  /// True where nothing failed.
  [[nodiscard]] constexpr bool ok() const noexcept { return code_ == error::none; }
  /// What failed; error::none when ok.
  [[nodiscard]] constexpr error code() const noexcept { return code_; }
  /// Empty when ok; lives as long as this status.
  [[nodiscard]] constexpr char const* message() const noexcept { return sentence_; }

 private:
  error code_ = error::none;
  char sentence_[224];
};

inline namespace SHUNT_ABI {

/// The first of two checks that failed, or ok: `first_of(check_a(), check_b())`.
template <class... Rest> status first_of(status const& first, Rest const&... rest) noexcept {
  if constexpr (sizeof...(rest) == 0) {
    return first;
  } else {
    return first.ok() ? first_of(rest...) : first;
  }
}

}  // namespace SHUNT_ABI
}  // namespace shunt
