#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "shunt/nn/model_across.hpp"
#include "support/across_case.hpp"
#include "support/model_case.hpp"
#include "support/ranks.hpp"

/// A few training steps of a model in one process, and the same on ranks.
namespace shunt::test {
namespace model_ranks {

using model_case::model_config;

/// What is trained: sequences of all ranks together, in micro-batches.
struct task {
  model_config config;
  index_t batch = 5, length = 8;
  int steps = 3, micro = 1;
  bool holes = true, bias = false;
};

template <class T> struct trained {
  std::vector<float> losses, norms;  // of each call
  std::vector<index_t> counts;
  std::vector<float> gradients, weights, first, second;
  float evaluated = 0;
};

inline guarded<index_t> tokens_of_call(task const& t, int call) {
  auto c = t.config;
  rng d(static_cast<std::uint64_t>(91 + call));
  guarded<index_t> tokens(static_cast<std::size_t>(t.batch * (t.length + 1)));
  for (index_t& x : tokens) {
    x = static_cast<index_t>(d.below(c.vocabulary));
    if (t.holes && d.below(6) == 0) x = -1;
  }
  return tokens;
}
/// Valid targets of a step's micro-batches.
inline offset_t targets_of_step(task const& t, int step) {
  offset_t count = 0;
  for (int i = 0; i < t.micro; ++i) {
    auto const tokens = tokens_of_call(t, step * t.micro + i);
    for (index_t b = 0; b < t.batch; ++b) {
      for (index_t s = 1; s <= t.length; ++s) {
        count += tokens[static_cast<std::size_t>(b * (t.length + 1) + s)] >= 0 ? 1 : 0;
      }
    }
  }
  return count;
}
inline nn::adamw_options update_options(int step) {
  return {.rate = 0.02f, .weight_decay = 0.01f, .step = step + 1, .clip = 0.5f};
}
inline nn::model_train_options train_options(task const& t, int step, int micro) {
  return {.accumulate = micro > 0, .divisor = t.micro > 1 ? targets_of_step(t, step) : 0};
}
inline guarded<float> bias_of(task const& t) {
  return normal_values<float>(static_cast<std::size_t>(t.config.layers * t.config.experts), 17,
                              0.3);
}

/// Memory of a rank's model, or of a whole one.
template <class T> struct model_memory {
  guarded<float> weights, gradients, first, second, norm{1}, loss{1}, bias;
  guarded<T> copy;
  guarded<index_t> counts;

  model_memory(task const& t, std::size_t count)
      : weights(count),
        gradients(count),
        first(count),
        second(count),
        bias(bias_of(t)),
        copy(count),
        counts(static_cast<std::size_t>(t.config.layers * t.config.experts)) {
    std::fill(first.begin(), first.end(), 0.0f);
    std::fill(second.begin(), second.end(), 0.0f);
  }
  [[nodiscard]] nn::adamw_state<T> state() {
    std::size_t const n = weights.size();
    return {weights.as(n), std::as_const(gradients).as(n), first.as(n), second.as(n), copy.as(n)};
  }
  [[nodiscard]] nn::model_weights<T> used(task const& t) {
    nn::model_weights<T> w{.values = std::as_const(copy).as(copy.size())};
    if (t.bias) w.choice_bias = std::as_const(bias).as(t.config.layers, t.config.experts);
    return w;
  }
  [[nodiscard]] nn::model_report<> report(task const& t) {
    return {.loss = loss.as(1), .counts = counts.as(t.config.layers, t.config.experts)};
  }
  void round() {
    for (std::size_t i = 0; i < weights.size(); ++i) copy[i] = from_float<T>(weights[i]);
  }
};

/// The weights that all start from: large enough that every gradient shows.
inline guarded<float> first_weights(task const& t) {
  return model_case::some_weights<float>(t.config, 5);
}

template <class T> void note(trained<T>& r, model_memory<T>& m) {
  r.losses.push_back(m.loss[0]);
  r.counts.insert(r.counts.end(), m.counts.begin(), m.counts.end());
}
template <class T> void finish(trained<T>& r, model_memory<T>& m) {
  r.gradients.assign(m.gradients.begin(), m.gradients.end());
  r.weights.assign(m.weights.begin(), m.weights.end());
  r.first.assign(m.first.begin(), m.first.end());
  r.second.assign(m.second.begin(), m.second.end());
}

template <class T> trained<T> in_one_process(on_host const& on, task const& t) {
  auto const count = static_cast<std::size_t>(nn::parameter_count(t.config));
  model_memory<T> m(t, count);
  m.weights = first_weights(t);
  m.round();
  guarded<std::byte> work(nn::model_train_scratch_bytes<T>(on, t.config, t.batch, t.length));
  trained<T> r;
  for (int step = 0; step < t.steps; ++step) {
    for (int i = 0; i < t.micro; ++i) {
      auto const tokens = tokens_of_call(t, step * t.micro + i);
      status const s =
          nn::model_train<T>(on, t.config, m.used(t), tokens.as(t.batch, t.length + 1),
                             m.gradients.as(count), m.report(t), work, train_options(t, step, i));
      EXPECT_TRUE(s.ok()) << s.message();
      note(r, m);
    }
    status const s =
        nn::model_update<T>(on, t.config, m.state(), m.norm.as(1), work, update_options(step));
    EXPECT_TRUE(s.ok()) << s.message();
    r.norms.push_back(m.norm[0]);
  }
  auto const tokens = tokens_of_call(t, 0);
  status const s = nn::model_evaluate<T>(on, t.config, m.used(t), tokens.as(t.batch, t.length + 1),
                                         m.report(t), work);
  EXPECT_TRUE(s.ok()) << s.message();
  note(r, m);
  r.evaluated = m.loss[0];
  finish(r, m);
  return r;
}

/// Each rank's sequences [start[r], start[r+1]).
using blocks = std::vector<index_t>;
inline blocks even_blocks(int ranks, index_t batch) {
  blocks b{0};
  for (int r = 0; r < ranks; ++r) b.push_back(b.back() + batch / ranks + (r < batch % ranks));
  return b;
}

template <class T, exchange X>
trained<T> on_rank(X& x, on_host const& on, task const& t, expert_placement const& p,
                   blocks const& where) {
  int const rank = x.rank();
  index_t const first = where[std::size_t(rank)], batch = where[std::size_t(rank) + 1] - first;
  index_t longest = 0;
  for (std::size_t r = 1; r < where.size(); ++r) {
    longest = std::max(longest, static_cast<index_t>(where[r] - where[r - 1]));
  }
  among_ranks<X> const among{.transport = x, .placement = p, .most_tokens = longest * t.length};
  auto const count =
      static_cast<std::size_t>(nn::parameter_count(nn::config_of_rank(t.config, p, rank)));
  model_memory<T> m(t, count);
  auto const whole = first_weights(t);
  nn::for_each_run(t.config, p, rank, [&](nn::rank_run const& run) {
    if (run.owner >= 0 && run.owner != rank) return;
    std::copy_n(whole.data() + run.in_whole, run.count, m.weights.data() + run.here);
  });
  m.round();
  guarded<std::byte> work(
      nn::model_train_across_scratch_bytes<T>(on, among, t.config, batch, t.length));
  trained<T> r;
  auto const own = [&](guarded<index_t> const& tokens) {
    return view<index_t const, 2>(tokens.data() + first * (t.length + 1), {{batch, t.length + 1}});
  };
  for (int step = 0; step < t.steps; ++step) {
    for (int i = 0; i < t.micro; ++i) {
      auto const tokens = tokens_of_call(t, step * t.micro + i);
      status const s = nn::model_train_across<T>(on, among, t.config, m.used(t), own(tokens),
                                                 m.gradients.as(count), m.report(t), arena<>(work),
                                                 train_options(t, step, i));
      EXPECT_TRUE(s.ok()) << s.message();
      note(r, m);
    }
    status const s = nn::model_update_across<T>(on, among, t.config, m.state(), m.norm.as(1),
                                                arena<>(work), update_options(step));
    EXPECT_TRUE(s.ok()) << s.message();
    r.norms.push_back(m.norm[0]);
  }
  auto const tokens = tokens_of_call(t, 0);
  guarded<std::byte> less(
      nn::model_evaluate_across_scratch_bytes<T>(on, among, t.config, batch, t.length));
  status const s = nn::model_evaluate_across<T>(on, among, t.config, m.used(t), own(tokens),
                                                m.report(t), arena<>(less));
  EXPECT_TRUE(s.ok()) << s.message();
  note(r, m);
  r.evaluated = m.loss[0];
  finish(r, m);
  return r;
}

/// What of a rank's results differs from one process's; empty: nothing.
template <class T>
std::string difference(trained<T> const& want, trained<T> const& got, task const& t,
                       expert_placement const& p, int rank) {
  auto const same = [](auto const& a, auto const& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof a[0]) == 0;
  };
  if (!same(want.losses, got.losses)) return "a loss";
  if (!t.config.dense && !same(want.counts, got.counts)) return "a count";
  if (!same(want.norms, got.norms)) return "a gradient norm";
  std::string found;
  nn::for_each_run(t.config, p, rank, [&](nn::rank_run const& run) {
    if (!found.empty() || (run.owner >= 0 && run.owner != rank)) return;
    auto const part = [&](char const* what, std::vector<float> const& a,
                          std::vector<float> const& b) {
      if (std::memcmp(a.data() + run.in_whole, b.data() + run.here,
                      static_cast<std::size_t>(run.count) * sizeof(float)) != 0) {
        found = std::string(what) + " of " + run.whole.name;
      }
    };
    part("the gradient", want.gradients, got.gradients);
    part("the first moment", want.first, got.first);
    part("the second moment", want.second, got.second);
    part("the weight", want.weights, got.weights);
  });
  return found;
}

}  // namespace model_ranks
}  // namespace shunt::test
