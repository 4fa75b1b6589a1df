// expect-error: rank must be 1 to 5
#include <shunt/core/view.hpp>

#ifdef SHUNT_EXPECT_OK
shunt::view<float, 5> const deep{};
#else
shunt::view<float, 6> const deep{};
#endif
