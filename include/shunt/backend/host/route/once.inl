// No include guard: the kernels of routing for float logits; see regions.hpp.
SHUNT_ONCE template void route_row<float>(route_rule const&, float const*, route_buffers const&,
                                          float*, bool, float, route_facts&) noexcept;
SHUNT_ONCE template void route_row_backward<float, float>(route_rule const&, float const*,
                                                          route_buffers const&, float const*, float,
                                                          float*) noexcept;
