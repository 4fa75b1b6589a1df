// The layer with weights wherever and however they lie, a user's own activation, and stored in bf16.
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "shunt/layer.hpp"
#include "support/halves_apart.hpp"
#include "support/layer_cases.hpp"

namespace shunt::test {
namespace layer_layout_test {

on_host const one{.threads = 1};

/// The same weights [gate; up], their rows laid out anew.
template <class T>
guarded<T> laid_out(guarded<T> const& from, int experts, int half, int columns, pair_layout to) {
  layer_formula f;
  f.up_first = to.order == pair_order::up_gate;
  f.interleave = static_cast<int>(to.block);
  guarded<T> all(from.size());
  for (int e = 0; e < experts; ++e) {
    for (int h = 0; h < 2; ++h) {
      for (int i = 0; i < half; ++i) {
        auto const row = [&](int r) {
          return static_cast<std::size_t>((e * 2 * half + r) * columns);
        };
        std::memcpy(&all[row(f.column(h, i, half))], &from[row(h * half + i)],
                    static_cast<std::size_t>(columns) * sizeof(T));
      }
    }
  }
  return all;
}

/// Forward and backward with weights, and gradients of weights to d's buffers, but those of the first
/// matrices, which go to `up` and `shared_up`.
template <class T> struct own_run {
  guarded<T> y, d_x;
  gradient_buffers d;
  status forward{}, backward{};

  explicit own_run(layer_setup<T> const& s) : y(s.x.size()), d_x(s.x.size()), d(s) {}
  void run(layer_setup<T> const& s, moe_weights<T> const& w, expert_gradient<> const& up,
           expert_gradient<> const& shared_up) {
    layer_formula const& f = s.is.f;
    auto const o = s.options();
    guarded<std::byte> work(moe_layer_scratch_bytes(one, f.tokens, w, o));
    guarded<std::byte> keep(moe_saved_bytes(f.tokens, w, o));
    arena<> from(keep);
    auto const saved = carve_moe_saved(from, f.tokens, w, o);
    auto const x = s.x.as(f.tokens, f.width);
    forward = moe_layer(one, x, w, y.as(f.tokens, f.width), {.saved = &saved}, arena<>(work), o);
    work = guarded<std::byte>(moe_layer_backward_scratch_bytes(one, f.tokens, w, o));
    moe_gradients<> to = d.views(f, {});
    to.up = up;
    to.shared_up = shared_up;
    backward = moe_layer_backward(one, x, w, s.d_y.as(f.tokens, f.width), saved,
                                  d_x.as(f.tokens, f.width), to, arena<>(work), o);
  }
};

template <class T> void every_layout() {
  layer_case c = family("qwen_shared_gate");
  c.f.biases = true;
  layer_setup<T> const s(c);
  layer_formula const& f = s.is.f;
  int const L = f.local(), I = f.intermediate, H = f.hidden;
  layer_run<T> plain(one, s, s.options());
  ASSERT_TRUE(plain.backward.ok()) << plain.backward.message();
  auto const same = [&](own_run<T> const& r) {
    ASSERT_TRUE(r.forward.ok()) << r.forward.message();
    ASSERT_TRUE(r.backward.ok()) << r.backward.message();
    EXPECT_TRUE(same_bits(r.y, plain.y) && same_bits(r.d_x, plain.d_x));
    EXPECT_TRUE(same_bits(r.d.down, plain.d.down));
  };

  for (pair_layout how : {pair_layout{pair_order::up_gate, 0}, pair_layout{pair_order::gate_up, 1},
                          pair_layout{pair_order::up_gate, 1}, pair_layout{pair_order::gate_up, 4},
                          pair_layout{pair_order::up_gate, 32}}) {
    SCOPED_TRACE(testing::Message()
                 << "block " << how.block << ", up first " << (how.order == pair_order::up_gate));
    auto const up = laid_out(s.up, L, I, H, how);
    auto const bias = laid_out(s.up_bias, L, I, 1, how);
    auto const shared = laid_out(s.shared_up, 1, f.shared, f.width, how);
    moe_weights<T> w = s.weights();
    w.up = {up.as(L, 2 * I, H), how};
    w.up_bias = bias.as(L, 2 * I);
    w.shared_up = {shared.as(1, 2 * f.shared, f.width), how};
    own_run<T> r(s);
    auto const to = r.d.views(f, how);
    r.run(s, w, to.up, to.shared_up);
    same(r);
    EXPECT_TRUE(same_bits(r.d.up, laid_out(plain.d.up, L, I, H, how)));
    EXPECT_TRUE(same_bits(r.d.up_bias, laid_out(plain.d.up_bias, L, I, 1, how)));
    EXPECT_TRUE(same_bits(r.d.shared_up, laid_out(plain.d.shared_up, 1, f.shared, f.width, how)));
  }
  // Gate and up as tensors of their own, and their gradients.
  halves_apart<T> const up(s.up, L, I, H, 2), shared(s.shared_up, 1, f.shared, f.width);
  moe_weights<T> w = s.weights();
  w.up = up.weights();
  w.shared_up = shared.weights();
  halves_apart<float> const d_up(L, I, H), d_shared(1, f.shared, f.width, 2);
  own_run<T> r(s);
  r.run(s, w, d_up.gradients(), d_shared.gradients());
  same(r);
  EXPECT_TRUE(same_bits(d_up.together(), plain.d.up));
  EXPECT_TRUE(same_bits(r.d.up_bias, plain.d.up_bias));
  EXPECT_TRUE(same_bits(d_shared.together(), plain.d.shared_up) && d_shared.clean_between());
}
TEST(LayerLayout, Battery23_HalvesInEitherOrderInterleavedOrApart) { every_layout<float>(); }
TEST(LayerLayout, Battery23_HalvesInEitherOrderInterleavedOrApartInBf16) { every_layout<bf16>(); }

TEST(LayerLayout, OnePointerForEachExpert) {
  layer_setup<float> const s(family("gpt_oss"));
  layer_formula const& f = s.is.f;
  layer_run<float> plain(one, s, s.options());
  // Each expert's matrices in memory of their own, in reverse order.
  std::vector<guarded<float>> up, down, bias;
  std::vector<float const*> ups, downs, biases;
  auto const matrix = [](guarded<float> const& from, int e) {
    std::size_t const each = from.size() / 7;
    guarded<float> m(each);
    std::memcpy(m.data(), from.data() + static_cast<std::size_t>(e) * each, each * sizeof(float));
    return m;
  };
  for (int e = 6; e >= 0; --e) {
    up.push_back(matrix(s.up, e));
    down.push_back(matrix(s.down, e));
    bias.push_back(matrix(s.down_bias, e));
  }
  for (std::size_t e = 7; e-- > 0;) {
    ups.push_back(up[e].data());
    downs.push_back(down[e].data());
    biases.push_back(bias[e].data());
  }
  moe_weights<float> w = s.weights();
  w.up = expert_matrix<float>::each(view<float const* const, 1>(ups.data(), {{7}}),
                                    2 * f.intermediate, f.hidden, s.layout());
  w.down = expert_matrix<float>::each(view<float const* const, 1>(downs.data(), {{7}}), f.hidden,
                                      f.intermediate);
  w.down_bias =
      expert_vector<>::each<float>(view<float const* const, 1>(biases.data(), {{7}}), f.hidden);
  layer_run<float> apart(one, s, s.options(), w, true);
  EXPECT_TRUE(same_results(plain, apart));
}

template <class T> void packed() {
  for (auto const& configs : host_arithmetics<T>()) {
    layer_case c = family("kimi_k3");
    c.f.tokens = 40;
    layer_setup<T> const s(c);
    layer_run<T> plain(configs.front(), s, s.options());
    moe_weights<T> w = s.weights();
    auto const pack = [&](expert_matrix<T> const& m, guarded<T>& to) {
      to = guarded<T>(static_cast<std::size_t>(m.packed_elements()));
      view<T, 1> const memory(to.data(), {{m.packed_elements()}});
      EXPECT_TRUE(pack_weights(one, m, memory).ok());
      return m.has_pairs()
                 ? expert_matrix<T>::packed(to.data(), m.experts(), m.rows(), m.columns(),
                                            m.pairs())
                 : expert_matrix<T>::packed(to.data(), m.experts(), m.rows(), m.columns());
    };
    guarded<T> up, down, shared_up, shared_down;
    w.up = pack(w.up, up);
    w.down = pack(w.down, down);
    w.shared_up = pack(w.shared_up, shared_up);
    w.shared_down = pack(w.shared_down, shared_down);
    for (on_host const& on : configs) {
      SCOPED_TRACE(name_of(on));
      layer_run<T> fast(on, s, s.options(), w, true);
      EXPECT_TRUE(same_results(plain, fast));
    }
  }
}
TEST(LayerLayout, PackedWeightsGiveTheSameBits) { packed<float>(); }
TEST(LayerLayout, PackedWeightsGiveTheSameBitsInBf16) { packed<bf16>(); }

TEST(LayerLayout, Bf16IsTheSameBitsOnAnyThreadCount) {
  for (char const* name : {"deepseek_v3", "kimi_k3", "longcat", "llama4", "gpt_oss"}) {
    SCOPED_TRACE(name);
    layer_case c = family(name);
    c.f.tokens = 131;
    layer_setup<bf16> const s(c);
    layer_run<bf16> first(one, s, s.options());
    for (int threads : {2, 7}) {
      layer_run<bf16> again(on_host{.threads = threads}, s, s.options());
      EXPECT_TRUE(same_results(first, again));
    }
  }
}

TEST(LayerLayout, Battery26_RowsThatAreNotAlignedGiveTheSameBits) {
  layer_setup<float> const s(family("deepseek_v3"));
  layer_formula const& f = s.is.f;
  auto const o = s.options();
  layer_run<float> plain(one, s, o);
  // Rows three floats apart from each other, starting one float into the buffer.
  offset_t const stride = f.width + 3;
  auto const wide = [&](guarded<float>& memory) {
    memory = guarded<float>(static_cast<std::size_t>(1 + f.tokens * stride));
    return view<float, 2>(memory.data() + 1, {{f.tokens, f.width}}, {{stride, 1}});
  };
  guarded<float> xs, ys, d_ys, d_xs;
  auto const x = wide(xs), y = wide(ys), d_y = wide(d_ys), d_x = wide(d_xs);
  for (int t = 0; t < f.tokens; ++t) {
    for (int h = 0; h < f.width; ++h) {
      x(t, h) = s.x[static_cast<std::size_t>(t * f.width + h)];
      d_y(t, h) = s.d_y[static_cast<std::size_t>(t * f.width + h)];
    }
  }
  auto const w = s.weights();
  guarded<std::byte> work(std::max(moe_layer_scratch_bytes(one, f.tokens, w, o),
                                   moe_layer_backward_scratch_bytes(one, f.tokens, w, o)) +
                          1);
  guarded<std::byte> keep(moe_saved_bytes(f.tokens, w, o) + 1);
  arena<> const scratch(work.data() + 1, work.size() - 1);  // not aligned either
  arena<> from(keep.data() + 1, keep.size() - 1);
  auto const saved = carve_moe_saved(from, f.tokens, w, o);
  ASSERT_TRUE(from.fits());
  ASSERT_TRUE(moe_layer(one, x, w, y, {.saved = &saved}, scratch, o).ok());
  ASSERT_TRUE(moe_layer_backward(one, x, w, d_y, saved, d_x, {}, scratch, o).ok());
  for (int t = 0; t < f.tokens; ++t) {
    for (int h = 0; h < f.width; ++h) {
      ASSERT_EQ(y(t, h), plain.y[static_cast<std::size_t>(t * f.width + h)]);
      ASSERT_EQ(d_x(t, h), plain.d_x[static_cast<std::size_t>(t * f.width + h)]);
    }
    for (int h = f.width; h < stride && t + 1 < f.tokens; ++h) {
      ASSERT_TRUE(std::isnan(ys[static_cast<std::size_t>(1 + t * stride + h)])) << "beside a row";
    }
  }
}

/// SwiGLU, written by a user.
struct my_swiglu {
  static constexpr bool gated = true;
  float value(float g, float u) const noexcept { return slopes(g, u).value; }
  slopes_of_pair slopes(float g, float u) const noexcept {
    float const s = math::sigmoid(g), f = g * s;
    return {f * u, s * math::fma(g, 1.0f - s, 1.0f) * u, f};
  }
};

TEST(LayerLayout, AUsersOwnActivationIsAsGoodAsOurs) {
  layer_setup<float> const s(family("qwen_shared_gate"));
  layer_run<float> ours(one, s, s.options());
  layer_options<my_swiglu> o;
  o.top_k = s.is.f.top_k;
  o.route = s.is.route;
  for (on_host const& on : host_configs()) {
    SCOPED_TRACE(name_of(on));
    layer_run<float> own(on, s, o);
    EXPECT_TRUE(same_results(ours, own));
  }
}

TEST(LayerLayout, OptionsAreDesignatedAndTheActivationSwigluUnlessNamed) {
  layer_setup<float> const s(family("mixtral"));
  layer_formula const& f = s.is.f;
  layer_run<float> expected(one, s, s.options(), false);
  auto const w = s.weights();
  layer_options<> const o{.top_k = 2, .route = {.gates = gate_kind::renormalized}};
  guarded<std::byte> work(moe_layer_scratch_bytes(one, f.tokens, w, o));
  guarded<float> y(s.x.size());
  ASSERT_TRUE(moe_layer(one, s.x.as(f.tokens, f.width), w, y.as(f.tokens, f.width), arena<>(work),
                        {.top_k = 2, .route = {.gates = gate_kind::renormalized}})
                  .ok());
  EXPECT_TRUE(same_bits(y, expected.y));
}

TEST(LayerLayout, BfloatWeightsWithAFloatGateAndAFloatInputGradient) {
  layer_setup<bf16> const s(family("olmoe"));
  layer_formula const& f = s.is.f;
  layer_run<bf16> plain(one, s, s.options());
  guarded<float> gate(s.gate.size()), d_x(s.x.size());
  for (std::size_t i = 0; i < gate.size(); ++i) gate[i] = to_float(s.gate[i]);
  moe_weights<bf16> const narrow = s.weights();
  moe_weights<bf16, float> w;
  w.gate = gate.as(f.experts, f.width);
  w.up = narrow.up;
  w.down = narrow.down;
  auto const o = s.options();
  guarded<std::byte> keep(moe_saved_bytes(f.tokens, w, o));
  guarded<std::byte> work(std::max(moe_layer_scratch_bytes(one, f.tokens, w, o),
                                   moe_layer_backward_scratch_bytes(one, f.tokens, w, o)));
  arena<> from(keep);
  auto const saved = carve_moe_saved(from, f.tokens, w, o);
  guarded<bf16> y(s.x.size());
  gradient_buffers d(s);
  auto const x = s.x.as(f.tokens, f.width);
  ASSERT_TRUE(
      moe_layer(one, x, w, y.as(f.tokens, f.width), {.saved = &saved}, arena<>(work), o).ok());
  EXPECT_TRUE(same_bits(y, plain.y));
  status const done =
      moe_layer_backward(one, x, w, s.d_y.as(f.tokens, f.width), saved, d_x.as(f.tokens, f.width),
                         d.views(f, s.layout()), arena<>(work), o);
  ASSERT_TRUE(done.ok()) << done.message();
  for (std::size_t i = 0; i < d_x.size(); ++i) {
    ASSERT_EQ(from_float<bf16>(d_x[i]).bits, plain.d_x[i].bits) << "not rounded once";
  }
}

}  // namespace layer_layout_test
}  // namespace shunt::test
