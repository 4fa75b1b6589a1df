// expect-error: shunt::plan_dispatch: expert ids must be shunt::index_t
#include <shunt/dispatch.hpp>

#ifdef SHUNT_EXPECT_OK
using id = shunt::index_t;
#else
using id = long long;  // what some frameworks hand out
#endif

shunt::status plan(shunt::view<id const, 2> expert, shunt::dispatch_plan<> const& plan) {
  return shunt::plan_dispatch(shunt::on_host{}, expert, plan, shunt::arena<>{});
}
