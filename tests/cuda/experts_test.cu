// The experts' products and activations on a device: the host's bits in every form, and a captured
// graph that is replayed with other segments.
#include <gtest/gtest.h>

#include <memory>

#include "support/device_experts.hpp"
#include "support/device_halves.hpp"
#include "support/halves_apart.hpp"

namespace shunt::test {
namespace experts_test {

struct extents {
  int N, K;
};
// Nothing is a multiple of anything, except where it is of everything.
constexpr extents battery_extents[] = {{1, 1}, {6, 3}, {134, 259}, {64, 64}};

template <class T> class CudaExperts : public testing::Test {};
using storage_types = testing::Types<float, bf16, fp16>;
TYPED_TEST_SUITE(CudaExperts, storage_types);

TYPED_TEST(CudaExperts, EachProductHasTheHostsBits) {
  using T = TypeParam;
  for (auto const& [name, lengths] : segment_battery()) {
    for (extents const& size : battery_extents) {
      SCOPED_TRACE(std::string(name) + " N " + std::to_string(size.N));
      product_case<T> x(lengths, size.N, size.K, 7, 3);
      device_product<T> const y(x);
      same_in_both<T>(x, y, x.dc.size(), [](auto on, auto const& s, auto& c) {
        return grouped_gemm(on, s.a.as(s.R, s.K), s.w.as(s.E, s.N, s.K), s.rows, c.as(s.R, s.N));
      });
      same_in_both<T>(x, y, x.a.size(), [](auto on, auto const& s, auto& da) {
        return grouped_dgrad(on, s.dc.as(s.R, s.N), s.w.as(s.E, s.N, s.K), s.rows, da.as(s.R, s.K));
      });
      same_in_both<float>(x, y, x.w.size(), [](auto on, auto const& s, auto& dw) {
        return grouped_wgrad(on, s.dc.as(s.R, s.N), s.a.as(s.R, s.K), s.rows, dw.as(s.E, s.N, s.K));
      });
    }
  }
}

/// Forward (gated and not), dgrad and wgrad with weights that lie as `lying` says of a side.
template <class T, class Lying>
void same_with(product_case<T> const& x, device_product<T> const& y, twin<T>& bias,
               Lying const& lying) {
  same_in_both<float>(x, y, x.dc.size() / 2, [&](auto on, auto const& s, auto& c) {
    return grouped_gemm(on, s.a.as(s.R, s.K), lying(on), s.rows, c.as(s.R, s.N / 2), swiglu{},
                        {.bias = bias.of(on, s.E, s.N)});
  });
  same_in_both<T>(x, y, x.dc.size(), [&](auto on, auto const& s, auto& c) {
    return grouped_gemm(on, s.a.as(s.R, s.K), lying(on), s.rows, c.as(s.R, s.N), identity{},
                        {.bias = bias.of(on, s.E, s.N)});
  });
  same_in_both<float>(x, y, x.a.size(), [&](auto on, auto const& s, auto& da) {
    return grouped_dgrad(on, s.dc.as(s.R, s.N), lying(on), s.rows, da.as(s.R, s.K));
  });
}

/// Weights [3,N,K] of both backends, that tests lay out in many ways.
template <class T> struct weights_anyhow {
  static constexpr int I = 37, N = 2 * I, K = 70;
  product_case<T> x{{9, 0, 70}, N, K};
  device_product<T> const y{x};
  twin<T> bias{as_vector(normal_values<T>(3 * N, 12))};

  auto of(auto on) const {
    if constexpr (decltype(on)::memory == space::host) {
      return x.w.as(3, N, K);
    } else {
      return y.w.as(3, N, K);
    }
  }
  template <class Lying> void same(Lying const& lying) { same_with<T>(x, y, bias, lying); }

  /// Weights and their gradients in an order of the pairs.
  void same_pairs(pair_layout layout) {
    same([&](auto on) { return expert_matrix<T, decltype(on)::memory>(of(on), layout); });
    same_in_both<float>(x, y, x.w.size(), [&](auto on, auto const& s, auto& dw) {
      return grouped_wgrad(on, s.dc.as(s.R, N), s.a.as(s.R, K), s.rows,
                           expert_gradient<decltype(on)::memory>(dw.as(3, N, K), layout));
    });
    same_in_both<float>(x, y, 3 * N, [&](auto on, auto const& s, auto& db) {
      using gradient = expert_gradient<decltype(on)::memory>;
      guarded<float> h(x.w.size());
      on_device<float> d(static_cast<offset_t>(x.w.size()));
      if constexpr (decltype(on)::memory == space::host) {
        return grouped_wgrad(on, s.dc.as(s.R, N), s.a.as(s.R, K), s.rows,
                             gradient(h.as(3, N, K), layout), {.d_bias = db.as(3, N)});
      } else {
        status const done = grouped_wgrad(on, s.dc.as(s.R, N), s.a.as(s.R, K), s.rows,
                                          gradient(d.as(3, N, K), layout), {.d_bias = db.as(3, N)});
        EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        return done;
      }
    });
  }

  /// The same, packed.
  void same_packed(pair_layout layout) {
    auto const elements =
        static_cast<std::size_t>(expert_matrix<T>(x.w.as(3, N, K), layout).packed_elements());
    twin<T> packed{std::vector<T>(elements)};
    same_in_both<T>(x, y, elements, [&](auto on, auto const&, auto& to) {
      using lying = expert_matrix<T, decltype(on)::memory>;
      return pack_weights(on, lying(of(on), layout), to.as(elements));
    });
    ASSERT_TRUE(pack_weights(on_cuda{}, expert_matrix<T, space::device>(of(on_cuda{}), layout),
                             packed.device.as(elements))
                    .ok());
    guarded<T> host_packed(elements);
    ASSERT_TRUE(pack_weights(on_host{}, expert_matrix<T>(of(on_host{}), layout), host_packed).ok());
    same([&](auto on) {
      using lying = expert_matrix<T, decltype(on)::memory>;
      if constexpr (decltype(on)::memory == space::host) {
        return lying::packed(host_packed.data(), 3, N, K, layout);
      } else {
        return lying::packed(packed.device.data(), 3, N, K, layout);
      }
    });
  }

  /// One pointer for each expert.
  void same_each() {
    std::vector<T const*> each_host, each_device;
    for (int e : {2, 0, 1}) {
      each_host.push_back(x.w.data() + e * N * K);
      each_device.push_back(y.w.data() + e * N * K);
    }
    on_device<T const*> const pointers(each_device);
    same([&](auto on) {
      using lying = expert_matrix<T, decltype(on)::memory>;
      if constexpr (decltype(on)::memory == space::host) {
        return lying::each(view<T const* const, 1>(each_host), N, K);
      } else {
        return lying::each(view<T const* const, 1, space::device>(pointers.as(3)), N, K);
      }
    });
  }

  /// Halves apart, with rows that stand apart too.
  void same_apart() {
    halves_apart<T> const apart(x.w, 3, I, K, 3);
    device_halves<T const> const w(apart.weights());
    auto const lying = [&](auto on) {
      if constexpr (decltype(on)::memory == space::host) {
        return apart.weights();
      } else {
        return w.there();
      }
    };
    same(lying);
    auto const elements = static_cast<std::size_t>(apart.weights().packed_elements());
    same_in_both<T>(x, y, elements, [&](auto on, auto const&, auto& to) {
      return pack_weights(on, lying(on), to.as(elements));
    });
  }

  /// Written, then added to.
  void same_gradients_apart() {
    halves_apart<float> const d_apart(3, I, K, 3);
    device_halves<float> const dw(d_apart.gradients());
    for (bool add : {false, true}) {
      same_in_both<float>(x, y, 3 * N, [&](auto on, auto const& s, auto& db) {
        wgrad_options<decltype(on)::memory> const o{.accumulate = add, .d_bias = db.as(3, N)};
        if constexpr (decltype(on)::memory == space::host) {
          return grouped_wgrad(on, s.dc.as(s.R, N), s.a.as(s.R, K), s.rows, d_apart.gradients(), o);
        } else {
          return grouped_wgrad(on, s.dc.as(s.R, N), s.a.as(s.R, K), s.rows, dw.there(), o);
        }
      });
      EXPECT_TRUE(dw.same());
    }
  }
};

TYPED_TEST(CudaExperts, Battery23_WeightsWhereTheyLie) {
  weights_anyhow<TypeParam> w;
  for (pair_order order : {pair_order::gate_up, pair_order::up_gate}) {
    for (index_t block : {0, 1, 3, 64}) {
      SCOPED_TRACE("block " + std::to_string(block));
      w.same_pairs({order, block});
      w.same_packed({order, block});
    }
  }
  w.same([&](auto on) {  // [E,K,N]
    using lying = view<TypeParam const, 3, decltype(on)::memory>;
    return lying(w.of(on).data(), {{3, w.N, w.K}}, {{w.N * w.K, 1, w.N}});
  });
  w.same_each();
  w.same_apart();
  w.same_gradients_apart();
}

/// A user's own, which is none of Shunt's.
struct squared_gate {
  static constexpr bool gated = true;
  float factor = 0.5f;
  SHUNT_HD float value(float g, float u) const noexcept { return slopes(g, u).value; }
  SHUNT_HD slopes_of_pair slopes(float g, float u) const noexcept {
    float const square = g * g;
    return {square * u * factor, 2.0f * g * u * factor, square * factor};
  }
};

template <class T, class Act> void same_activation(Act const& act, offset_t columns) {
  auto const I = static_cast<int>(columns), N = gated(act) ? 2 * I : I;
  constexpr int K = 20;
  product_case<T> x({3, 0, 30, 70}, N, K, 5, 2);
  device_product<T> const y(x);
  twin<T> bias(as_vector(normal_values<T>(static_cast<std::size_t>(x.E * N), 3)));
  twin<float> factor(as_vector(normal_values<float>(static_cast<std::size_t>(x.R), 4)));
  std::vector<index_t> slots(static_cast<std::size_t>(x.R));
  for (std::size_t i = 0; i < slots.size(); ++i) {
    slots[i] = i % 7 == 3 ? -1 : static_cast<index_t>((i * 5) % slots.size());
  }
  twin<index_t> slot(slots);
  auto const size = static_cast<std::size_t>(x.R * I);
  for (bool rounded : {false, true}) {
    same_in_both<T>(x, y, size, [&](auto on, auto const& s, auto& c) {
      return grouped_gemm(on, s.a.as(s.R, K), s.w.as(s.E, N, K), s.rows, c.as(s.R, I), act,
                          {.bias = bias.of(on, s.E, N),
                           .round_pre = rounded,
                           .scale = {factor.of(on, s.R), slot.of(on, s.R)}});
    });
  }
  same_in_both<float>(x, y, x.dc.size(), [&](auto on, auto const& s, auto& pre) {
    guarded<T> h(size);
    on_device<T> d(static_cast<offset_t>(size));
    if constexpr (decltype(on)::memory == space::host) {
      return grouped_gemm(on, s.a.as(s.R, K), s.w.as(s.E, N, K), s.rows, h.as(s.R, I), act,
                          {.bias = bias.of(on, s.E, N), .pre = pre.as(s.R, N)});
    } else {
      status const done = grouped_gemm(on, s.a.as(s.R, K), s.w.as(s.E, N, K), s.rows, d.as(s.R, I),
                                       act, {.bias = bias.of(on, s.E, N), .pre = pre.as(s.R, N)});
      EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      return done;
    }
  });
  same_in_both<T>(x, y, size, [&](auto on, auto const& s, auto& out) {
    return activation_forward(on, s.dc.as(s.R, N), act, out.as(s.R, I),
                              {.rows = s.rows, .scale = {factor.of(on, s.R)}});
  });
  // d_act is the first I columns of the same numbers.
  auto const backward = [&](auto on, auto const& s, auto d_pre, auto extra) {
    auto const wide = s.dc.as(s.R, N);
    view<T const, 2, decltype(on)::memory> const d_act(wide.data(), {{s.R, I}}, {{N, 1}});
    return activation_backward(on, d_act, s.dc.as(s.R, N), act, d_pre,
                               {.rows = s.rows,
                                .scale = {factor.of(on, s.R), slot.of(on, s.R)},
                                .act = extra.first,
                                .d_scale = extra.second});
  };
  same_in_both<T>(x, y, x.dc.size(), [&](auto on, auto const& s, auto& d_pre) {
    constexpr space S = decltype(on)::memory;
    return backward(on, s, d_pre.as(s.R, N), std::pair<matrix_out<S>, view<float, 1, S>>{});
  });
  twin<float> spare(std::vector<float>(x.dc.size()));
  same_in_both<T>(x, y, size, [&](auto on, auto const& s, auto& out) {
    constexpr space S = decltype(on)::memory;
    view<float, 2, S> const d_pre(spare.of(on, x.R, N).data(), {{s.R, N}});
    return backward(on, s, d_pre, std::pair<matrix_out<S>, view<float, 1, S>>{out.as(s.R, I), {}});
  });
  same_in_both<float>(x, y, static_cast<std::size_t>(x.R), [&](auto on, auto const& s, auto& out) {
    constexpr space S = decltype(on)::memory;
    view<float, 2, S> const d_pre(spare.of(on, x.R, N).data(), {{s.R, N}});
    return backward(on, s, d_pre, std::pair<matrix_out<S>, view<float, 1, S>>{{}, out.as(s.R)});
  });
}

TEST(CudaExperts, EveryActivationForwardAndBackward) {
  for (int k = 0; k <= static_cast<int>(activation_kind::situ_glu); ++k) {
    activation const act(static_cast<activation_kind>(k));
    SCOPED_TRACE(to_string(act.kind));
    same_activation<float>(act, 83);
    if (k % 3 == 2) same_activation<bf16>(act, 40);
  }
  same_activation<fp16>(squared_gate{}, 65);
}

// Gathered rows, factors, adding, frozen experts: everything that backward hands to the products.
TYPED_TEST(CudaExperts, GatheredScaledAddedAndFrozen) {
  using T = TypeParam;
  constexpr int N = 50, K = 45, tokens = 31, top_k = 3;
  product_case<T> x({20, 0, 33, 17}, N, K, 2);
  device_product<T> const y(x);
  auto const R = static_cast<std::size_t>(x.R);
  std::vector<index_t> slots(R);
  rng d(4);
  for (std::size_t i = 0; i < R; ++i) {
    slots[i] = i % 9 == 5 ? -1 : static_cast<index_t>(d.bits() % (tokens * top_k));
  }
  twin<index_t> slot(slots);
  twin<float> factor(as_vector(normal_values<float>(tokens * top_k, 8)));
  twin<std::uint8_t> frozen(std::vector<std::uint8_t>{0, 0, 1, 0});
  twin<T> token_a(as_vector(normal_values<T>(tokens * K, 5))),
      token_dc(as_vector(normal_values<T>(tokens * N, 6)));
  auto const options = [&](auto on, auto from) {
    from.scale = {factor.of(on, tokens * top_k), slot.of(on, x.R)};
    return from;
  };
  auto const through = [&](auto on) {
    return row_gather<decltype(on)::memory>{slot.of(on, x.R), top_k};
  };
  same_in_both<T>(x, y, x.dc.size(), [&](auto on, auto const& s, auto& c) {
    gemm_options<decltype(on)::memory> o;
    o.gather = through(on);
    return grouped_gemm(on, token_a.of(on, tokens, K), s.w.as(s.E, N, K), s.rows, c.as(s.R, N),
                        relu{}, options(on, o));
  });
  for (bool add : {false, true}) {
    same_in_both<T>(
        x, y, x.a.size(),
        [&](auto on, auto const& s, auto& da) {
          dgrad_options<decltype(on)::memory> o;
          o.gather = through(on);
          o.accumulate = add;
          return grouped_dgrad(on, token_dc.of(on, tokens, N), s.w.as(s.E, N, K), s.rows,
                               da.as(s.R, K), options(on, o));
        },
        normal_values<T>(x.a.size(), 11));
    for (int which : {0, 1, 2, 3}) {
      same_in_both<float>(
          x, y, x.w.size(),
          [&](auto on, auto const& s, auto& dw) {
            constexpr space S = decltype(on)::memory;
            wgrad_options<S> o;
            o.accumulate = add;
            if (which & 1) o.gather_dc = through(on);
            if (which & 2) o.gather_a = through(on);
            if (which == 3) o.frozen = frozen.of(on, 4);
            using rows = view<T const, 2, S>;
            rows const dc = which & 1 ? rows(token_dc.of(on, tokens, N)) : rows(s.dc.as(s.R, N));
            rows const a = which & 2 ? rows(token_a.of(on, tokens, K)) : rows(s.a.as(s.R, K));
            return grouped_wgrad(on, dc, a, s.rows, dw.as(s.E, N, K), options(on, o));
          },
          normal_values<float>(x.w.size(), 12));
    }
  }
}

TEST(CudaExperts, Battery18_CapturedAndReplayedWithOtherSegments) {
  constexpr int N = 70, K = 40, I = N / 2;
  product_case<float> x({30, 0, 41}, N, K, 3);
  device_product<float> const y(x);
  on_device<float> const act(x.R * I), da(x.R * K), dw(x.E * N * K);
  cudaStream_t stream;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
  on_cuda const on{stream};
  EXPECT_TRUE(
      grouped_gemm(on, y.a.as(x.R, K), y.w.as(3, N, K), y.rows, act.as(x.R, I), swiglu{}).ok());
  EXPECT_TRUE(grouped_dgrad(on, y.dc.as(x.R, N), y.w.as(3, N, K), y.rows, da.as(x.R, K)).ok());
  EXPECT_TRUE(grouped_wgrad(on, y.dc.as(x.R, N), y.a.as(x.R, K), y.rows, dw.as(3, N, K)).ok());
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
  for (auto const& lengths : {std::vector<index_t>{30, 0, 41}, {1, 70, 0}, {0, 0, 0}, {71, 0, 0}}) {
    auto const offset = offsets_of(lengths);
    for (int i = 0; i < 4; ++i)
      x.offset[static_cast<std::size_t>(i)] = offset[static_cast<std::size_t>(i)];
    const_cast<on_device<index_t>&>(y.offset).fill(offset);
    guarded<float> h_act(act.size()), h_da(da.size()), h_dw(dw.size());
    const_cast<on_device<float>&>(act).fill(as_vector(h_act));
    const_cast<on_device<float>&>(da).fill(as_vector(h_da));
    ASSERT_EQ(cudaGraphLaunch(exec, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    ASSERT_TRUE(
        grouped_gemm(on_host{}, x.a.as(x.R, K), x.w.as(3, N, K), x.rows, h_act.as(x.R, I), swiglu{})
            .ok());
    ASSERT_TRUE(
        grouped_dgrad(on_host{}, x.dc.as(x.R, N), x.w.as(3, N, K), x.rows, h_da.as(x.R, K)).ok());
    ASSERT_TRUE(
        grouped_wgrad(on_host{}, x.dc.as(x.R, N), x.a.as(x.R, K), x.rows, h_dw.as(3, N, K)).ok());
    EXPECT_TRUE(same_values(act.host(), as_vector(h_act)));
    EXPECT_TRUE(same_values(da.host(), as_vector(h_da)));
    EXPECT_TRUE(same_values(dw.host(), as_vector(h_dw)));
  }
  ASSERT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
  ASSERT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  ASSERT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

TEST(CudaExperts, BadArgumentsAreSaidAndNothingIsWritten) {
  product_case<float> x({3, 4}, 6, 7);
  device_product<float> const y(x);
  on_device<float> const c(std::vector<float>(static_cast<std::size_t>(x.R * 6), 5.0f));
  status const bad = grouped_gemm(on_cuda{}, y.a.as(x.R, 6), y.w.as(2, 6, 7), y.rows, c.as(x.R, 6));
  EXPECT_FALSE(bad.ok());
  EXPECT_NE(std::string(bad.message()).find("grouped_gemm.a"), std::string::npos) << bad.message();
  EXPECT_FALSE(
      grouped_dgrad(on_cuda{}, y.dc.as(x.R, 6), y.w.as(1, 6, 7), y.rows, c.as(x.R, 7)).ok());
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (float v : c.host()) EXPECT_EQ(v, 5.0f);
}

}  // namespace experts_test
}  // namespace shunt::test
