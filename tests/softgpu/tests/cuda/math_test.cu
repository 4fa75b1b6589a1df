// The functions of CUDA's math library, as nvcc compiles them in, within the errors that its manual
// gives: long mixtures of instructions against the host's long double.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "device_array.hpp"

namespace math_test {

using wide = long double;

/// How many units of the last place of T a result is away from the exact or the rounded one,
/// whichever is nearer: the manual counts from the rounded one.
template <class T> double error_in_ulps(T got, wide exact) {
  if (exact != exact || got != got) return exact != exact && got != got ? 0 : 1e9;
  T const nearest = T(exact);
  if (std::isinf(nearest) || std::isinf(got)) return nearest == got ? 0 : 1e9;
  int e = 0;
  std::frexp(nearest == 0 ? std::numeric_limits<T>::min() : nearest, &e);
  int const digits = std::numeric_limits<T>::digits, lowest = std::numeric_limits<T>::min_exponent;
  wide const away = std::min(std::fabs(wide(got) - exact), std::fabs(wide(got) - wide(nearest)));
  return double(away / std::ldexp(wide(1), std::max(e, lowest) - digits));
}

/// Numbers of all sizes between two bounds, the bounds and the neighbors of small integers.
template <class T> std::vector<T> numbers(T low, T high) {
  std::mt19937_64 rng(7);
  std::vector<T> x{low, high, low / 2 + high / 2};
  for (int i = -3; i <= 3; ++i)
    for (T const at : {T(i), std::nextafter(T(i), T(9)), std::nextafter(T(i), T(-9)), T(i) / 2})
      if (at >= low && at <= high) x.push_back(at);
  std::uniform_real_distribution<double> unit(0, 1);
  while (x.size() < 1024) {
    double const exponent = -30 * unit(rng);
    double const whole = double(low) + (double(high) - double(low)) * unit(rng);
    double const small = std::exp2(exponent) * (rng() % 2 == 0 ? double(high) : double(low));
    T const at = T(rng() % 2 == 0 ? whole : small);
    if (at >= low && at <= high) x.push_back(at);
  }
  return x;
}

template <class T>
void check(char const* name, void (*kernel)(T const*, T const*, T*), T low, T high, double ulps,
           wide (*exact)(wide, wide)) {
  auto const x = numbers<T>(low, high);
  std::vector<T> y(x.rbegin(), x.rend());
  device_array<T> dx(x), dy(y), out(x.size());
  kernel<<<unsigned(x.size() / 128), 128>>>(dx.data, dy.data, out.data);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const got = out.host();
  double worst = 0;
  std::size_t where = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    double const e = error_in_ulps(got[i], exact(x[i], y[i]));
    if (e > worst) worst = e, where = i;
  }
  EXPECT_LE(worst, ulps) << name << " of " << x[where] << ", " << y[where] << ": " << got[where]
                         << " instead of " << double(exact(x[where], y[where]));
}

#define FUNCTION(T, name, low, high, ulps, device, host)       \
  __global__ void T##_##name(T const* a, T const* b, T* out) { \
    unsigned const i = blockIdx.x * blockDim.x + threadIdx.x;  \
    T const x = a[i], y = b[i];                                \
    out[i] = device + 0 * y;                                   \
  }                                                            \
  TEST(Math_##T, name) {                                       \
    check<T>(#name, T##_##name, T(low), T(high), ulps,         \
             [](wide x, wide y) { return host + 0 * y; });     \
  }

