// Attention and the key/value cache on a device, forward and backward, in every form of grouping and
// layout, and a captured graph that is replayed: the host's bits, and those of tensor cores' within a
// bound, decoding with the bits of the whole.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "shunt/nn/kv_cache.cuh"
#include "support/device_graph.hpp"
#include "support/device_plan.hpp"
#include "support/expect_error.hpp"
#include "support/oracle_nn.hpp"

namespace shunt::test {
namespace nn_attention_test {

using nn::attention_shape;

constexpr attention_shape shapes[] = {
    {0, 5, 2, 1, 8},   {2, 0, 2, 1, 8},    {1, 1, 1, 1, 1},    {3, 1, 4, 2, 8},   {1, 2, 1, 1, 33},
    {2, 63, 2, 2, 16}, {1, 64, 3, 1, 8},   {1, 65, 2, 1, 20},  {2, 70, 6, 2, 32}, {1, 47, 7, 7, 5},
    {1, 90, 5, 1, 64}, {1, 130, 2, 1, 72}, {1, 66, 1, 1, 130}, {1, 9, 80, 1, 4},
};
std::string name_of(attention_shape const& s) {
  return "B" + std::to_string(s.batch) + " S" + std::to_string(s.length) + " heads" +
         std::to_string(s.heads) + "/" + std::to_string(s.kv_heads) + " D" +
         std::to_string(s.head_dim);
}
offset_t width_of(attention_shape const& s) {
  return offset_t{s.heads + 2 * s.kv_heads} * s.head_dim;
}
offset_t tokens_of(attention_shape const& s) { return offset_t{s.batch} * s.length; }

/// q, k and v as parts of one projection, as a model has them.
template <space S, class T> view<T, 4, S> part(T* all, attention_shape const& s, int which) {
  offset_t const d = s.head_dim, row = width_of(s);
  offset_t const from = which == 0 ? 0 : s.heads + (which - 1) * s.kv_heads;
  return {all + from * d,
          {{s.batch, s.length, which == 0 ? s.heads : s.kv_heads, d}},
          {{s.length * row, row, d, 1}}};
}
template <space S, class T> view<T, 4, S> heads(T* x, attention_shape const& s) {
  return {x, {{s.batch, s.length, s.heads, s.head_dim}}};
}
template <class T> std::vector<T> filled(offset_t n) {
  return std::vector<T>(static_cast<std::size_t>(n), from_float<T>(3.0f));
}

/// One problem on both sides: the host's results, and the device's memory.
template <class T> struct fixture {
  attention_shape s;
  nn::attention_options options;
  std::vector<T> qkv, out, d_out, d_qkv;
  std::vector<float> log_sum;
  on_device<T> g_qkv, g_out, g_d_out, g_d_qkv;
  on_device<float> g_log_sum;

  explicit fixture(attention_shape const& is, float scale = 0.0f)
      : s(is),
        options{.scale = scale},
        qkv(values<T>(tokens_of(s) * width_of(s), 1)),
        out(filled<T>(tokens_of(s) * s.heads * s.head_dim)),
        d_out(values<T>(static_cast<offset_t>(out.size()), 2)),
        d_qkv(filled<T>(static_cast<offset_t>(qkv.size()))),
        log_sum(filled<float>(tokens_of(s) * s.heads)),
        g_qkv(qkv),
        g_out(out),
        g_d_out(d_out),
        g_d_qkv(d_qkv),
        g_log_sum(log_sum) {}

  template <space S, class P>
  status forward(P const& on, T* in, T* to, view<float, 3, S> sums, arena<S> work) const {
    return nn::attention(on, part<S>(in, s, 0), part<S>(in, s, 1), part<S>(in, s, 2),
                         heads<S>(to, s), sums, work, options);
  }
  template <space S, class P>
  status backward(P const& on, T* in, T* made, T* gradient, view<float const, 3, S> sums, T* to,
                  arena<S> work) const {
    return nn::attention_backward(on, part<S>(in, s, 0), part<S>(in, s, 1), part<S>(in, s, 2),
                                  heads<S>(made, s), sums, heads<S>(gradient, s), part<S>(to, s, 0),
                                  part<S>(to, s, 1), part<S>(to, s, 2), work, options);
  }
  status host_forward() {
    std::vector<std::byte> work(nn::attention_scratch_bytes(on_host{}, s));
    view<float, 3> const sums(log_sum.data(), {{s.batch, s.heads, s.length}});
    return forward<space::host>(on_host{}, qkv.data(), out.data(), sums, work);
  }
  status host_backward() {
    std::vector<std::byte> work(nn::attention_backward_scratch_bytes(on_host{}, s));
    view<float const, 3> const sums(log_sum.data(), {{s.batch, s.heads, s.length}});
    return backward<space::host>(on_host{}, qkv.data(), out.data(), d_out.data(), sums,
                                 d_qkv.data(), work);
  }
  status device_forward(on_cuda const& on = {}) {
    return forward<space::device>(on, g_qkv.data(), g_out.data(),
                                  g_log_sum.as(s.batch, s.heads, s.length), {});
  }
  status device_backward(arena<space::device> work, on_cuda const& on = {}) {
    return backward<space::device>(on, g_qkv.data(), g_out.data(), g_d_out.data(),
                                   g_log_sum.as(s.batch, s.heads, s.length), g_d_qkv.data(), work);
  }
};
on_device<std::byte> backward_work(attention_shape const& s) {
  return on_device<std::byte>(
      static_cast<offset_t>(nn::attention_backward_scratch_bytes(on_cuda{}, s)));
}

template <class T> std::vector<double> in_double(std::vector<T> const& x) {
  std::vector<double> d;
  for (T const& e : x) d.push_back(static_cast<double>(to_float(e)));
  return d;
}
/// q, k or v of [T,(heads + 2 kv_heads) D], without the others.
template <class T>
std::vector<T> only(std::vector<T> const& all, attention_shape const& s, int which) {
  offset_t const d = s.head_dim, from = which == 0 ? 0 : (s.heads + (which - 1) * s.kv_heads) * d;
  offset_t const count = (which == 0 ? s.heads : s.kv_heads) * d;
  std::vector<T> part;
  for (offset_t t = 0; t < tokens_of(s); ++t) {
    auto const at = all.begin() + t * width_of(s) + from;
    part.insert(part.end(), at, at + count);
  }
  return part;
}
oracle::attention_sizes sizes_of(attention_shape const& s, float scale) {
  auto const n = [](index_t x) { return static_cast<std::size_t>(x); };
  return {n(s.batch),
          n(s.length),
          n(s.heads),
          n(s.kv_heads),
          n(s.head_dim),
          scale != 0 ? static_cast<double>(scale) : 1 / std::sqrt(static_cast<double>(s.head_dim))};
}
/// Tensor cores round each weight to T before it meets a vector, and the result: of the magnitudes.
template <class T> constexpr double roundings = unit_roundoff<T>() * 0x1p24 + 64;

template <class T> void expect_near(fixture<T> const& q) {
  auto const want =
      oracle::attention(sizes_of(q.s, q.options.scale), in_double(only(q.qkv, q.s, 0)),
                        in_double(only(q.qkv, q.s, 1)), in_double(only(q.qkv, q.s, 2)));
  EXPECT_TRUE(close(q.g_out.host(), want.out, roundings<T>));
  auto const log_sum = q.g_log_sum.host();
  for (std::size_t i = 0; i < log_sum.size(); ++i) {
    ASSERT_NEAR(log_sum[i], want.log_sum[i], 4e-6 * (1 + std::abs(want.log_sum[i])));
  }
}
template <class T> void expect_gradients_near(fixture<T> const& q) {
  auto const want =
      oracle::attention_backward(sizes_of(q.s, q.options.scale), in_double(only(q.qkv, q.s, 0)),
                                 in_double(only(q.qkv, q.s, 1)), in_double(only(q.qkv, q.s, 2)),
                                 in_double(q.out), in_double(q.d_out));
  auto const got = q.g_d_qkv.host();
  EXPECT_TRUE(close(only(got, q.s, 0), want.d_q, roundings<T>));
  EXPECT_TRUE(close(only(got, q.s, 1), want.d_k, roundings<T>));
  EXPECT_TRUE(close(only(got, q.s, 2), want.d_v, roundings<T>));
}
on_cuda const exact{.products = arithmetic::exact};
template <class T> bool on_tensor_cores(attention_shape const& s) {
  return sizeof(T) == 2 && s.head_dim <= 128;
}

template <class T> class CudaAttention : public testing::Test {};
using types = testing::Types<float, bf16>;
TYPED_TEST_SUITE(CudaAttention, types);

TYPED_TEST(CudaAttention, ForwardAndBackwardAreTheHosts) {
  for (attention_shape const& s : shapes) {
    SCOPED_TRACE(name_of(s));
    fixture<TypeParam> q(s, s.length == 65 ? 0.3f : 0.0f);
    EXPECT_EQ(nn::attention_scratch_bytes(on_cuda{}, s), 0u);
    auto const work = backward_work(s);
    ASSERT_TRUE(q.host_forward().ok());
    ASSERT_TRUE(q.host_backward().ok());
    status done = q.device_forward();
    ASSERT_TRUE(done.ok()) << done.message();
    if (on_tensor_cores<TypeParam>(s)) {
      expect_near(q);
      q.g_out.fill(q.out);  // backward is held to what is made of the same
      q.g_log_sum.fill(q.log_sum);
      done = q.device_backward({work.data(), work.size()});
      ASSERT_TRUE(done.ok()) << done.message();
      expect_gradients_near(q);
      ASSERT_TRUE(q.device_forward(exact).ok());
    }
    EXPECT_TRUE(same_values(q.g_out.host(), q.out));
    EXPECT_TRUE(same_values(q.g_log_sum.host(), q.log_sum));
    done = q.device_backward({work.data(), work.size()}, exact);
    ASSERT_TRUE(done.ok()) << done.message();
    EXPECT_TRUE(same_values(q.g_d_qkv.host(), q.d_qkv));
  }
}

TYPED_TEST(CudaAttention, ACacheFedInPiecesHasTheBitsOfTheWhole) {
  using T = TypeParam;
  for (attention_shape const& s : {shapes[3],
                                   shapes[5],
                                   shapes[8],
                                   shapes[11],
                                   shapes[12],
                                   shapes[13],
                                   attention_shape{65, 3, 12, 4, 40},
                                   {1, 12, 1, 1, 260}}) {
    SCOPED_TRACE(name_of(s));
    fixture<T> q(s);
    ASSERT_TRUE(on_tensor_cores<T>(s) ? q.device_forward().ok() : q.host_forward().ok());
    if (on_tensor_cores<T>(s)) q.out = q.g_out.host();
    q.g_out.fill(std::vector<T>(q.out.size()));
    nn::kv_cache<T, space::device> cache{nullptr, s.batch, s.length + 3, s.kv_heads, s.head_dim};
    on_device<T> const memory(cache.elements());
    cache.memory = memory.data();
    auto const all = [&](int which) { return part<space::device>(q.g_qkv.data(), s, which); };
    auto const cut = [](auto x, index_t first, index_t count) {
      return view<typename decltype(x)::element_type, 4, space::device>(
          x.data() + first * x.stride(1), {{x.extent(0), count, x.extent(2), x.extent(3)}},
          x.strides());
    };
    EXPECT_EQ(nn::cache_attend_scratch_bytes(on_cuda{}, s.head_dim), 0u);
    for (index_t first = 0, each = s.length * 2 / 3 + 1; first < s.length;
         first += each, each = each == 1 ? 5 : 1) {
      index_t const count = std::min(each, s.length - first);
      ASSERT_TRUE(nn::cache_append(on_cuda{}, cut(all(1), first, count), cut(all(2), first, count),
                                   cache, first)
                      .ok());
      auto const to = cut(heads<space::device>(q.g_out.data(), s), first, count);
      status const done =
          nn::cache_attend(on_cuda{}, cut(all(0), first, count), cache, first, to, {});
      ASSERT_TRUE(done.ok()) << done.message();
    }
    EXPECT_TRUE(same_values(q.g_out.host(), q.out));
  }
}

// Two thirds of the tokens at a position in memory that is common, then sequence by sequence at
// positions of their own, where the others have none: those are left out and get zeros.
TYPED_TEST(CudaAttention, ACacheFedAtPositionsInMemoryHasTheBitsOfTheWhole) {
  using T = TypeParam;
  for (attention_shape const& s :
       {attention_shape{2, 70, 6, 2, 32}, {3, 5, 4, 2, 8}, {2, 70, 5, 1, 130}, {2, 6, 1, 1, 260}}) {
    SCOPED_TRACE(name_of(s));
    fixture<T> q(s);
    ASSERT_TRUE(on_tensor_cores<T>(s) ? q.device_forward().ok() : q.host_forward().ok());
    if (on_tensor_cores<T>(s)) q.out = q.g_out.host();
    index_t const capacity = s.length + 3, common = s.length * 2 / 3, rest = s.length - common;
    nn::kv_cache<T, space::device> cache{nullptr, s.batch, capacity, s.kv_heads, s.head_dim};
    on_device<T> const memory(cache.elements());
    cache.memory = memory.data();
    auto const cut = [](auto x, index_t first, index_t count) {
      return view<typename decltype(x)::element_type, 4, space::device>(
          x.data() + first * x.stride(1), {{x.extent(0), count, x.extent(2), x.extent(3)}},
          x.strides());
    };
    auto const all = [&](int which) { return part<space::device>(q.g_qkv.data(), s, which); };
    offset_t const row = offset_t{s.heads} * s.head_dim;
    std::vector<T> got(q.out.size());
    // The rows that a call at `at` makes: into `got` those of sequences [b, last), zeros in the others.
    auto const feed = [&](std::vector<index_t> const& at, index_t first, index_t count, offset_t b,
                          offset_t last) {
      on_device<index_t> const positions(at);
      on_device<T> const out(filled<T>(s.batch * count * row));
      auto const p = positions.as(at.size());
      ASSERT_TRUE(nn::cache_append(on_cuda{}, cut(all(1), first, count), cut(all(2), first, count),
                                   cache, p)
                      .ok());
      status const done = nn::cache_attend(on_cuda{}, cut(all(0), first, count), cache, p,
                                           out.as(s.batch, count, s.heads, s.head_dim), {});
      ASSERT_TRUE(done.ok()) << done.message();
      auto const made = out.host();
      for (offset_t n = 0; n < s.batch; ++n) {
        auto const from = made.begin() + n * count * row, to = from + count * row;
        if (n >= b && n < last) {
          std::copy(from, to, got.begin() + (n * s.length + first) * row);
        } else {
          EXPECT_TRUE(std::all_of(from, to, [](T x) { return to_float(x) == 0.0f; })) << n;
        }
      }
    };
    feed({0}, 0, common, 0, s.batch);
    for (index_t b = 0; b < s.batch; ++b) {
      std::vector<index_t> at(static_cast<std::size_t>(s.batch), b % 2 == 0 ? capacity : -1);
      at[static_cast<std::size_t>(b)] = common;
      feed(at, common, rest, b, b + 1);
    }
    EXPECT_TRUE(same_values(got, q.out));
  }
}

TEST(CudaAttention, Fp16IsNear) {
  for (attention_shape const& s : {shapes[8], shapes[11]}) {
    fixture<fp16> q(s);
    auto const work = backward_work(s);
    ASSERT_TRUE(q.device_forward().ok());
    ASSERT_TRUE(q.device_backward({work.data(), work.size()}).ok());
    expect_near(q);
    q.out = q.g_out.host();
    expect_gradients_near(q);
  }
}

TEST(CudaAttention, ATokenDoesNotDependOnLaterOnesWhateverTheyHold) {
  attention_shape const s{1, 40, 2, 1, 8};
  fixture<float> q(s);
  ASSERT_TRUE(q.device_forward().ok());
  auto const want = q.g_out.host();
  auto spoilt = q.qkv;
  std::fill(spoilt.begin() + 30 * width_of(s), spoilt.end(),
            std::numeric_limits<float>::infinity());
  q.g_qkv.fill(spoilt);
  ASSERT_TRUE(q.device_forward().ok());
  auto const got = q.g_out.host();
  auto const first = [](std::vector<float> const& x) {
    return std::vector<float>(x.begin(), x.begin() + 30 * 16);
  };
  EXPECT_TRUE(same_values(first(got), first(want)));
}

TEST(CudaAttention, CapturedForwardAndBackwardReplayedWithOtherValues) {
  attention_shape const s{2, 67, 4, 2, 24};
  fixture<float> q(s);
  auto const work = backward_work(s);
  captured graph([&](on_cuda const& on) {
    status const done = q.device_forward(on);
    return done.ok() ? q.device_backward({work.data(), work.size()}, on) : done;
  });
  for (std::uint64_t seed : {7, 8}) {
    q.qkv = values<float>(static_cast<offset_t>(q.qkv.size()), seed);
    q.g_qkv.fill(q.qkv);
    graph.replay();
    ASSERT_TRUE(q.host_forward().ok());
    ASSERT_TRUE(q.host_backward().ok());
    EXPECT_TRUE(same_values(q.g_out.host(), q.out));
    EXPECT_TRUE(same_values(q.g_d_qkv.host(), q.d_qkv));
  }
}

TEST(CudaAttention, RefusalsAreSentencesAndEnqueueNothing) {
  attention_shape const s{1, 8, 3, 2, 8};
  fixture<float> q(s);
  expect_error(
      q.device_forward(), error::bad_shape,
      "attention: 3 heads and 2 key/value heads; the first must be a multiple of the second, both "
      "at least 1");
  fixture<float> r({1, 8, 2, 2, 8});
  expect_error(r.device_backward({}), error::arena_too_small,
               "attention_backward: the arena has 0 bytes; it must have 128 (ask an arena that is "
               "measuring)");
  nn::kv_cache<float, space::device> const none{nullptr, 1, 8, 1, 8};
  auto const k = view<float, 4, space::device>(q.g_qkv.data(), {{1, 8, 1, 8}});
  expect_error(nn::cache_append(on_cuda{}, k, k, none, 0), error::null_pointer,
               "cache_append.cache: the pointer is null; it must point to 2560 elements");
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_TRUE(same_values(q.g_out.host(), q.out));
  EXPECT_TRUE(same_values(r.g_d_qkv.host(), r.d_qkv));
}

}  // namespace nn_attention_test
}  // namespace shunt::test
