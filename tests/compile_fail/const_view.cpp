// Elements that may only be read do not become elements that may be written.
// expect-error: conver
#include <shunt/core/view.hpp>

void write(shunt::view<float, 2>);
void read(shunt::view<float const, 2>);

void caller(shunt::view<float const, 2> constant, shunt::view<float, 2> mine) {
#ifdef SHUNT_EXPECT_OK
  write(mine);
  read(mine);
  read(constant);
#else
  write(constant);
#endif
}
