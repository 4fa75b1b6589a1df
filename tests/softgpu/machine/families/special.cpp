// Approximations: PTX bounds their error; here they are computed in double and rounded once.
#include <bit>
#include <cmath>

#include "machine/families/families.hpp"
#include "machine/families/lanewise.hpp"

namespace softgpu {
namespace {

using namespace baseline;

template <bool Ftz> f32 flush(f32 x) {
  return Ftz && std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x;
}
f32 clean(f32 x) { return x != x ? std::bit_cast<f32>(0x7fffffffu) : x; }

template <auto F, bool Ftz>
constexpr auto through_double =
    [](f32 a) { return clean(flush<Ftz>(static_cast<f32>(F(static_cast<f64>(flush<Ftz>(a)))))); };
template <auto F> void build_unary(builder& b) {
  b.has("ftz") ? emit1<through_double<F, true>, f32, f32>(b)
               : emit1<through_double<F, false>, f32, f32>(b);
}

constexpr auto rcp_of = [](f64 x) { return 1.0 / x; };
constexpr auto sqrt_of = [](f64 x) { return std::sqrt(x); };
constexpr auto rsqrt_of = [](f64 x) { return 1.0 / std::sqrt(x); };
constexpr auto sin_of = [](f64 x) { return std::sin(x); };
constexpr auto cos_of = [](f64 x) { return std::cos(x); };
constexpr auto lg2_of = [](f64 x) { return std::log2(x); };
constexpr auto ex2_of = [](f64 x) { return std::exp2(x); };
constexpr auto tanh_of = [](f64 x) { return std::tanh(x); };

template <bool Ftz, bool Approx>
constexpr auto divide = [](f32 a, f32 b) {
  f32 const x = flush<Ftz>(a), y = flush<Ftz>(b);
  // div.approx: a divisor past 2^126 gives zero (NaN for an infinite dividend).
  if (Approx && std::fabs(y) > 0x1p126f && !std::isinf(y))
    return std::isinf(x) ? std::bit_cast<f32>(0x7fffffffu) : clean(x * std::copysign(0.0f, y));
  return clean(flush<Ftz>(x / y));
};
void build_div(builder& b) {
  bool const ftz = b.has("ftz"), approx = b.has("approx");
  if (ftz && approx)
    emit2<divide<true, true>, f32, f32, f32>(b);
  else if (ftz)
    emit2<divide<true, false>, f32, f32, f32>(b);
  else if (approx)
    emit2<divide<false, true>, f32, f32, f32>(b);
  else
    emit2<divide<false, false>, f32, f32, f32>(b);
}

// The f64 approximations work on the upper word: 20 bits of mantissa, subnormals flushed.
f64 upper(f64 x) { return std::bit_cast<f64>(std::bit_cast<u64>(x) & 0xffffffff00000000u); }
f64 flush64(f64 x) { return std::fabs(x) < 0x1p-1022 ? std::copysign(0.0, x) : x; }
constexpr auto rcp64 = [](f64 x) { return upper(flush64(1.0 / flush64(x))); };
constexpr auto rsqrt64 = [](f64 x) { return upper(1.0 / std::sqrt(flush64(x))); };

constexpr form rows[] = {
    {"rcp.approx{.ftz}.f32{.ftz} d, a", kind::special, build_unary<rcp_of>},
    {"rcp.approx.ftz.f64 d, a", kind::special, emit1<rcp64, f64, f64>},
    {"sqrt.approx{.ftz}.f32{.ftz} d, a", kind::special, build_unary<sqrt_of>},
    {"rsqrt.approx{.ftz}.f32{.ftz} d, a", kind::special, build_unary<rsqrt_of>},
    {"rsqrt.approx.ftz.f64 d, a", kind::special, emit1<rsqrt64, f64, f64>},
    {"rsqrt.approx.f64 d, a", kind::special, emit1<rsqrt64, f64, f64>},
    {"sin.approx{.ftz}.f32{.ftz} d, a", kind::special, build_unary<sin_of>},
    {"cos.approx{.ftz}.f32{.ftz} d, a", kind::special, build_unary<cos_of>},
    {"lg2.approx{.ftz}.f32{.ftz} d, a", kind::special, build_unary<lg2_of>},
    {"ex2.approx{.ftz}.f32{.ftz} d, a", kind::special, build_unary<ex2_of>},
    {"tanh.approx.f32 d, a", kind::special, build_unary<tanh_of>},
    {"div.approx|full{.ftz}.f32 d, a, b", kind::special, build_div},
};

}  // namespace

std::span<form const> special_family() { return rows; }

}  // namespace softgpu
