// ggml: the graph that its models compute for experts, on its CPU backend: tokens with K experts each,
// gate and up in one product, SwiGLU, down; rows and outputs are floats. ik_llama.cpp's ggml has gate, up
// and SwiGLU in one operation.
#include "peers/ggml_weights.hpp"

#include <cstdio>
#include <cstdlib>

#include "peers/feed_forward.hpp"

namespace bench::peers {
namespace {

#ifdef PEERS_GGML_FORK
constexpr char const* library_name = "ggml_fork";

paged<float> const& floats_of(paged<float> const& from) { return from; }
paged<float> floats_of(paged<bf16> const& from) {
  paged<float> to(from.size());
  for (std::size_t i = 0; i < from.size(); ++i) to[i] = shunt::to_float(from[i]);
  return to;
}
#else
constexpr char const* library_name = "ggml";
#endif

/// silu(gate) ∘ up of the products with `w`, whose first half of rows is gate's.
ggml_tensor* gated(ggml_context* c, ggml_tensor* w, ggml_tensor* x, ggml_tensor* ids) {
#ifdef PEERS_GGML_FORK
  return ggml_moe_up_gate(c, w, nullptr, x, ids, GGML_UNARY_OP_SILU);
#else
  return ggml_swiglu(c, ggml_mul_mat_id(c, w, x, ids));
#endif
}

template <class T> class experts : public contestant<T> {
  using contestant<T>::p;

 public:
  experts(problem<T> const& of, matrices up, matrices down, layout weights)
      : contestant<T>(of, library_name, weights), up_(std::move(up)), down_(std::move(down)) {
    prepare();
  }
  /// The graph for the number of tokens that there are now.
  void prepare() override {
    std::int64_t const H = p.s.hidden, K = p.s.top_k, tokens = p.s.tokens;
    x_.clear();
    for (T const v : p.tokens) x_.push_back(shunt::to_float(v));
    in_ = make_context();
    auto* const c = in_.get();
    auto* const x = ggml_new_tensor_3d(c, GGML_TYPE_F32, H, 1, tokens);
    x->data = x_.data();
    ids_ = ggml_new_tensor_2d(c, GGML_TYPE_I32, K, tokens);
    y_ = ggml_mul_mat_id(c, down_.tensor(), gated(c, up_.tensor(), x, ids_), ids_);
    graph_ = ggml_new_graph(c);
    ggml_build_forward_expand(graph_, y_);
    scratch_.clear();
    for (int i = 0; i < ggml_graph_n_nodes(graph_); ++i) {
      auto* const node = ggml_graph_node(graph_, i);
      node->data = scratch_.emplace_back(ggml_nbytes(node)).data();
    }
#ifdef PEERS_GGML_FORK
    plan_ = ggml_graph_plan(graph_, p.threads);
#else
    plan_ = ggml_graph_plan(graph_, p.threads, nullptr);
#endif
    plan_.work_data =
        reinterpret_cast<std::uint8_t*>(scratch_.emplace_back(plan_.work_size + 64).data());
  }
  void run(batch<T> const& in, T*) override {
    ids_->data = const_cast<index_t*>(in.chosen.data());
    if (ggml_graph_compute(graph_, &plan_) == GGML_STATUS_SUCCESS) return;
    std::fprintf(stderr, "peers: ggml did not compute its graph\n");
    std::exit(1);
  }
  void finish(batch<T> const& in, T* y) override {
    auto const* const all = static_cast<float const*>(y_->data);
    for (std::size_t r = 0; r < p.R(); ++r) {
      float const* const from = all + std::size_t(in.slot[r]) * p.H();
      for (std::size_t h = 0; h < p.H(); ++h) y[r * p.H() + h] = shunt::from_float<T>(from[h]);
    }
  }

 private:
  matrices up_, down_;
  context in_;
  std::vector<float> x_;
  std::vector<paged<char>> scratch_;
  ggml_tensor *ids_ = nullptr, *y_ = nullptr;
  ggml_cgraph* graph_ = nullptr;
  ggml_cplan plan_{};
};

static_assert(sizeof(index_t) == 4, "ids are 32-bit integers");

/// Weights as `make` makes them of the problem's, and in the library's own order.
template <class T, class Make>
contestants<T> both(problem<T> const& p, ggml_type type, Make const& make,
                    std::vector<std::string>& left_out) {
  std::size_t const E = p.E(), H = p.H(), I = p.I();
  contestants<T> all;
  auto const add = [&](matrices up, matrices down, layout weights) {
    all.push_back(std::make_unique<experts<T>>(p, std::move(up), std::move(down), weights));
  };
  matrices up = make(type, p.up.data(), H, 2 * I, E), down = make(type, p.down.data(), I, H, E);
#ifdef PEERS_GGML_FORK
  add(std::move(up), std::move(down), layout::plain);
  if (auto const packed = packed_type(type)) {
    auto const &up_floats = floats_of(p.up), &down_floats = floats_of(p.down);
    add(matrices::rounded(*packed, up_floats.data(), H, 2 * I, E),
        matrices::rounded(*packed, down_floats.data(), I, H, E), layout::packed);
  }
#else
  auto packed_up = matrices::repacked(up), packed_down = matrices::repacked(down);
  add(std::move(up), std::move(down), layout::plain);
  if (packed_up && packed_down) {
    add(std::move(*packed_up), std::move(*packed_down), layout::packed);
  }
#endif
  if (all.size() == 1) {
    left_out.push_back(std::string(library_name) + ", " + ggml_type_name(type) +
                       ", packed: it has no such order on this processor");
  }
  return all;
}

}  // namespace

template <class T> contestants<T> of_ggml(problem<T> const& p, std::vector<std::string>& left_out) {
  auto const as_they_are = [](ggml_type type, T const* from, std::size_t K, std::size_t N,
                              std::size_t E) { return matrices(type, from, K, N, E); };
  return both(p, std::is_same_v<T, float> ? GGML_TYPE_F32 : GGML_TYPE_BF16, as_they_are, left_out);
}
template contestants<float> of_ggml(problem<float> const&, std::vector<std::string>&);
template contestants<bf16> of_ggml(problem<bf16> const&, std::vector<std::string>&);

template <shunt::quantized F>
contestants<float> of_ggml_as(problem<float> const& p, std::vector<std::string>& left_out) {
  return both(p, std::is_same_v<F, shunt::mxfp4> ? GGML_TYPE_MXFP4 : GGML_TYPE_Q8_0,
              matrices::rounded, left_out);
}
template contestants<float> of_ggml_as<shunt::int8_channel>(problem<float> const&,
                                                            std::vector<std::string>&);
template contestants<float> of_ggml_as<shunt::mxfp4>(problem<float> const&,
                                                     std::vector<std::string>&);

}  // namespace bench::peers
