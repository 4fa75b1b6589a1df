// Combine on a device: the host's bits, in every form, and a captured graph that is replayed.
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "shunt/combine.cuh"
#include "support/device_plan.hpp"
#include "support/shapes.hpp"

namespace shunt::test {
namespace combine_test {

template <class T> view<T, 2> matrix(std::vector<T>& m, offset_t rows, offset_t columns) {
  return {m.data(), {{rows, columns}}};
}
template <class T> void poison(view<T, 2> m, offset_t row) {
  for (offset_t c = 0; c < m.extent(1); ++c) {
    m(row, c) = from_float<T>(std::numeric_limits<float>::quiet_NaN());
  }
}

/// All that combine can be given, on both sides. Tokens that do not count, and rows that no slot has,
/// hold NaN; some slots chose a zero expert.
template <class R, class Y> struct fixture {
  shape s;
  std::vector<index_t> ids;
  std::vector<std::uint8_t> valid;
  plan_fixture host;
  device_plan_fixture device;
  offset_t rows_;
  std::vector<R> rows;
  std::vector<Y> shared, residual, x;
  std::vector<float> gate, shared_gate;
  on_device<index_t> d_ids;
  on_device<std::uint8_t> d_valid;
  on_device<R> d_rows;
  on_device<Y> d_shared, d_residual, d_x;
  on_device<float> d_gate, d_shared_gate;

  static std::vector<index_t> some_ids(shape const& s) {
    auto ids = chosen_experts(s, skew::zipf, 1);
    for (std::size_t i = 0; i < ids.size(); i += 5) ids[i] = -1;
    for (std::size_t i = 3; i < ids.size(); i += 7)
      ids[i] = s.experts + static_cast<index_t>(i % 2);
    return ids;
  }
  static std::vector<std::uint8_t> some_valid(shape const& s) {
    std::vector<std::uint8_t> v(static_cast<std::size_t>(s.tokens), 1);
    for (std::size_t t = 2; t < v.size(); t += 6) v[t] = 0;
    return v;
  }
  static plan_options<> options(shape const& s, std::vector<std::uint8_t> const& valid) {
    plan_options<> o{.segment_multiple = 4, .experts = s.experts, .zero_experts = 2};
    o.valid = valid;
    return o;
  }
  explicit fixture(shape const& is)
      : s(is),
        ids(some_ids(is)),
        valid(some_valid(is)),
        host(plan_of({}, is, ids, options(is, valid), 3)),
        device(is, host),
        rows_(static_cast<offset_t>(host.rows())),
        rows(values<R>(rows_ * is.hidden, 2)),
        shared(values<Y>(offset_t{is.tokens} * is.hidden, 3)),
        residual(values<Y>(offset_t{is.tokens} * is.hidden, 4)),
        x(values<Y>(offset_t{is.tokens} * is.hidden, 5)),
        gate(values<float>(offset_t{is.tokens} * is.top_k, 6)),
        shared_gate(values<float>(is.tokens, 7)),
        d_ids((clean(), ids)),
        d_valid(valid),
        d_rows(rows),
        d_shared(shared),
        d_residual(residual),
        d_x(x),
        d_gate(gate),
        d_shared_gate(shared_gate) {}
  void clean() {
    for (offset_t r = 0; r < rows_; ++r) {
      if (host.row_slot[static_cast<std::size_t>(r)] < 0) poison(matrix(rows, rows_, s.hidden), r);
    }
    for (offset_t t = 0; t < s.tokens; ++t) {
      if (valid[static_cast<std::size_t>(t)] == 0) poison(matrix(x, s.tokens, s.hidden), t);
    }
  }
  /// Options of one side of a form: bit 0 shared, 1 its gate, 2 residual, 3 zero experts, 4 mask.
  combine_options<Y> on_host_side(int form) {
    combine_options<Y> o;
    if (form & 1) o.shared = matrix(shared, s.tokens, s.hidden);
    if ((form & 3) == 3) o.shared_gate = shared_gate;
    if (form & 4) o.residual = matrix(residual, s.tokens, s.hidden);
    if (form & 8)
      o.zero = {.expert = matrix(ids, s.tokens, s.top_k),
                .x = matrix(x, s.tokens, s.hidden),
                .first = s.experts,
                .count = 2};
    if (form & 16) o.valid = valid;
    return o;
  }
  combine_options<Y, space::device> on_device_side(int form) const {
    combine_options<Y, space::device> o;
    if (form & 1) o.shared = d_shared.as(s.tokens, s.hidden);
    if ((form & 3) == 3) o.shared_gate = d_shared_gate.as(s.tokens);
    if (form & 4) o.residual = d_residual.as(s.tokens, s.hidden);
    if (form & 8)
      o.zero = {.expert = d_ids.as(s.tokens, s.top_k),
                .x = d_x.as(s.tokens, s.hidden),
                .first = s.experts,
                .count = 2};
    if (form & 16) o.valid = d_valid.as(s.tokens);
    return o;
  }
};

template <class Pair> class CudaCombine : public testing::Test {};
template <class R, class Y> struct pair {
  using rows = R;
  using tokens = Y;
};
using pairs =
    testing::Types<pair<float, float>, pair<bf16, bf16>, pair<float, bf16>, pair<fp16, float>>;
TYPED_TEST_SUITE(CudaCombine, pairs);

TYPED_TEST(CudaCombine, EveryFormHasTheHostsBits) {
  using R = typename TypeParam::rows;
  using Y = typename TypeParam::tokens;
  for (auto const& named : battery) {
    SCOPED_TRACE(named.name);
    fixture<R, Y> q(named.is);
    shape const& s = q.s;
    auto const h_gate = matrix(q.gate, s.tokens, s.top_k);
    for (int form = 0; form < 32; ++form) {
      if ((form & 3) == 2) continue;  // a shared gate without shared is refused
      bool const weighted = form % 3 != 0;
      std::vector<Y> y(static_cast<std::size_t>(offset_t{s.tokens} * s.hidden));
      on_device<Y> const d_y(static_cast<offset_t>(y.size()));
      ASSERT_TRUE(combine(on_host{}, matrix(q.rows, q.rows_, s.hidden), q.host.plan,
                          weighted ? view<float const, 2>(h_gate) : view<float const, 2>{},
                          matrix(y, s.tokens, s.hidden), q.on_host_side(form))
                      .ok());
      using gates = view<float const, 2, space::device>;
      status const done = combine(on_cuda{}, q.d_rows.as(q.rows_, s.hidden), q.device.plan,
                                  weighted ? gates(q.d_gate.as(s.tokens, s.top_k)) : gates{},
                                  d_y.as(s.tokens, s.hidden), q.on_device_side(form));
      ASSERT_TRUE(done.ok()) << done.message();
      EXPECT_TRUE(same_values(d_y.host(), y)) << "form " << form;
    }
  }
}

TYPED_TEST(CudaCombine, Battery13_EachGradientHasTheHostsBits) {
  using R = typename TypeParam::rows;
  using Y = typename TypeParam::tokens;
  for (auto const& named : battery) {
    SCOPED_TRACE(named.name);
    fixture<R, Y> q(named.is);
    shape const& s = q.s;
    offset_t const tokens = s.tokens, hidden = s.hidden;
    auto d_y = values<Y>(tokens * hidden, 9);
    on_device<Y> const dd_y(d_y);
    for (int form : {0, 1, 3, 8, 11, 16, 27}) {
      bool const with_rows = form != 1, accumulate = form == 27;
      auto const o = q.on_host_side(form);
      auto const d = q.on_device_side(form);
      std::vector<R> rows(q.rows.size());
      std::vector<float> gate(q.gate.size(), 3.0f), shared_gate(q.shared_gate.size());
      std::vector<Y> shared(d_y.size()), residual(d_y.size()), x = q.residual;
      on_device<R> const g_rows(rows);
      on_device<float> const g_gate(gate), g_shared_gate(shared_gate);
      on_device<Y> const g_shared(shared), g_residual(residual), g_x(x);
      combine_gradients<Y> h{.shared = o.shared,
                             .shared_gate = o.shared_gate,
                             .zero = o.zero,
                             .valid = o.valid,
                             .d_gate = matrix(gate, tokens, s.top_k),
                             .d_residual = matrix(residual, tokens, hidden),
                             .d_x = matrix(x, tokens, hidden),
                             .accumulate = accumulate};
      combine_gradients<Y, space::device> g{.shared = d.shared,
                                            .shared_gate = d.shared_gate,
                                            .zero = d.zero,
                                            .valid = d.valid,
                                            .d_gate = g_gate.as(tokens, s.top_k),
                                            .d_residual = g_residual.as(tokens, hidden),
                                            .d_x = g_x.as(tokens, hidden),
                                            .accumulate = accumulate};
      if (form & 1) {
        h.d_shared = matrix(shared, tokens, hidden), h.d_shared_gate = shared_gate;
        g.d_shared = g_shared.as(tokens, hidden), g.d_shared_gate = g_shared_gate.as(tokens);
      }
      auto const h_rows =
          with_rows ? view<R const, 2>(matrix(q.rows, q.rows_, hidden)) : view<R const, 2>{};
      using device_rows = view<R const, 2, space::device>;
      auto const r = with_rows ? device_rows(q.d_rows.as(q.rows_, hidden)) : device_rows{};
      ASSERT_TRUE(combine_backward(on_host{}, matrix(d_y, tokens, hidden), q.host.plan,
                                   matrix(q.gate, tokens, s.top_k), h_rows,
                                   matrix(rows, q.rows_, hidden), h)
                      .ok());
      status const done =
          combine_backward(on_cuda{}, dd_y.as(tokens, hidden), q.device.plan,
                           q.d_gate.as(tokens, s.top_k), r, g_rows.as(q.rows_, hidden), g);
      ASSERT_TRUE(done.ok()) << done.message();
      SCOPED_TRACE(form);
      EXPECT_TRUE(same_values(g_rows.host(), rows));
      EXPECT_TRUE(same_values(g_gate.host(), gate));
      EXPECT_TRUE(same_values(g_residual.host(), residual));
      EXPECT_TRUE(same_values(g_x.host(), x));
      if (form & 1) {
        EXPECT_TRUE(same_values(g_shared.host(), shared));
        EXPECT_TRUE(same_values(g_shared_gate.host(), shared_gate));
      }
    }
  }
}

TEST(CudaCombine, ManyChoicesKeepTheChain) {
  fixture<float, float> q({.tokens = 4, .hidden = 130, .experts = 90, .top_k = 77});
  std::vector<float> y(520);
  on_device<float> const d_y(520);
  ASSERT_TRUE(combine(on_host{}, matrix(q.rows, q.rows_, 130), q.host.plan, matrix(q.gate, 4, 77),
                      matrix(y, 4, 130), q.on_host_side(15))
                  .ok());
  ASSERT_TRUE(combine(on_cuda{}, q.d_rows.as(q.rows_, 130), q.device.plan, q.d_gate.as(4, 77),
                      d_y.as(4, 130), q.on_device_side(15))
                  .ok());
  EXPECT_TRUE(same_values(d_y.host(), y));
}

TEST(CudaCombine, OutputMayLieOnWhatIsAddedToIt) {
  fixture<float, float> q({.tokens = 9, .hidden = 36, .experts = 4, .top_k = 2});
  std::vector<float> y(9 * 36);
  ASSERT_TRUE(combine(on_host{}, matrix(q.rows, q.rows_, 36), q.host.plan, matrix(q.gate, 9, 2),
                      matrix(y, 9, 36), q.on_host_side(4))
                  .ok());
  ASSERT_TRUE(combine(on_cuda{}, q.d_rows.as(q.rows_, 36), q.device.plan, q.d_gate.as(9, 2),
                      q.d_residual.as(9, 36), q.on_device_side(4))
                  .ok());
  EXPECT_TRUE(same_values(q.d_residual.host(), y));
}

/// Plan, dispatch and combine in one graph: replayed, it follows ids that it never saw.
TEST(CudaCombine, CapturedWithThePlanAndReplayed) {
  shape const s{.tokens = 40, .hidden = 24, .experts = 6, .top_k = 2};
  auto x = values<float>(40 * 24, 1);
  auto gate = values<float>(80, 2);
  on_device<float> const d_x(x), d_gate(gate), d_rows(80 * 24), d_y(40 * 24);
  on_device<index_t> ids(std::vector<index_t>(80, 0));
  device_plan_fixture const p(s, 80);
  cudaStream_t stream;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  on_cuda const on{stream};
  on_device<std::byte> const work(static_cast<offset_t>(plan_scratch_bytes(on, s)));
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
  ASSERT_TRUE(plan_dispatch(on, ids.as(40, 2), p.plan, {work.data(), work.size()}).ok());
  ASSERT_TRUE(dispatch(on, d_x.as(40, 24), p.plan, d_rows.as(80, 24)).ok());
  ASSERT_TRUE(combine(on, d_rows.as(80, 24), p.plan, d_gate.as(40, 2), d_y.as(40, 24)).ok());
  cudaGraph_t graph;
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  cudaGraphExec_t exec;
  ASSERT_EQ(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
  for (std::uint64_t seed : {3, 4}) {
    auto const fresh = chosen_experts(s, skew::zipf, seed);
    ids.fill(fresh);
    ASSERT_EQ(cudaGraphLaunch(exec, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    plan_fixture const host = plan_of({}, s, fresh);
    std::vector<float> rows(80 * 24), y(40 * 24);
    ASSERT_TRUE(dispatch(on_host{}, matrix(x, 40, 24), host.plan, matrix(rows, 80, 24)).ok());
    ASSERT_TRUE(
        combine(on_host{}, matrix(rows, 80, 24), host.plan, matrix(gate, 40, 2), matrix(y, 40, 24))
            .ok());
    EXPECT_TRUE(same_values(d_rows.host(), rows));
    EXPECT_TRUE(same_values(d_y.host(), y));
  }
  EXPECT_EQ(cudaGraphExecDestroy(exec), cudaSuccess);
  EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

}  // namespace combine_test
}  // namespace shunt::test
