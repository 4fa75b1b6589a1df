// No include guard: the kernels of experts that no user's type enters; see regions.hpp.
SHUNT_ONCE template void gemm_work<gemm_job>(gemm_job const&, std::int64_t&) noexcept;
SHUNT_ONCE template void gemm_work<gemm_format_job>(gemm_format_job const&, std::int64_t&) noexcept;
SHUNT_ONCE template void epilogue_store<void>(gemm_job const&, gemm_block const&) noexcept;
SHUNT_ONCE template void epilogue_forward<void>(gemm_job const&, gemm_block const&) noexcept;
SHUNT_ONCE template void epilogue_gradient<void>(gemm_job const&, gemm_block const&) noexcept;
SHUNT_ONCE template void activate_rows<activation_job>(activation_job const&, std::int64_t,
                                                       std::int64_t) noexcept;
SHUNT_ONCE template void activate_rows_backward<activation_job>(activation_job const&, std::int64_t,
                                                                std::int64_t) noexcept;
