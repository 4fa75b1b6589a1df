// No include guard: includes SHUNT_REGION_FILE once in each instruction-set region of this
// architecture. SHUNT_REGION tells the file which: 0 portable, 256 AVX2, 512 AVX-512.
#define SHUNT_REGION 0
namespace shunt::host {
inline namespace SHUNT_ABI {
namespace portable {
#include SHUNT_REGION_FILE
}  // namespace portable
}  // namespace SHUNT_ABI
}  // namespace shunt::host
#undef SHUNT_REGION

#if defined(__x86_64__) && SHUNT_WIDEST_REGION >= 256
#define SHUNT_REGION 256
SHUNT_REGION_BEGIN_AVX2
namespace shunt::host {
inline namespace SHUNT_ABI {
namespace avx2 {
#include SHUNT_REGION_FILE
}  // namespace avx2
}  // namespace SHUNT_ABI
}  // namespace shunt::host
SHUNT_REGION_END
#undef SHUNT_REGION
#endif

#if defined(__x86_64__) && SHUNT_WIDEST_REGION >= 512
#define SHUNT_REGION 512
SHUNT_REGION_BEGIN_AVX512
namespace shunt::host {
inline namespace SHUNT_ABI {
namespace avx512 {
#include SHUNT_REGION_FILE
}  // namespace avx512
}  // namespace SHUNT_ABI
}  // namespace shunt::host
SHUNT_REGION_END
#undef SHUNT_REGION
#endif
#undef SHUNT_REGION_FILE
