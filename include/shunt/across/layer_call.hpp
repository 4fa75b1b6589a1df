#pragma once
#include "shunt/across/layer_check.hpp"
#include "shunt/layer/backward.hpp"
#include "shunt/layer/forward.hpp"

/// One call of the layer across ranks: the stages of moe_call, with rows that go to other ranks and come back.
namespace shunt::detail {
inline namespace SHUNT_ABI {

template <class P, exchange X, class T, class G, class A, class W = T>
struct across_call : moe_call<P, T, G, A, W> {
  static constexpr space S = P::memory;
  using layer = moe_call<P, T, G, A, W>;
  using ranks = across_backend<P>;
  using layer::all_tokens, layer::n, layer::o, layer::on, layer::out, layer::saved, layer::w,
      layer::x;
  using typename layer::tokens_in;
  using backend = typename layer::backend;
  using floats = view<float, 2, S>;

  among_ranks<X> const& among;
  across_layer_sizes<T> const& sizes;
  moe_across_saved<T, S> const& kept;
  char const* who;

  // Forward, until the ranks agree: logits, ids, gates.
  void choose(stages& step, across_forward_scratch<T, P> const& s) const noexcept {
    this->gate(step);
    step("route", [&] {
      routing<S> ids = chosen();
      ids.z = s.tokens.load.z;
      return route(on, saved.logits, this->router_inputs(), ids, s.tokens.route, o.route);
    });
  }
  // And then.
  [[nodiscard]] status forward(stages& step, across_forward_scratch<T, P> const& s,
                               view<T, 2, S> y) const noexcept {
    step("plan", [&] {
      return ranks::plan(who, on, among, sizes.plan, view<index_t const, 2, S>(saved.choice.expert),
                         o.valid, s.plan, kept.plan);
    });
    load(step, s);
    this->latent_in(step);
    offset_t const H = n.hidden;
    view<T, 2, S> const sent = s.tokens.experts.rows,
                        received = kept.received ? kept.received : s.received;
    dispatch_plan<S> here = kept.plan.received();
    offset_t const N = here.tokens;
    view<T, 2, S> from = received.slice(0, N);  // what the experts read
    if constexpr (S == space::host) {
      if (sizes.once) from = bring_once(step, s, here, received);
    }
    if (!sizes.once) {
      step("dispatch", [&] {
        return dispatch(on, this->expert_input(), saved.plan, sent, {.gate = gates_on_input()});
      });
      step("exchange", [&] {
        return begin_rows(who, among,
                          towards_experts<T>(kept.plan, sent.data(), received.data(), H));
      });
      this->shared(step, s.tokens);  // while the rows are on their way
      step("exchange", [&] { return finish_rows(who, among); });
    }
    if (!step.outcome().ok()) return step.outcome();

    view<T, 2, S> const rows = s.here.rows.slice(0, N), arrived = s.arrived.slice(0, N);
    if (here.experts() > 0) {
      experts_call<P, T, A, W> const own{on, local(), o.act, from, {}, here, false, o.int8_rows};
      own.forward(step, {{}, s.here.act.slice(0, N), rows}, first(kept.pre, N));
    }
    here = kept.plan.received();
    step("exchange",
         [&] { return ranks::in_order_of_arrival(on, tokens_in(rows), here, arrived); });
    step("exchange", [&] {
      return begin_rows(who, among, towards_tokens<T>(kept.plan, arrived.data(), sent.data(), H));
    });
    step("exchange", [&] { return finish_rows(who, among); });
    report(step, s);  // nothing that the caller sees is written before
    this->combine_tokens(step, s.tokens, y);
    return step.outcome();
  }

  [[nodiscard]] status backward(stages& step, across_backward_scratch<T, P> const& s, tokens_in d_y,
                                moe_gradients<S> const& g, view<float, 2, S> d_x) const noexcept;

 private:
  template <class V> static V first(V const& m, offset_t count) noexcept {
    return m ? m.slice(0, count) : m;
  }
  /// A token once for each rank. Inference reads the tokens where they came; what backward reads has a row a slot.
  [[nodiscard]] view<T, 2, S> bring_once(stages& step, across_forward_scratch<T, P> const& s,
                                         dispatch_plan<S>& here,
                                         view<T, 2, S> received) const noexcept {
    once_scratch const& once = s.once;
    view<T, 2, S> const sent = s.tokens.experts.rows;
    step("exchange", [&] { return exchange_names(who, among, kept.plan, once); });
    if (!step.outcome().ok()) return received;
    offset_t const ranks_of = among.transport.ranks(), leave = once.send_start[ranks_of],
                   come = once.recv_start[ranks_of];
    step("dispatch", [&] {
      return ranks::gather_rows(on, this->expert_input(), once.token, sent.slice(0, leave));
    });
    step("exchange", [&] {
      return begin_rows(
          who, among,
          {sent.data(), s.arrived.data(), static_cast<std::size_t>(n.hidden) * sizeof(T),
           once.send_start, once.recv_start});
    });
    this->shared(step, s.tokens);  // while the tokens are on their way
    step("exchange", [&] { return finish_rows(who, among); });
    if (!kept.received) {
      here.tokens = static_cast<index_t>(come);
      here.row_slot = once.row.slice(0, here.row_slot.extent(0));
      return s.arrived.slice(0, come);
    }
    offset_t const N = here.tokens;
    step("dispatch", [&] {
      return ranks::gather_rows(on, tokens_in(s.arrived), once.came, received.slice(0, N));
    });
    return received.slice(0, N);
  }
  static feed_scratch<T, S> first(feed_scratch<T, S> s, offset_t count) noexcept {
    s.d_act = first(s.d_act, count);
    s.parts = first(s.parts, count);
    s.act = first(s.act, count);
    s.d_pre = first(s.d_pre, count);
    s.d_scale = first(s.d_scale, count);
    s.pre = first(s.pre, count);
    return s;
  }
  [[nodiscard]] routing<S> chosen() const noexcept {
    routing<S> ids;
    ids.expert = saved.choice.expert;
    ids.gate = saved.choice.gate;
    return ids;
  }
  [[nodiscard]] view<float const, 2, S> gates_on_input() const noexcept {
    using gates = view<float const, 2, S>;
    return n.gate_on_input ? gates(saved.choice.gate) : gates{};
  }
  [[nodiscard]] moe_experts_weights<W, S> local() const noexcept {
    return {w.up, w.down, w.up_bias, w.down_bias};
  }
  [[nodiscard]] feed_forward<T, A, S> stack(dispatch_plan<S> const& here) const noexcept {
    return {.up = w.up,
            .down = w.down,
            .up_bias = w.up_bias,
            .down_bias = w.down_bias,
            .act = o.act,
            .plan = here,
            .gather = {here.row_slot, 1},
            .int8_rows = o.int8_rows};
  }

  // What all ranks have together. Counts are sums of integers; importance is one chain along the ranks.
  void load(stages& step, across_forward_scratch<T, P> const& s) const noexcept {
    step("plan", [&] {
      routing<S> before;  // what they are added to
      if (o.route.accumulate) before = out.route;
      return ranks::load(on, sizes.plan, s.plan, before, s.load.counts, s.load.tokens);
    });
    // By the options, not by what this rank has: one without tokens takes part.
    if (o.balance_loss != 0.0f || out.route.importance) importance(step, s);
    if (o.z_loss != 0.0f) step("losses", [&] { return z_of_all(s); });
  }
  void importance(stages& step, across_forward_scratch<T, P> const& s) const noexcept {
    auto const bytes = static_cast<std::size_t>(n.experts) * sizeof(float);
    view<float, 1, S> const chain = s.load.importance;
    bool const add = o.route.accumulate && out.route.importance;
    step("route", [&] {
      return add ? ranks::copy(on, out.route.importance, chain) : ranks::clear(on, chain);
    });
    step("exchange", [&] { return named(among.transport.carry(chain.data(), bytes)); });
    step("route", [&] {
      routing<S> ids = chosen();
      ids.importance = chain;
      route_options options = o.route;
      options.accumulate = true;
      return route(on, saved.logits, this->router_inputs(), ids, s.tokens.route, options);
    });
    step("exchange", [&] { return named(among.transport.pass_on(chain.data(), bytes)); });
    step("exchange", [&] {
      return gather(who, among, chain.data(), s.load.gathered.data(), static_cast<offset_t>(bytes));
    });
    offset_t const last = n.experts * (among.transport.ranks() - 1);
    step("route", [&] { return ranks::copy(on, s.load.gathered.slice(last, n.experts), chain); });
  }
  /// The z-loss's gradient to this rank's logits, and the ranks' shares of the loss, added in their order.
  [[nodiscard]] status z_of_all(across_forward_scratch<T, P> const& s) const noexcept {
    routing<S> load;
    load.z = s.tokens.load.z;
    load.tokens = s.load.tokens;
    view<float, 1, S> const share = s.load.z_share;
    if (status bad = z_loss(on, load, share, saved.d_z, {o.z_loss}); !bad.ok()) return bad;
    status const met = gather(who, among, share.data(), s.load.gathered.data(), sizeof(float));
    if (!met.ok()) return met;
    return ranks::add_up(on, s.load.gathered.slice(0, among.transport.ranks()), share);
  }
  [[nodiscard]] status named(status const& done) const noexcept {
    return done.ok() ? done : status::fail(done.code(), "%s: %s", who, done.message());
  }

  void report(stages& step, across_forward_scratch<T, P> const& s) const noexcept {
    routing<S> own = out.route;
    own.expert = saved.choice.expert;
    own.gate = saved.choice.gate;
    own.counts = {};
    own.importance = {};
    own.tokens = {};
    if (s.tokens.load.z) own.z = {};
    if (own.recorded || own.z || own.sequence_counts || own.sequence_importance ||
        own.sequence_tokens || own.histogram || own.report) {
      step("route", [&] {
        return route(on, saved.logits, this->router_inputs(), own, s.tokens.route, o.route);
      });
    }
    step("plan", [&] { return ranks::report(on, among, sizes.plan, s.plan, kept.plan, out.plan); });
    auto const give = [&](auto from, auto to) {
      if (to) step("route", [&] { return ranks::copy(on, from, to); });
    };
    view<float, 1, S> const loss = out.loss ? out.loss : s.tokens.loss;
    give(s.load.counts, out.route.counts);
    give(s.load.importance, out.route.importance);
    give(s.load.tokens, out.route.tokens);
    if (o.z_loss != 0.0f) give(s.load.z_share, loss.slice(1, 1));
    if (saved.d_importance) {
      routing<S> all;
      all.counts = s.load.counts;
      all.importance = s.load.importance;
      all.tokens = s.load.tokens;
      step("losses", [&] {
        return balance_loss(on, all, loss.slice(0, 1), saved.d_importance, {o.balance_loss});
      });
    }
    if (out.load.figures && kept.plan.here.experts() > 0) {
      step("stats", [&] { return load_stats(on, kept.plan.received(), out.load); });
    }
  }

  /// d_y and the gates of its slots; x once more where nothing was kept.
  void send_gradients(stages& step, across_backward_scratch<T, P> const& s,
                      tokens_in d_sum) const noexcept;
  /// Of this rank's experts, all but the weights.
  void experts_backward(stages& step, across_backward_scratch<T, P> const& s,
                        feed_forward<T, A, S> const& experts, tokens_in in,
                        view<float const, 1, S> gates,
                        feed_scratch<T, S> const& feed) const noexcept;
  /// Their gradients go back to the tokens, and to the gates.
  void return_gradients(stages& step, across_backward_scratch<T, P> const& s,
                        dispatch_plan<S> const& here, feed_scratch<T, S> const& feed,
                        view<float, 2, S> d_input) const noexcept;
};

}  // namespace SHUNT_ABI
}  // namespace shunt::detail
