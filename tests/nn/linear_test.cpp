#include "shunt/nn/linear.hpp"

#include <gtest/gtest.h>

#include <string>

#include "support/compare.hpp"
#include "support/expect_error.hpp"
#include "support/host_configs.hpp"
#include "support/oracle_nn.hpp"
#include "support/random.hpp"
#include "support/storage_types.hpp"

namespace shunt {
namespace nn_linear_test {

using test::expect_error;
using test::guarded;
namespace oracle = test::oracle;

struct sizes {
  std::size_t rows, outs, ins;
};
constexpr sizes cases[] = {{0, 4, 4}, {1, 1, 1}, {3, 17, 5}, {97, 33, 130}, {1, 300, 64}};

template <class T> class LinearOf : public testing::Test {};
TYPED_TEST_SUITE(LinearOf, test::storage_types);

TYPED_TEST(LinearOf, ForwardAndGradientsMatchTheOracleOnEveryWorld) {
  using T = TypeParam;
  for (sizes s : cases) {
    auto const x = test::normal_values<T>(s.rows * s.ins, 1);
    auto const w = test::normal_values<T>(s.outs * s.ins, 2);
    auto const d_y = test::normal_values<T>(s.rows * s.outs, 3);
    auto const dx = test::in_double(x), dw = test::in_double(w), ddy = test::in_double(d_y);
    auto const y = oracle::linear(dx, dw, s.rows, s.outs, s.ins);
    auto const d_x =
        oracle::linear(ddy, oracle::transposed(dw, s.outs, s.ins), s.rows, s.ins, s.outs);
    auto const d_w = oracle::linear(oracle::transposed(ddy, s.rows, s.outs),
                                    oracle::transposed(dx, s.rows, s.ins), s.outs, s.ins, s.rows);
    guarded<T> first_y;
    for (on_host const& on : test::host_configs()) {
      guarded<T> got_y(y.size()), got_dx(d_x.size());
      guarded<float> got_dw(d_w.size());
      status st =
          nn::linear(on, x.as(s.rows, s.ins), w.as(s.outs, s.ins), got_y.as(s.rows, s.outs));
      ASSERT_TRUE(st.ok()) << st.message();
      st = nn::linear_dgrad(on, d_y.as(s.rows, s.outs), w.as(s.outs, s.ins),
                            got_dx.as(s.rows, s.ins));
      ASSERT_TRUE(st.ok()) << st.message();
      st = nn::linear_wgrad(on, d_y.as(s.rows, s.outs), x.as(s.rows, s.ins),
                            got_dw.as(s.outs, s.ins));
      ASSERT_TRUE(st.ok()) << st.message();
      EXPECT_TRUE(test::close(got_y, y, 24));
      EXPECT_TRUE(test::close(got_dx, d_x, 24));
      EXPECT_TRUE(test::close(got_dw, d_w, 24));  // zeros where there are no rows
      if (first_y.size() == 0) first_y = got_y;
      EXPECT_TRUE(test::same_bits(first_y, got_y)) << test::name_of(on);
      guarded<float> twice = got_dw;
      st = nn::linear_wgrad(on, d_y.as(s.rows, s.outs), x.as(s.rows, s.ins),
                            twice.as(s.outs, s.ins), {.accumulate = true});
      ASSERT_TRUE(st.ok()) << st.message();
      for (std::size_t i = 0; i < twice.size(); ++i) EXPECT_EQ(twice[i], got_dw[i] + got_dw[i]);
    }
  }
}

TEST(Linear, BadArgumentsAreSentences) {
  guarded<float> x(12), w(20), y(15);
  expect_error(nn::linear(on_host{}, x.as(3, 4), w.as(4, 5), y.as(3, 5)),
               "linear.weight: extent 1 is 5; it must be 4 (columns of x)");
  expect_error(nn::linear(on_host{}, x.as(3, 4), w.as(5, 4), y.as(5, 3)),
               "linear.y: extent 0 is 5; it must be 3 (rows)");
  expect_error(nn::linear(on_host{}, x.as(3, 4), x.as(3, 4), x.as(3, 3)),
               "linear.y and linear.x share");
  expect_error(nn::linear_dgrad(on_host{}, y.as(3, 5), w.as(4, 5), x.as(3, 4)),
               "linear_dgrad.weight: extent 0 is 4; it must be 5");
  expect_error(nn::linear_wgrad(on_host{}, y.as(3, 5), x.as(4, 3), w.as(5, 4)),
               "linear_wgrad.x: extent 0 is 4; it must be 3");
}

}  // namespace nn_linear_test
}  // namespace shunt
