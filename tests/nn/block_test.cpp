#include "shunt/nn/block.hpp"

#include <gtest/gtest.h>

#include <string>

#include "shunt/nn/stage_clock.hpp"
#include "support/compare.hpp"
#include "support/expect_error.hpp"
#include "support/host_configs.hpp"
#include "support/oracle_model.hpp"
#include "support/random.hpp"

namespace shunt {
namespace nn_block_test {

using test::expect_error;
using test::guarded;
namespace oracle = test::oracle;

struct sizes {
  index_t batch, length, width, heads, kv_heads, experts, top_k, intermediate;  // experts 0: dense
};
constexpr sizes shapes[] = {
    {2, 5, 12, 3, 1, 4, 2, 7}, {2, 5, 12, 3, 1, 0, 0, 7},  {1, 1, 8, 1, 1, 3, 3, 5},
    {1, 9, 16, 4, 4, 1, 1, 9}, {3, 4, 20, 2, 2, 0, 0, 11},
};
std::size_t operator""_z(unsigned long long n) { return static_cast<std::size_t>(n); }

/// One flat buffer for all of a block's tensors, so that a difference can be taken in any of them.
struct layout {
  std::size_t at[9], size[9];
  std::size_t total = 0;
  explicit layout(sizes const& s) {
    auto const n = [](index_t x) { return static_cast<std::size_t>(x); };
    std::size_t const w = n(s.width), d = w / n(s.heads), e = n(std::max(s.experts, 1));
    std::size_t const i = n(s.intermediate);
    std::size_t const sizes_of[9] = {w,
                                     (n(s.heads) + 2 * n(s.kv_heads)) * d * w,
                                     w * w,
                                     w,
                                     n(s.experts) * w,
                                     e * 2 * i * w,
                                     e * w * i,
                                     0_z,
                                     0_z};
    for (std::size_t k = 0; k < 9; ++k) {
      at[k] = total;
      size[k] = sizes_of[k];
      total += size[k];
    }
  }
};
char const* const names[] = {"attention_norm", "qkv", "out", "feed_norm", "gate", "up", "down"};

template <class Matrix, class B, class T>
void take(sizes const& s, layout const& l, T* base, B& b) {
  offset_t const w = s.width, d = w / s.heads, i = s.intermediate, e = s.experts;
  using T1 = view<T, 1>;
  using T2 = view<T, 2>;
  using T3 = view<T, 3>;
  b.attention_norm = T1(base + l.at[0], {{w}});
  b.qkv = T2(base + l.at[1], {{(s.heads + 2 * s.kv_heads) * d, w}});
  b.out = T2(base + l.at[2], {{w, w}});
  b.feed_norm = T1(base + l.at[3], {{w}});
  if (e == 0) {
    b.up = T2(base + l.at[5], {{2 * i, w}});
    b.down = T2(base + l.at[6], {{w, i}});
    return;
  }
  b.experts.gate = T2(base + l.at[4], {{e, w}});
  b.experts.up = Matrix(T3(base + l.at[5], {{e, 2 * i, w}}), pair_layout{});
  b.experts.down = Matrix(T3(base + l.at[6], {{e, w, i}}));
}

nn::block_options<> options_of(sizes const& s) {
  nn::block_options<> o{.heads = s.heads, .kv_heads = s.kv_heads};
  o.layer.top_k = s.top_k;
  o.layer.route.gates = gate_kind::renormalized;
  o.layer.balance_loss = 0.05f;
  o.layer.z_loss = 0.01f;
  return o;
}

struct table {
  guarded<float> cosine, sine;
  nn::rotary_table<> is;
  table(index_t positions, index_t pairs)
      : cosine(static_cast<std::size_t>(positions * pairs)), sine(cosine.size()) {
    is = {cosine.as(positions, pairs), sine.as(positions, pairs)};
    EXPECT_TRUE(nn::rotary_fill(on_host{}, is).ok());
  }
};

template <class T> struct outcome {
  guarded<T> y, d_x;
  guarded<float> gradients;
};
template <class T>
outcome<T> run(on_host const& on, sizes const& s, guarded<T> const& values, guarded<T> const& x,
               guarded<T> const& d_y) {
  layout const l(s);
  nn::block_weights<T> w;
  take<expert_matrix<T>>(s, l, values.data(), w);
  outcome<T> r{guarded<T>(x.size()), guarded<T>(x.size()), guarded<float>(l.total)};
  nn::block_gradients<> g;
  take<expert_gradient<>>(s, l, r.gradients.data(), g);
  auto const o = options_of(s);
  table const t(s.length, s.width / s.heads / 2);
  guarded<std::byte> kept(nn::block_saved_bytes(s.batch, s.length, w, o));
  guarded<std::byte> forward(nn::block_scratch_bytes(on, s.batch, s.length, w, o));
  guarded<std::byte> backward(nn::block_backward_scratch_bytes(on, s.batch, s.length, w, o));
  arena<> memory(kept);
  auto const saved = nn::carve_block_saved(memory, s.batch, s.length, w, o);
  EXPECT_TRUE(memory.fits());
  auto const shaped = [&](auto& v) { return v.as(s.batch, s.length, s.width); };
  status st = nn::block(on, shaped(x), w, t.is, shaped(r.y), saved, forward, o);
  EXPECT_TRUE(st.ok()) << st.message();
  st =
      nn::block_backward(on, shaped(x), w, t.is, saved, shaped(d_y), shaped(r.d_x), g, backward, o);
  EXPECT_TRUE(st.ok()) << st.message();
  return r;
}

template <class T> guarded<T> some_weights(sizes const& s, std::uint64_t seed) {
  layout const l(s);
  auto w = test::normal_values<T>(l.total, seed, 0.4);
  for (std::size_t k : {0_z, 3_z}) {
    for (std::size_t i = l.at[k]; i < l.at[k] + l.size[k]; ++i) {
      w[i] = from_float<T>(1.0f + 0.5f * to_float(w[i]));
    }
  }
  return w;
}
std::size_t count(sizes const& s) { return static_cast<std::size_t>(s.batch * s.length * s.width); }

TEST(Block, OutputAndEveryGradientMatchCentralDifferencesOfTheOracle) {
  for (sizes const& s : shapes) {
    layout const l(s);
    auto const values = some_weights<float>(s, 1);
    auto const x = test::normal_values<float>(count(s), 2);
    auto const d_y = test::normal_values<float>(count(s), 3);
    auto const got = run<float>(on_host{}, s, values, x, d_y);

    auto const n = [](index_t v) { return static_cast<std::size_t>(v); };
    oracle::block_numbers numbers{n(s.batch), n(s.length), n(s.width), n(s.heads), n(s.kv_heads)};
    numbers.experts = n(s.experts);
    numbers.top_k = n(s.top_k);
    numbers.intermediate = n(s.intermediate);
    numbers.balance_loss = 0.05;
    numbers.z_loss = 0.01;
    numbers.epsilon = 1e-5f;
    auto flat = test::in_double(values), in = test::in_double(x);
    auto const dy = test::in_double(d_y);
    oracle::block_weights w{flat.data() + l.at[0], flat.data() + l.at[1], flat.data() + l.at[2],
                            flat.data() + l.at[3]};
    w.gate = flat.data() + l.at[4];
    w.up = flat.data() + l.at[5];
    w.down = flat.data() + l.at[6];
    std::vector<bool> const valid(n(s.batch * s.length), true);
    auto const forward = [&](double& extra) {
      std::vector<double> counts(numbers.experts);
      return oracle::block(numbers, w, in, valid, extra, counts);
    };
    double unused = 0;
    auto const y = forward(unused);
    ASSERT_TRUE(test::not_flat(y));
    for (std::size_t i = 0; i < y.size(); ++i)
      ASSERT_NEAR(got.y[i], y[i], 2e-5 * (1 + std::abs(y[i])));
    auto const loss = [&] {
      double sum = 0;
      auto const out = forward(sum);
      for (std::size_t i = 0; i < out.size(); ++i) sum += out[i] * dy[i];
      return sum;
    };
    auto const check = [&](char const* name, double* at, std::size_t size, auto const& gradient,
                           std::size_t first) {
      double largest = 0, worst = 0;
      std::size_t const stride = size / 40 + 1;
      for (std::size_t i = 0; i < size; i += stride) {
        double const d = oracle::central_difference(at[i], loss);
        largest = std::max(largest, std::abs(d));
        worst = std::max(worst, std::abs(d - static_cast<double>(gradient[first + i])));
      }
      EXPECT_LE(worst, 1e-4 * largest + 1e-6) << name << " of " << s.experts << " experts";
      EXPECT_TRUE(largest > 1e-3 || size == 0 || s.experts == 1) << name << " is flat";
    };
    check("x", in.data(), in.size(), got.d_x, 0);
    for (std::size_t k = 0; k < 7; ++k) {
      check(names[k], flat.data() + l.at[k], l.size[k], got.gradients, l.at[k]);
    }
    EXPECT_TRUE(test::all_finite(got.gradients));
  }
}

TEST(Block, BitsAreTheSameOnEveryWorld) {
  for (sizes const& s : {sizes{2, 70, 24, 3, 1, 6, 2, 20}, sizes{2, 70, 24, 3, 1, 0, 0, 20}}) {
    auto const values = some_weights<float>(s, 1);
    auto const x = test::normal_values<float>(count(s), 2),
               d_y = test::normal_values<float>(count(s), 3);
    bool first = true;
    outcome<float> reference;
    for (on_host const& on : test::host_configs()) {
      auto const got = run<float>(on, s, values, x, d_y);
      if (first) reference = got;
      first = false;
      EXPECT_TRUE(test::same_bits(reference.y, got.y)) << test::name_of(on);
      EXPECT_TRUE(test::same_bits(reference.d_x, got.d_x)) << test::name_of(on);
      EXPECT_TRUE(test::same_bits(reference.gradients, got.gradients)) << test::name_of(on);
    }
  }
}

// What a token becomes does not depend on the rest of the batch or on what follows it.
TEST(Block, Battery16_ATokensBitsDoNotDependOnTheOthers) {
  sizes const whole{3, 66, 24, 3, 1, 6, 2, 20};
  auto const values = some_weights<float>(whole, 1);
  auto const x = test::normal_values<float>(count(whole), 2);
  auto const all = run<float>(on_host{}, whole, values, x, x);
  for (index_t length : {1, 4, 16, 64, 65}) {
    sizes part = whole;
    part.batch = 1;
    part.length = length;
    guarded<float> one(count(part));
    std::copy_n(x.data() + 66 * 24, one.size(), one.data());
    auto const alone = run<float>(on_host{}, part, values, one, one);
    EXPECT_EQ(0, std::memcmp(alone.y.data(), all.y.data() + 66 * 24, one.size() * sizeof(float)));
  }
}

TEST(Block, GradientsAccumulate) {
  sizes const s{2, 5, 12, 3, 1, 4, 2, 7};
  layout const l(s);
  auto const values = some_weights<float>(s, 1);
  auto const x = test::normal_values<float>(count(s), 2),
             d_y = test::normal_values<float>(count(s), 3);
  auto const once = run<float>(on_host{}, s, values, x, d_y);
  nn::block_weights<float> w;
  take<expert_matrix<float>>(s, l, values.data(), w);
  auto o = options_of(s);
  o.accumulate = true;
  table const t(s.length, 2);
  guarded<std::byte> kept(nn::block_saved_bytes(s.batch, s.length, w, o));
  guarded<std::byte> work(
      std::max(nn::block_scratch_bytes(on_host{}, s.batch, s.length, w, o),
               nn::block_backward_scratch_bytes(on_host{}, s.batch, s.length, w, o)));
  arena<> memory(kept);
  auto const saved = nn::carve_block_saved(memory, s.batch, s.length, w, o);
  guarded<float> y(count(s)), d_x = d_y, twice = once.gradients;
  nn::block_gradients<> g;
  take<expert_gradient<>>(s, l, twice.data(), g);
  auto const shaped = [&](auto& v) { return v.as(s.batch, s.length, s.width); };
  ASSERT_TRUE(nn::block(on_host{}, shaped(x), w, t.is, shaped(y), saved, work, o).ok());
  // d_x in place of d_y.
  ASSERT_TRUE(
      nn::block_backward(on_host{}, shaped(x), w, t.is, saved, shaped(d_x), shaped(d_x), g, work, o)
          .ok());
  EXPECT_TRUE(test::same_bits(d_x, once.d_x));
  for (std::size_t i = 0; i < twice.size(); ++i) {
    EXPECT_NEAR(twice[i], 2 * once.gradients[i], 1e-5 * (1 + std::abs(once.gradients[i])));
  }
}

TEST(Block, StagesAreTimedUnderTheirNames) {
  sizes const s{2, 40, 24, 3, 1, 6, 2, 20};
  layout const l(s);
  auto const values = some_weights<float>(s, 1);
  auto const x = test::normal_values<float>(count(s), 2);
  nn::block_weights<float> w;
  take<expert_matrix<float>>(s, l, values.data(), w);
  nn::stage_clock clock;
  auto o = options_of(s);
  o.hook = clock.hook();
  table const t(s.length, 4);
  guarded<std::byte> kept(nn::block_saved_bytes(s.batch, s.length, w, o));
  guarded<std::byte> work(nn::block_scratch_bytes(on_host{}, s.batch, s.length, w, o));
  arena<> memory(kept);
  auto const saved = nn::carve_block_saved(memory, s.batch, s.length, w, o);
  guarded<float> y(count(s));
  auto const shaped = [&](auto& v) { return v.as(s.batch, s.length, s.width); };
  ASSERT_TRUE(nn::block(on_host{}, shaped(x), w, t.is, shaped(y), saved, work, o).ok());
  for (char const* want : {"norm", "projection", "rotary", "attention", "gate", "experts"}) {
    double seconds = -1;
    for (auto const& entry : clock) {
      if (std::string(entry.name) == want) seconds = entry.seconds;
    }
    EXPECT_GT(seconds, 0.0) << want;
  }
  clock.clear();
  EXPECT_EQ(clock.begin(), clock.end());
}

TEST(Block, BadArgumentsAreSentences) {
  sizes const s{2, 5, 12, 3, 1, 0, 0, 7};
  layout const l(s);
  auto const values = some_weights<float>(s, 1);
  auto const x = test::normal_values<float>(count(s), 2);
  nn::block_weights<float> w;
  take<expert_matrix<float>>(s, l, values.data(), w);
  auto o = options_of(s);
  table const t(s.length, 2);
  guarded<std::byte> kept(nn::block_saved_bytes(s.batch, s.length, w, o));
  guarded<std::byte> work(nn::block_scratch_bytes(on_host{}, s.batch, s.length, w, o));
  arena<> memory(kept);
  auto const saved = nn::carve_block_saved(memory, s.batch, s.length, w, o);
  guarded<float> y(count(s));
  auto const shaped = [&](auto& v) { return v.as(s.batch, s.length, s.width); };
  auto go = [&](auto const& weights, arena<> scratch) {
    return nn::block(on_host{}, shaped(x), weights, t.is, shaped(y), saved, scratch, o);
  };
  expect_error(go(w, arena<>{}), "block.work: the arena has 0 bytes; it must have");
  auto wrong = w;
  wrong.down = view<float const, 2>(w.down.data(), {{7, 12}});
  expect_error(go(wrong, work), "block.weights.up: extent 0 is 14; it must be 24");
  wrong = w;
  wrong.qkv = view<float const, 2>(w.qkv.data(), {{19, 12}});
  expect_error(go(wrong, work), "block.weights.qkv: extent 0 is 19; it must be 20");
  expect_error(nn::block(on_host{}, shaped(x), w, t.is, y.as(2, 6, 10), saved, work, o),
               "block.y: extent 1 is 6; it must be 5");
  expect_error(nn::block(on_host{}, shaped(y), w, t.is, shaped(y), saved, work, o),
               "block.y and block.x share memory");
  o.kv_heads = 2;
  expect_error(go(w, work), "3 heads and 2 key/value heads");
  for (float v : y) ASSERT_TRUE(std::isnan(v)) << "an error came after the first write";
}

}  // namespace nn_block_test
}  // namespace shunt
