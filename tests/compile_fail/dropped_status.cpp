// A status that nobody looks at is an error with -Werror=unused-result.
// expect-error: nodiscard
#include <shunt/core/status.hpp>

shunt::status attempt();

bool caller() {
#ifdef SHUNT_EXPECT_OK
  return attempt().ok();
#else
  attempt();
  return true;
#endif
}
