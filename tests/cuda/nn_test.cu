// What a block needs beside experts and attention, on a device: the host's bits, in every form, and a
// captured graph that is replayed.
#include <gtest/gtest.h>

#include <limits>
#include <utility>

#include "shunt/counter.cuh"
#include "shunt/nn/embedding.cuh"
#include "shunt/nn/norm.cuh"
#include "shunt/nn/optimizer.cuh"
#include "shunt/nn/rotary.cuh"
#include "support/device_graph.hpp"
#include "support/device_plan.hpp"
#include "support/expect_error.hpp"

namespace shunt::test {
namespace nn_test {

template <class T> view<T, 2> matrix(std::vector<T>& m, offset_t rows, offset_t columns) {
  return {m.data(), {{rows, columns}}};
}
template <class T> using device_matrix = view<T, 2, space::device>;

/// Tokens and widths: empty, one, not a multiple of anything, over what is loaded at once.
constexpr std::pair<offset_t, offset_t> sizes[] = {{0, 8},    {3, 1},   {1, 7},    {70, 33},
                                                   {129, 64}, {5, 300}, {200, 96}, {2, 1030}};

template <class T> class CudaNn : public testing::Test {};
using types = testing::Types<float, bf16, fp16>;
TYPED_TEST_SUITE(CudaNn, types);

TYPED_TEST(CudaNn, NormsHaveTheHostsBits) {
  using T = TypeParam;
  on_cuda const on;
  for (auto const& [tokens, width] : sizes) {
    SCOPED_TRACE(std::to_string(tokens) + " x " + std::to_string(width));
    offset_t const n = tokens * width;
    auto x = values<T>(n, 1), add = values<T>(n, 2), weight = values<T>(width, 3),
         d_y = values<T>(n, 4), y = d_y, sum = d_y, d_x = d_y;
    std::vector<float> inverse(static_cast<std::size_t>(tokens));
    on_device<T> const g_x(x), g_add(add), g_weight(weight), g_d_y(d_y), g_y(n), g_sum(n), g_d_x(n);
    on_device<float> const g_inverse(tokens);
    auto const h = [&](std::vector<T>& m) { return matrix(m, tokens, width); };
    auto const d = [&](on_device<T> const& m) { return m.as(tokens, width); };

    ASSERT_TRUE(nn::rms_norm(on_host{}, h(x), weight, h(y), inverse, {.epsilon = 1e-3f}).ok());
    status done = nn::rms_norm(on, d(g_x), g_weight.as(width), d(g_y), g_inverse.as(tokens),
                               {.epsilon = 1e-3f});
    ASSERT_TRUE(done.ok()) << done.message();
    EXPECT_TRUE(same_values(g_y.host(), y));
    EXPECT_TRUE(same_values(g_inverse.host(), inverse));

    ASSERT_TRUE(nn::rms_norm_add(on_host{}, h(x), h(add), h(sum), weight, h(y)).ok());
    ASSERT_TRUE(nn::rms_norm_add(on, d(g_x), d(g_add), d(g_sum), g_weight.as(width), d(g_y)).ok());
    EXPECT_TRUE(same_values(g_sum.host(), sum));
    EXPECT_TRUE(same_values(g_y.host(), y));
    auto const in_place = on_device<T>(x);  // the sum on x, y on what was added
    ASSERT_TRUE(nn::rms_norm_add(on, d(in_place), d(g_y), d(in_place), g_weight.as(width), d(g_y),
                                 g_inverse.as(tokens))
                    .ok());
    ASSERT_TRUE(nn::rms_norm_add(on_host{}, h(x), h(y), h(sum), weight, h(y), inverse).ok());
    EXPECT_TRUE(same_values(in_place.host(), sum));
    EXPECT_TRUE(same_values(g_y.host(), y));

    std::vector<std::byte> work(nn::rms_norm_backward_scratch_bytes(tokens, width));
    on_device<std::byte> const g_work(static_cast<offset_t>(work.size()));
    for (bool accumulate : {false, true}) {
      auto d_weight = values<float>(width, 5);
      on_device<float> const g_d_weight(d_weight);
      ASSERT_TRUE(nn::rms_norm_backward(
                      on_host{}, h(sum), weight, inverse, h(d_y), h(d_x), d_weight, work,
                      {.add = accumulate ? h(add) : view<T, 2>{}, .accumulate = accumulate})
                      .ok());
      // On the device the gradient goes where d_y was, once.
      on_device<T> const place(d_y);
      done = nn::rms_norm_backward(
          on, d(in_place), g_weight.as(width), g_inverse.as(tokens), d(place),
          accumulate ? d(place) : d(g_d_x), g_d_weight.as(width), {g_work.data(), g_work.size()},
          {.add = accumulate ? d(g_add) : device_matrix<T>{}, .accumulate = accumulate});
      ASSERT_TRUE(done.ok()) << done.message();
      EXPECT_TRUE(same_values(accumulate ? place.host() : g_d_x.host(), d_x));
      EXPECT_TRUE(same_values(g_d_weight.host(), d_weight));
    }
  }
}

TYPED_TEST(CudaNn, RotaryHasTheHostsBitsThereAndBack) {
  using T = TypeParam;
  on_cuda const on;
  for (auto const& [pairs, head] :
       {std::pair<offset_t, offset_t>{1, 3}, {8, 16}, {20, 41}, {64, 128}}) {
    offset_t const batch = 2, length = 9, heads = 3, row = heads * head + 5;
    auto x = values<T>(batch * length * row, 1);
    on_device<T> const g_x(x);
    view<T, 4> const h(x.data(), {{batch, length, heads, head}}, {{length * row, row, head, 1}});
    view<T, 4, space::device> const d(g_x.data(), h.extents(), h.strides());
    std::vector<float> cosine(static_cast<std::size_t>(14 * pairs)), sine(cosine.size());
    on_device<float> const g_cosine(14 * pairs), g_sine(14 * pairs);
    nn::rotary_table<> const table{matrix(cosine, 14, pairs), matrix(sine, 14, pairs)};
    nn::rotary_table<space::device> const g_table{g_cosine.as(14, pairs), g_sine.as(14, pairs)};
    ASSERT_TRUE(nn::rotary_fill(on_host{}, table, 5e5, 100000).ok());
    ASSERT_TRUE(nn::rotary_fill(on, g_table, 5e5, 100000).ok());
    EXPECT_TRUE(same_values(g_cosine.host(), cosine));
    EXPECT_TRUE(same_values(g_sine.host(), sine));
    for (auto const how : {nn::rotary_pairs::halves, nn::rotary_pairs::adjacent}) {
      nn::rotary_options const o{.first_position = 5, .pairs = how};
      ASSERT_TRUE(nn::rotary(on_host{}, h, table, o).ok());
      status const done = nn::rotary(on, d, g_table, o);
      ASSERT_TRUE(done.ok()) << done.message();
      EXPECT_TRUE(same_values(g_x.host(), x));
      ASSERT_TRUE(nn::rotary_backward(on_host{}, h, table, {.pairs = how}).ok());
      ASSERT_TRUE(nn::rotary_backward(on, d, g_table, {.pairs = how}).ok());
      EXPECT_TRUE(same_values(g_x.host(), x));
    }
  }
}

TYPED_TEST(CudaNn, EmbeddingsHaveTheHostsBitsAndAddInTokenOrder) {
  using T = TypeParam;
  on_cuda const on;
  struct problem {
    offset_t tokens, entries, width;
  };
  for (auto const& [tokens, entries, width] :
       {problem{0, 3, 8}, {5, 1, 1}, {300, 7, 40}, {70, 3000, 257}, {600, 20, 64}}) {
    SCOPED_TRACE(entries);
    auto table = values<T>(entries * width, 1), rows = values<T>(tokens * width, 2), d_rows = rows;
    std::vector<index_t> id(static_cast<std::size_t>(tokens));
    rng die(3);
    for (index_t& i : id) i = static_cast<index_t>(die.bits() % (2 * entries)) % entries;
    for (std::size_t t = 2; t < id.size(); t += 7) id[t] = -1;
    auto strange = id;  // on a device an id that names no entry is none
    for (std::size_t t = 2; t < id.size(); t += 14) strange[t] = static_cast<index_t>(entries);
    on_device<T> const g_table(table), g_rows(tokens * width), g_d_rows(d_rows);
    on_device<index_t> const g_id(strange);
    ASSERT_TRUE(
        nn::embedding(on_host{}, matrix(table, entries, width), id, matrix(rows, tokens, width))
            .ok());
    status done =
        nn::embedding(on, g_table.as(entries, width), g_id.as(tokens), g_rows.as(tokens, width));
    ASSERT_TRUE(done.ok()) << done.message();
    EXPECT_TRUE(same_values(g_rows.host(), rows));
    auto d_table = values<float>(entries * width, 4);
    on_device<float> const g_d_table(d_table);
    for (bool accumulate : {true, false}) {
      ASSERT_TRUE(nn::embedding_backward(on_host{}, matrix(d_rows, tokens, width), id,
                                         matrix(d_table, entries, width),
                                         {.accumulate = accumulate})
                      .ok());
      done = nn::embedding_backward(on, g_d_rows.as(tokens, width), g_id.as(tokens),
                                    g_d_table.as(entries, width), {.accumulate = accumulate});
      ASSERT_TRUE(done.ok()) << done.message();
      EXPECT_TRUE(same_values(g_d_table.host(), d_table));
    }
  }
}

/// Master weights and their moments on both sides.
template <class T> struct weights {
  offset_t n;
  std::vector<float> p, g, m, v, norm{0.0f};
  std::vector<T> copy;
  on_device<float> d_p, d_g, d_m, d_v, d_norm{1};
  on_device<T> d_copy;
  explicit weights(offset_t count)
      : n(count),
        p(values<float>(n, 1)),
        g(values<float>(n, 2)),
        m(p.size()),
        v(p.size()),
        copy(p.size()),
        d_p(p),
        d_g(g),
        d_m(m),
        d_v(v),
        d_copy(copy) {}
  nn::adamw_state<T> host() { return {p, g, m, v, copy}; }
  nn::adamw_state<T, space::device> device() const {
    return {d_p.as(n), d_g.as(n), d_m.as(n), d_v.as(n), d_copy.as(n)};
  }
  void expect_same() const {
    EXPECT_TRUE(same_values(d_norm.host(), norm));
    EXPECT_TRUE(same_values(d_p.host(), p));
    EXPECT_TRUE(same_values(d_m.host(), m));
    EXPECT_TRUE(same_values(d_v.host(), v));
    EXPECT_TRUE(same_values(d_copy.host(), copy));
  }
};

TYPED_TEST(CudaNn, StepsOfTheOptimizerHaveTheHostsBits) {
  using T = TypeParam;
  on_cuda const on;
  for (offset_t n : {0, 1, 31, 4096, 140001}) {
    SCOPED_TRACE(n);
    weights<T> w(n);
    std::vector<std::byte> work(nn::gradient_norm_scratch_bytes(n));
    on_device<std::byte> const d_work(static_cast<offset_t>(work.size()));
    for (std::int64_t step : {1, 2, 3, 4}) {
      if (step == 4 && n > 0) {  // a broken batch changes nothing
        w.g[w.g.size() / 2] = std::numeric_limits<float>::quiet_NaN();
        w.d_g.fill(w.g);
      }
      nn::adamw_options const o{
          .rate = 0.01f, .weight_decay = 0.1f, .step = step, .clip = step == 2 ? 0.0f : 1.5f};
      ASSERT_TRUE(nn::gradient_norm(on_host{}, w.g, w.norm, work).ok());
      ASSERT_TRUE(nn::adamw(on_host{}, w.host(), w.norm, o).ok());
      status done =
          nn::gradient_norm(on, w.d_g.as(n), w.d_norm.as(1), {d_work.data(), d_work.size()});
      ASSERT_TRUE(done.ok()) << done.message();
      done = nn::adamw(on, w.device(), w.d_norm.as(1), o);
      ASSERT_TRUE(done.ok()) << done.message();
      w.expect_same();
    }
    ASSERT_TRUE(nn::adamw(on_host{}, w.host(), {}, {.step = 9}).ok());
    ASSERT_TRUE(nn::adamw(on, w.device(), {}, {.step = 9}).ok());
    w.expect_same();
    ASSERT_TRUE(nn::working_copy(on_host{}, w.g, view<T, 1>(w.copy)).ok());
    ASSERT_TRUE(nn::working_copy(on, w.d_g.as(n), w.d_copy.as(n)).ok());
    w.expect_same();
  }
}

TEST(CudaNn, CapturedStepReplayedWithOtherGradients) {
  weights<bf16> w(5000);
  on_device<std::byte> const work(static_cast<offset_t>(nn::gradient_norm_scratch_bytes(5000)));
  std::vector<std::byte> host_work(nn::gradient_norm_scratch_bytes(5000));
  captured graph([&](on_cuda const& on) {
    status const done =
        nn::gradient_norm(on, w.d_g.as(5000), w.d_norm.as(1), {work.data(), work.size()});
    return done.ok() ? nn::adamw(on, w.device(), w.d_norm.as(1), {.clip = 40.0f}) : done;
  });
  for (float factor : {1.0f, 0.001f, std::numeric_limits<float>::infinity()}) {
    for (float& g : w.g) g *= factor;  // clipped, not clipped, broken
    w.d_g.fill(w.g);
    graph.replay();
    ASSERT_TRUE(nn::gradient_norm(on_host{}, w.g, w.norm, host_work).ok());
    ASSERT_TRUE(nn::adamw(on_host{}, w.host(), w.norm, {.clip = 40.0f}).ok());
    w.expect_same();
  }
}

// The host is given both numbers by value; the device reads them, and no other, from its memory.
TEST(CudaNn, StepAndRateFromMemoryHaveTheBitsOfThoseByValue) {
  constexpr offset_t n = 300;
  weights<bf16> w(n);
  w.d_norm.fill({0.0f});  // not used
  on_device<std::int64_t> step(1);
  on_device<float> rate(1);
  on_cuda const on;
  float const nan = std::numeric_limits<float>::quiet_NaN();
  for (auto const& [at, eta] : {std::pair<std::int64_t, float>{1, 0.01f},
                                {2, 0.3f},
                                {3, 1e-30f},
                                {1000, 0.01f},
                                {123457, -0.01f},
                                {1ll << 40, 0.01f},
                                {0, 0.01f},
                                {-7, 0.01f},
                                {5, nan}}) {
    SCOPED_TRACE(at);
    step.fill({at});
    rate.fill({eta});
    for (float beta2 : {0.95f, 0.999f, 0x1.fffffep-1f, 0.0f}) {
      nn::adamw_options o{.rate = eta, .beta2 = beta2, .weight_decay = 0.37f, .step = at};
      bool const usable = at >= 1 && eta == eta;  // else nothing may change
      if (usable) ASSERT_TRUE(nn::adamw(on_host{}, w.host(), {}, o).ok());
      o.rate = 77.0f, o.step = -1;  // neither is read
      status done = nn::adamw(on, w.device(), {}, o, {.step = step.as(1), .rate = rate.as(1)});
      ASSERT_TRUE(done.ok()) << done.message();
      w.expect_same();
      o.rate = eta;  // and one alone
      if (usable) ASSERT_TRUE(nn::adamw(on_host{}, w.host(), {}, {.rate = eta, .step = at}).ok());
      done = nn::adamw(on, w.device(), {}, {.rate = eta, .step = -1}, {.step = step.as(1)});
      ASSERT_TRUE(done.ok()) << done.message();
      w.expect_same();
    }
  }
}

TEST(CudaNn, CountersAndScheduledRatesHaveTheHostsBits) {
  on_cuda const on;
  twin<std::int64_t> taken{{0}};
  twin<float> rate{{0.0f}};
  nn::cosine_schedule const schedule{.peak = 3e-3, .floor = 1e-5, .warm_up = 7, .steps = 101};
  captured next([&](on_cuda const& stream) {
    status const done =
        nn::scheduled_rate(stream, schedule, taken.of(stream, 1), rate.of(stream, 1));
    return done.ok() ? advance(stream, taken.of(stream, 1)) : done;
  });
  for (std::int64_t n = 0; n < 110; ++n) {
    next.replay();
    EXPECT_EQ(rate.device.host()[0], nn::rate_at(schedule, n)) << n;
    EXPECT_EQ(taken.device.host()[0], n + 1);
  }
  twin<index_t> positions{{7, -1, 0, std::numeric_limits<index_t>::max()}};
  ASSERT_TRUE(advance(on_host{}, positions.of(on_host{}, 4), 3).ok());
  ASSERT_TRUE(advance(on, positions.of(on, 4), 3).ok());
  EXPECT_TRUE(positions.same());
}

TYPED_TEST(CudaNn, RotaryReadsPositionsOfEachSequence) {
  using T = TypeParam;
  constexpr offset_t batch = 5, length = 3, heads = 2, pairs = 20, head = 41, positions = 14;
  twin<T> x(values<T>(batch * length * heads * head, 1));
  auto const from = x.host;
  twin<index_t> at{{11, 0, 12, -2, 1 << 30}};  // the third's last token and more are in no table
  twin<float> cosine(std::vector<float>(positions * pairs)), sine(cosine.host);
  twin<float> wide(std::vector<float>(batch * length * pairs)), wide_sine(wide.host);
  on_both_policies([&](auto on) {
    constexpr space S = decltype(on)::memory;
    nn::rotary_table<S> const table{cosine.of(on, positions, pairs), sine.of(on, positions, pairs)};
    nn::rotary_table<S> const each{wide.of(on, batch * length, pairs),
                                   wide_sine.of(on, batch * length, pairs)};
    status done = nn::rotary_fill(on, table, 5e5);
    if (done.ok()) {
      done = nn::rotary(on, x.of(on, batch, length, heads, head), table, {.first_position = 9},
                        at.of(on, batch));
    }
    return done.ok() ? nn::rotary_fill(on, each, 5e5, at.of(on, batch)) : done;
  });
  EXPECT_TRUE(x.same());
  EXPECT_TRUE(wide.same() && wide_sine.same());
  // Each sequence by a scalar, where it has one.
  nn::rotary_table<> const table{matrix(cosine.host, positions, pairs),
                                 matrix(sine.host, positions, pairs)};
  auto want = from;
  for (offset_t b = 0; b < batch; ++b) {
    for (offset_t s = 0; s < length; ++s) {
      offset_t const position = at.host[static_cast<std::size_t>(b)] + s;
      if (position < 0 || position >= positions) continue;
      view<T, 4> const one(want.data() + (b * length + s) * heads * head, {{1, 1, heads, head}});
      ASSERT_TRUE(
          nn::rotary(on_host{}, one, table, {.first_position = static_cast<index_t>(position)})
              .ok());
      for (offset_t i = 0; i < pairs; ++i) {
        EXPECT_EQ(wide.host[static_cast<std::size_t>((b * length + s) * pairs + i)],
                  table.cosine(position, i));
      }
    }
  }
  EXPECT_TRUE(same_values(x.host, want));
}

TEST(CudaNn, RefusalsAreSentencesAndEnqueueNothing) {
  on_cuda const on;
  on_device<float> const x(std::vector<float>(24, 1.0f)), y(24);
  on_device<index_t> const id(std::vector<index_t>(3, 0));
  expect_error(nn::rms_norm(on, x.as(4, 6), x.as(7), y.as(4, 6)), error::bad_shape,
               "rms_norm.weight: extent 0 is 7; it must be 6 (width of x)");
  expect_error(
      nn::rms_norm_backward(on, x.as(4, 6), x.as(6), x.as(4), x.as(4, 6), y.as(4, 6), y.as(6), {}),
      error::arena_too_small,
      "rms_norm_backward: the arena has 0 bytes; it must have 128 (ask an arena that is "
      "measuring)");
  expect_error(nn::embedding(on, x.as(4, 6), id.as(3), y.as(3, 5)), error::bad_shape,
               "embedding.rows: extent 1 is 5; it must be 6 (width of the table)");
  expect_error(
      nn::adamw(on, nn::adamw_state<float, space::device>{x.as(24), x.as(24), x.as(24), x.as(24)},
                {}, {.step = 0}),
      error::bad_argument, "adamw.step is 0; it must be 1 or more");
  expect_error(
      nn::adamw(on, nn::adamw_state<float, space::device>{x.as(24), x.as(24), x.as(24), x.as(24)},
                {}, {}, {.rate = x.as(2)}),
      error::bad_shape, "adamw.scalars.rate: extent 0 is 2; it must be 1 (one number)");
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(x.host(), std::vector<float>(24, 1.0f));
}

}  // namespace nn_test
}  // namespace shunt::test
