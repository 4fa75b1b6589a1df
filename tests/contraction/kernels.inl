// No include guard: what SHUNT_KERNELS_ELSEWHERE leaves out, but for the products' micro-kernels.
template void epilogue_store<void>(gemm_job const&, gemm_block const&) noexcept;
template void epilogue_forward<void>(gemm_job const&, gemm_block const&) noexcept;
template void epilogue_gradient<void>(gemm_job const&, gemm_block const&) noexcept;
template void activate_rows<activation_job>(activation_job const&, std::int64_t,
                                            std::int64_t) noexcept;
template void activate_rows_backward<activation_job>(activation_job const&, std::int64_t,
                                                     std::int64_t) noexcept;
template void route_row<float>(route_rule const&, float const*, route_buffers const&, float*, bool,
                               float, route_facts&) noexcept;
template void route_row_backward<float, float>(route_rule const&, float const*,
                                               route_buffers const&, float const*, float,
                                               float*) noexcept;