FUNCTION(float, sin, -1e6, 1e6, 2, sinf(x), sinl(x))
FUNCTION(float, cos, -1e6, 1e6, 2, cosf(x), cosl(x))
FUNCTION(float, tan, -1e4, 1e4, 4, tanf(x), tanl(x))
FUNCTION(float, sin_of_large, 1e20, 1e37, 2, sinf(x), sinl(x))
FUNCTION(float, exp, -104, 89, 2, expf(x), expl(x))
FUNCTION(float, exp2, -150, 128, 2, exp2f(x), exp2l(x))
FUNCTION(float, exp10, -45, 38, 2, exp10f(x), powl(10, x))
FUNCTION(float, expm1, -50, 88, 1, expm1f(x), expm1l(x))
FUNCTION(float, log, 0, 1e38, 1, logf(x), logl(x))
FUNCTION(float, log2, 0, 1e38, 1, log2f(x), log2l(x))
FUNCTION(float, log10, 0, 1e38, 2, log10f(x), log10l(x))
FUNCTION(float, log1p, -1, 1e30, 1, log1pf(x), log1pl(x))
FUNCTION(float, pow, 0, 30, 4, powf(x, y), powl(x, y))
FUNCTION(float, sinh, -89, 89, 3, sinhf(x), sinhl(x))
FUNCTION(float, cosh, -89, 89, 2, coshf(x), coshl(x))
FUNCTION(float, tanh, -20, 20, 2, tanhf(x), tanhl(x))
FUNCTION(float, asin, -1, 1, 4, asinf(x), asinl(x))
FUNCTION(float, acos, -1, 1, 4, acosf(x), acosl(x))
FUNCTION(float, atan, -1e9, 1e9, 3, atanf(x), atanl(x))
FUNCTION(float, atan2, -100, 100, 3, atan2f(x, y), atan2l(x, y))
FUNCTION(float, asinh, -1e9, 1e9, 3, asinhf(x), asinhl(x))
FUNCTION(float, erf, -6, 6, 2, erff(x), erfl(x))
FUNCTION(float, erfc, -4, 10, 4, erfcf(x), erfcl(x))
FUNCTION(float, tgamma, 0.1, 34, 5, tgammaf(x), tgammal(x))
FUNCTION(float, lgamma, 3, 1e9, 6, lgammaf(x), lgammal(x))
FUNCTION(float, cbrt, -1e38, 1e38, 1, cbrtf(x), cbrtl(x))
FUNCTION(float, rsqrt, 1e-38, 1e38, 2, rsqrtf(x), 1 / sqrtl(x))
FUNCTION(float, hypot, -1e30, 1e30, 3, hypotf(x, y), hypotl(x, y))
FUNCTION(float, fmod, -1e9, 1e9, 0.5, fmodf(x, y), fmodl(x, y))
FUNCTION(float, remainder, -1e9, 1e9, 0.5, remainderf(x, y), remainderl(x, y))
FUNCTION(float, round, -1e9, 1e9, 0.5, roundf(x), roundl(x))
FUNCTION(float, divide, -1e30, 1e30, 0.5, x / y, x / y)
FUNCTION(float, square_root, 0, 1e38, 0.5, sqrtf(x), sqrtl(x))
FUNCTION(float, ldexp, -100, 100, 0.5, ldexpf(x, int(y)), ldexpl(x, int(y)))
FUNCTION(double, sin, -1e6, 1e6, 2, sin(x), sinl(x))
FUNCTION(double, cos, -1e15, 1e15, 2, cos(x), cosl(x))
FUNCTION(double, exp, -745, 709, 1, exp(x), expl(x))
FUNCTION(double, log, 0, 1e300, 1, log(x), logl(x))
FUNCTION(double, pow, 0, 140, 2, pow(x, y), powl(x, y))
FUNCTION(double, tanh, -20, 20, 2, tanh(x), tanhl(x))
FUNCTION(double, atan2, -100, 100, 2, atan2(x, y), atan2l(x, y))
FUNCTION(double, erfc, -4, 26, 5, erfc(x), erfcl(x))
FUNCTION(double, tgamma, 0.1, 170, 10, tgamma(x), tgammal(x))
FUNCTION(double, cbrt, -1e300, 1e300, 1, cbrt(x), cbrtl(x))
FUNCTION(double, fmod, -1e9, 1e9, 0.5, fmod(x, y), fmodl(x, y))
FUNCTION(double, divide, -1e300, 1e300, 0.51, x / y, x / y)
FUNCTION(double, square_root, 0, 1e300, 0.51, sqrt(x), sqrtl(x))

// Integer division, which is a library too.
template <class T> __global__ void divide_integers(T const* a, T const* b, T* out, int n) {
  int const i = blockIdx.x * blockDim.x + threadIdx.x;
  out[i] = a[i] / b[i];
  out[n + i] = a[i] % b[i];
}
template <class T> void check_division() {
  std::mt19937_64 rng(3);
  std::vector<T> a, b;
  for (int i = 0; i < 1024; ++i) {
    a.push_back(T(rng() >> rng() % 64));
    b.push_back(T(rng() >> rng() % 64));
    if (i % 2 == 1) a.back() = T(0) - a.back();
    if (b.back() == 0 || b.back() == T(-1)) b.back() = 3;
  }
  device_array<T> da(a), db(b), out(std::size_t{2048});
  divide_integers<<<8, 128>>>(da.data, db.data, out.data, 1024);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  auto const got = out.host();
  for (int i = 0; i < 1024; ++i) {
    ASSERT_EQ(got[i], T(a[i] / b[i])) << a[i] << " / " << b[i];
    ASSERT_EQ(got[1024 + i], T(a[i] % b[i])) << a[i] << " % " << b[i];
  }
}
TEST(Math, IntegerDivision) {
  check_division<std::int32_t>();
  check_division<std::uint32_t>();
  check_division<std::int64_t>();
  check_division<std::uint64_t>();
}

}  // namespace math_test
