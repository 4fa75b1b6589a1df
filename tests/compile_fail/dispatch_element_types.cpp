// expect-error: shunt::dispatch: tokens and rows must have the same element type
#include <shunt/dispatch.hpp>

#ifdef SHUNT_EXPECT_OK
using row = shunt::bf16;
#else
using row = float;
#endif

shunt::status permute(shunt::view<shunt::bf16 const, 2> x, shunt::dispatch_plan<> const& plan,
                      shunt::view<row, 2> rows) {
  return shunt::dispatch(shunt::on_host{}, x, plan, rows);
}
