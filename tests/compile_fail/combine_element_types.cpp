// expect-error: shunt::combine: rows and tokens must be float, shunt::bf16 or shunt::fp16
#include <shunt/combine.hpp>

#ifdef SHUNT_EXPECT_OK
using row = shunt::fp16;
#else
using row = shunt::fp8_e4m3;  // storage for a wire, not for sums
#endif

shunt::status sum(shunt::view<row const, 2> rows, shunt::dispatch_plan<> const& plan,
                  shunt::view<float, 2> y) {
  return shunt::combine(shunt::on_host{}, rows, plan, {}, y);
}
