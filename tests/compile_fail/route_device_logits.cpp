// Logits in device memory are no input of the host's router.
// expect-error: input<
#include <shunt/route.hpp>

shunt::status caller(float* logits, shunt::routing<> out, shunt::arena<> work) {
#ifdef SHUNT_EXPECT_OK
  constexpr auto where = shunt::space::host;
#else
  constexpr auto where = shunt::space::device;
#endif
  return shunt::route(shunt::on_host{}, shunt::view<float, 2, where>(logits, {{4, 8}}), out, work);
}
