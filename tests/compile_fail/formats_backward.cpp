// expect-error: shunt::grouped_dgrad: weight formats are for inference
#include <shunt/experts.hpp>

#ifdef SHUNT_EXPECT_OK
using weight = shunt::bf16;
#else
using weight = shunt::mxfp4;  // its gradient would need the weights it was rounded from
#endif

shunt::status back(shunt::view<float const, 2> dc, shunt::expert_matrix<weight> w,
                   shunt::segments<> rows, shunt::view<float, 2> da) {
  return shunt::grouped_dgrad(shunt::on_host{}, dc, w, rows, da);
}
