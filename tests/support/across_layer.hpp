#pragma once
#include <memory>
#include <string>
#include <vector>

#include "shunt/across.hpp"
#include "support/across_case.hpp"
#include "support/layer_cases.hpp"

/// One layer on several ranks and in one process, with the same numbers.
namespace shunt::test {

/// A rank's part of a setup: its tokens, its experts, and results in memory of its own.
template <class T> class rank_of_layer {
 public:
  guarded<T> y, d_x;
  guarded<float> up, down, up_bias, down_bias, gate, importance, loss;
  guarded<index_t> counts, total, wanted, kept;
  guarded<std::byte> saved_bytes;
  moe_across_saved<T> saved{};
  across_report traffic{};
  status forward{}, backward{};
  bool send_once = false;

  rank_of_layer(layer_setup<T> const& setup, placed const& placement,
                std::vector<int> const& tokens_of_ranks, int rank)
      : s(setup),
        p(placement),
        experts(placement.of(rank)),
        tokens(tokens_of_ranks[std::size_t(rank)]) {
    for (int r = 0; r < rank; ++r) first += tokens_of_ranks[std::size_t(r)];
    layer_formula const& f = s.is.f;
    std::size_t const L = experts.size(), N = std::size_t(f.halves() * f.intermediate),
                      H = std::size_t(f.hidden);
    y = guarded<T>(std::size_t(tokens * f.width));
    d_x = guarded<T>(y.size());
    up = guarded<float>(L * N * H);
    down = guarded<float>(L * H * std::size_t(f.intermediate));
    if (f.biases) {
      up_bias = guarded<float>(L * N);
      down_bias = guarded<float>(L * H);
    }
    gate = guarded<float>(s.gate.size());
    importance = guarded<float>(std::size_t(f.experts));
    counts = guarded<index_t>(std::size_t(f.experts));
    total = guarded<index_t>(1);
    wanted = guarded<index_t>(L);
    kept = guarded<index_t>(L);
    loss = guarded<float>(2);
  }

  /// The weights of this rank: pointers into the setup's.
  [[nodiscard]] moe_weights<T> weights() {
    layer_formula const& f = s.is.f;
    int const N = f.halves() * f.intermediate;
    offset_t const L = static_cast<offset_t>(experts.size());
    moe_weights<T> w = s.weights();
    pointers = {};
    for (index_t e : experts) {
      pointers[0].push_back(s.up.data() + offset_t{e} * N * f.hidden);
      pointers[1].push_back(s.down.data() + offset_t{e} * f.hidden * f.intermediate);
      if (!f.biases) continue;
      pointers[2].push_back(s.up_bias.data() + offset_t{e} * N);
      pointers[3].push_back(s.down_bias.data() + offset_t{e} * f.hidden);
    }
    auto const list = [&](int i) {
      return view<T const* const, 1>(pointers[std::size_t(i)].data(), {{L}});
    };
    w.up = f.halves() == 2 ? expert_matrix<T>::each(list(0), N, f.hidden, s.layout())
                           : expert_matrix<T>::each(list(0), N, f.hidden);
    w.down = expert_matrix<T>::each(list(1), f.hidden, f.intermediate);
    if (f.biases) {
      w.up_bias = expert_vector<>::template each<T>(list(2), N);
      w.down_bias = expert_vector<>::template each<T>(list(3), f.hidden);
    }
    return w;
  }
  [[nodiscard]] layer_options<activation> options(layer_options<activation> o) const {
    if (o.valid) o.valid = o.valid.slice(first, tokens);
    if (o.token) o.token = o.token.slice(first, tokens);
    if (o.ids && !o.token) o.ids = o.ids.wide().slice(first, tokens);
    o.route.first_token = static_cast<std::uint64_t>(first);
    return o;
  }
  [[nodiscard]] view<T const, 2> x() const { return part(s.x); }
  [[nodiscard]] view<T const, 2> d_y() const { return part(s.d_y); }

  /// Forward, and backward where asked.
  template <exchange X>
  void run(X& transport, on_host const& on, layer_options<activation> const& whole,
           bool train = true, bool accumulate_load = false) {
    layer_formula const& f = s.is.f;
    among_ranks<X> const among{.transport = transport,
                               .placement = p.view_of(),
                               .most_tokens = f.tokens,
                               .report = &traffic,
                               .send_once = send_once};
    moe_weights<T> const w = weights();
    auto const o = options(whole);
    guarded<std::byte> work(moe_layer_across_scratch_bytes(on, among, tokens, w, o, train));
    moe_across_outputs<T> out;
    if (train) {
      saved_bytes = guarded<std::byte>(moe_across_saved_bytes(among, tokens, w, o));
      arena<> from(saved_bytes);
      saved = carve_moe_across_saved(from, among, tokens, w, o);
      out.saved = &saved;
    }
    out.route.counts = counts.as(f.experts);
    out.route.tokens = total.as(1);
    if (f.balance > 0 || accumulate_load) out.route.importance = importance.as(f.experts);
    out.plan.wanted = wanted.as(wanted.size());
    out.plan.kept = kept.as(kept.size());
    if (o.balance_loss != 0.0f || o.z_loss != 0.0f) out.loss = loss.as(2);
    forward = moe_layer_across(on, among, x(), w, y.as(tokens, f.width), out, arena<>(work), o);
    if (!train || !forward.ok()) return;
    work = guarded<std::byte>(moe_layer_across_backward_scratch_bytes(on, among, tokens, w, o));
    backward = moe_layer_across_backward(on, among, x(), w, d_y(), saved, d_x.as(tokens, f.width),
                                         gradients(), arena<>(work), o);
  }
  [[nodiscard]] moe_gradients<> gradients() {
    layer_formula const& f = s.is.f;
    auto const L = experts.size();
    moe_gradients<> g;
    g.gate = gate.as(f.experts, f.width);
    g.up = up.as(L, f.halves() * f.intermediate, f.hidden);
    if (f.halves() == 2) g.up = g.up.in_pairs(s.layout());
    g.down = down.as(L, f.hidden, f.intermediate);
    if (f.biases) {
      g.up_bias = up_bias.as(L, f.halves() * f.intermediate);
      g.down_bias = down_bias.as(L, f.hidden);
    }
    return g;
  }

  /// What differs from one process's results; empty: nothing, in no bit.
  [[nodiscard]] std::string difference(layer_run<T>& whole) {
    if (!forward.ok() || !backward.ok()) return std::string(forward.message()) + backward.message();
    layer_formula const& f = s.is.f;
    offset_t const at = offset_t{first} * f.width;
    auto const same = [](auto const& mine, auto const* theirs) {
      return mine.size() == 0 ||
             std::memcmp(mine.data(), theirs, mine.size() * sizeof(*theirs)) == 0;
    };
    if (!same(y, whole.y.data() + at)) return "y";
    if (!same(d_x, whole.d_x.data() + at)) return "d_x";
    for (int t = 0; t < tokens; ++t) {
      for (int k = 0; k < f.top_k; ++k) {
        if (saved.layer.choice.expert(t, k) != whole.saved.choice.expert(first + t, k)) return "id";
        if (std::memcmp(&saved.layer.choice.gate(t, k), &whole.saved.choice.gate(first + t, k),
                        4) != 0)
          return "gate";
      }
    }
    for (std::size_t i = 0; i < experts.size(); ++i) {
      if (copies_of(experts[i]) > 1) continue;  // each copy has a part of the gradient
      auto const part_of = [&](guarded<float> const& mine, guarded<float> const& all) {
        std::size_t const each = experts.empty() ? 0 : mine.size() / experts.size();
        return each == 0 ||
               std::memcmp(mine.data() + i * each, all.data() + std::size_t(experts[i]) * each,
                           each * sizeof(float)) == 0;
      };
      if (!part_of(up, whole.d.up)) return "d_up";
      if (!part_of(down, whole.d.down)) return "d_down";
      if (!part_of(up_bias, whole.d.up_bias)) return "d_up_bias";
      if (!part_of(down_bias, whole.d.down_bias)) return "d_down_bias";
    }
    return "";
  }
  [[nodiscard]] int copies_of(index_t e) const {
    return static_cast<int>(std::count(p.expert.begin(), p.expert.end(), e));
  }
  [[nodiscard]] std::vector<index_t> const& own_experts() const { return experts; }
  [[nodiscard]] int first_token() const { return first; }

 protected:
  [[nodiscard]] view<T const, 2> part(guarded<T> const& m) const {
    return m.as(s.is.f.tokens, s.is.f.width).slice(first, tokens);
  }
  layer_setup<T> const& s;
  placed const& p;
  std::vector<index_t> experts;
  int tokens = 0, first = 0;
  std::array<std::vector<T const*>, 4> pointers;
};

}  // namespace shunt::test
