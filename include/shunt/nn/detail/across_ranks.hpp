#pragma once
#include "shunt/across.hpp"
#include "shunt/nn/detail/model_run.hpp"
#include "shunt/nn/detail/token_sums.hpp"

namespace shunt::nn {
inline namespace SHUNT_ABI {
namespace detail {

/// What one_process is, for ranks: experts on all of them, and sums over the tokens of all that have the bits of one
/// process. Of a weight that every rank has, a rank sums its columns of the gradient; slices_across() shares them.
template <exchange X> struct across_ranks {
  token_blocks<X> blocks;
  offset_t valid = 0;                                   // targets of all ranks
  view<float, 2> d_logits;                              // [T,E]
  void *shared_d_pre = nullptr, *shared_act = nullptr;  // [T,2Is] [T,Is]
  arena<> work;                                         // of one sum

  [[nodiscard]] bool alone() const noexcept { return blocks.ranks() == 1; }
  [[nodiscard]] among_ranks<X> among() const noexcept {
    among_ranks<X> a = blocks.among;
    a.most_tokens = static_cast<index_t>(blocks.room);
    return a;
  }

  template <storage T>
  [[nodiscard]] moe_across_saved<T> carve_saved(arena<>& from, index_t tokens,
                                                moe_weights<T, T> const& w,
                                                layer_options<swiglu> const& o) const noexcept {
    return carve_moe_across_saved(from, among(), tokens, w, o);
  }
  template <storage T>
  [[nodiscard]] std::size_t forward_bytes(on_host const& on, index_t tokens,
                                          moe_weights<T, T> const& w,
                                          layer_options<swiglu> const& o) const noexcept {
    return moe_layer_across_scratch_bytes(on, among(), tokens, w, o, true);
  }
  template <storage T>
  [[nodiscard]] std::size_t backward_bytes(on_host const& on, index_t tokens,
                                           moe_weights<T, T> const& w,
                                           layer_options<swiglu> const& o) const noexcept {
    return moe_layer_across_backward_scratch_bytes(on, among(), tokens, w, o);
  }

  template <storage T>
  [[nodiscard]] status mixture(on_host const& on, view<T, 2> x, moe_weights<T, T> const& w,
                               view<T, 2> y, moe_outputs<T> const& out,
                               moe_across_saved<T> const& saved, arena<> own,
                               layer_options<swiglu> o) const noexcept {
    o.route.first_token += static_cast<std::uint64_t>(blocks.first());
    return moe_layer_across(on, among(), x, w, y, {.saved = &saved, .route = out.route}, own, o);
  }
  template <storage T>
  [[nodiscard]] status mixture_backward(on_host const& on, view<T, 2> x, moe_weights<T, T> const& w,
                                        view<T const, 2> d_y, moe_across_saved<T> saved,
                                        view<T, 2> d_x, moe_gradients<> const& g, arena<> own,
                                        layer_options<swiglu> o) const noexcept {
    o.route.first_token += static_cast<std::uint64_t>(blocks.first());
    if (alone()) return moe_layer_across_backward(on, among(), x, w, d_y, saved, d_x, g, own, o);
    offset_t const tokens = x.extent(0), shared = g.shared_down ? g.shared_down.columns() : 0;
    view<T, 2> const d_pre(static_cast<T*>(shared_d_pre), {{tokens, 2 * shared}}),
        act(static_cast<T*>(shared_act), {{tokens, shared}});
    saved.d_logits = d_logits;
    saved.shared_d_pre = d_pre;
    saved.shared_act = act;
    moe_gradients<> experts = g;
    experts.gate = {};
    experts.shared_up = experts.shared_down = {};
    if (status bad = moe_layer_across_backward(on, among(), x, w, d_y, saved, d_x, experts, own, o);
        !bad.ok()) {
      return bad;
    }
    status done = weight_gradient(on, d_logits, x, g.gate, o.accumulate);
    if (shared == 0) return done;
    auto const matrix = [](expert_gradient<> const& m) {
      return view<float, 2>(m.data(), {{m.rows(), m.columns()}});
    };
    if (done.ok()) done = weight_gradient(on, d_y, act, matrix(g.shared_down), o.accumulate);
    return done.ok() ? weight_gradient(on, d_pre, x, matrix(g.shared_up), o.accumulate) : done;
  }

  template <class DY, class In>
  [[nodiscard]] status weight_gradient(on_host const& on, view<DY, 2> d_y, view<In, 2> x,
                                       view<float, 2> d_weight, bool accumulate) const noexcept {
    if (alone()) return linear_wgrad(on, d_y, x, d_weight, {.accumulate = accumulate});
    arena<> from = work;
    auto const rows = rows_of_all<std::remove_const_t<DY>>::carve(from, blocks, d_y.extent(1));
    auto const columns = columns_of_all<std::remove_const_t<In>>::carve(from, blocks, x.extent(1));
    status done = columns.begin(on, blocks, x);
    if (done.ok()) done = rows.begin(blocks, d_y);
    if (done.ok()) done = blocks.finish();
    if (!done.ok()) return done;
    return linear_wgrad(on, rows.all(blocks), columns.all(blocks), blocks.own_columns(d_weight),
                        {.accumulate = accumulate});
  }

  template <class In, class W, class DY, class T>
  [[nodiscard]] status norm_backward(on_host const& on, view<In, 2> x, view<W, 1> weight,
                                     view<float const, 1> inverse, view<DY, 2> d_y, view<T, 2> d_x,
                                     view<float, 1> d_weight, arena<> own,
                                     rms_norm_backward_options<T> const& o) const noexcept {
    if (alone()) return rms_norm_backward(on, x, weight, inverse, d_y, d_x, d_weight, own, o);
    arena<> from = work;
    offset_t const width = x.extent(1);
    auto const of_x = columns_of_all<T>::carve(from, blocks, width),
               of_d_y = columns_of_all<T>::carve(from, blocks, width);
    auto const factors = rows_of_all<float>::carve(from, blocks, 1);
    status done = of_x.begin(on, blocks, x);
    if (done.ok()) done = of_d_y.begin(on, blocks, d_y);
    if (done.ok()) {
      done = factors.begin(blocks, view<float const, 2>(inverse.data(), {{inverse.extent(0), 1}},
                                                        {{inverse.stride(0), 1}}));
    }
    if (done.ok()) done = blocks.finish();
    if (done.ok())
      done = rms_norm_backward(on, x, weight, inverse, d_y, d_x, {}, own, {.add = o.add});
    offset_t const first = blocks.first_column(width, blocks.rank()),
                   count = blocks.column_count(width, blocks.rank());
    if (!done.ok() || count == 0) return done;
    return rms_norm_backward(on, of_x.all(blocks), weight.slice(first, count),
                             {factors.recv, {{blocks.all()}}}, of_d_y.all(blocks), view<T, 2>{},
                             d_weight.slice(first, count), from, {.accumulate = o.accumulate});
  }

  template <class T>
  [[nodiscard]] status table_gradient(on_host const& on, view<T, 2> d_rows,
                                      view<index_t const, 1> id, view<float, 2> d_table,
                                      bool accumulate) const noexcept {
    if (alone()) return embedding_backward(on, d_rows, id, d_table, {.accumulate = accumulate});
    arena<> from = work;
    auto const columns = columns_of_all<T>::carve(from, blocks, d_rows.extent(1));
    auto const ids = rows_of_all<index_t>::carve(from, blocks, 1);
    status done = columns.begin(on, blocks, d_rows);
    if (done.ok()) {
      done = ids.begin(blocks, view<index_t const, 2>(id.data(), {{id.extent(0), 1}}));
    }
    if (done.ok()) done = blocks.finish();
    if (!done.ok()) return done;
    return embedding_backward(on, columns.all(blocks), {ids.recv, {{blocks.all()}}},
                              blocks.own_columns(d_table), {.accumulate = accumulate});
  }

  template <storage T>
  [[nodiscard]] status head(on_host const& on, view<T, 2> x, view<T const, 2> weight,
                            view<index_t const, 1> target, cross_entropy_out<T> const& out,
                            arena<> own, cross_entropy_options o) const noexcept {
    o.divisor = o.divisor > 0 ? o.divisor : valid;
    if (alone() || !out.d_weight) {
      status const done = nn::cross_entropy(on, x, weight, target, out, own, o);
      return done.ok() && !alone() ? mean_of_all(on, out, o.divisor, work) : done;
    }
    arena<> from = work;
    auto const logits = rows_of_all<float>::carve(from, blocks, weight.extent(0));
    auto const columns = columns_of_all<T>::carve(from, blocks, x.extent(1));
    view<float, 2> const z = logits.mine(blocks);
    status done = columns.begin(on, blocks, x);
    if (done.ok()) done = linear(on, x, weight, z);
    if (!done.ok()) return done;
    done = cross_entropy_backend<on_host>::rows(
        on,
        {z.data(), z.extent(1), target.data(), target.stride(0), out.loss.data(), 1, z.extent(1),
         o.scale, &o.divisor},
        x.extent(0), true);
    if (done.ok()) done = linear_dgrad(on, z, weight, out.d_x);
    if (done.ok()) done = logits.begin(blocks, z);
    if (done.ok()) done = blocks.finish();
    auto const all = logits.all(blocks);
    auto const all_x = columns.all(blocks);
    offset_t first = 0;
    do {  // in the pieces of one process
      offset_t const left = blocks.all() - first,
                     rows = left < cross_entropy_chunk ? left : cross_entropy_chunk;
      if (!done.ok()) return done;
      done =
          linear_wgrad(on, all.slice(first, rows), all_x.slice(first, rows),
                       blocks.own_columns(out.d_weight), {.accumulate = o.accumulate || first > 0});
      first += rows;
    } while (first < blocks.all());
    return done.ok() ? mean_of_all(on, out, o.divisor, work) : done;
  }

 private:
  template <class T>
  [[nodiscard]] status mean_of_all(on_host const& on, cross_entropy_out<T> const& out,
                                   offset_t divisor, arena<> from) const noexcept {
    auto const losses = rows_of_all<float>::carve(from, blocks, 1);
    status done =
        losses.begin(blocks, view<float const, 2>(out.loss.data(), {{out.loss.extent(0), 1}}));
    if (done.ok()) done = blocks.finish();
    if (!done.ok()) return done;
    return cross_entropy_backend<on_host>::mean(on, losses.recv, blocks.all(), &divisor,
                                                out.mean.data());
  }
};

/// Calls f(tensor, columns) for each tensor that every rank has.
template <class F> void for_each_replicated(model_config const& c, F&& f) {
  for_each_parameter(c, [&](model_parameter const& p) {
    if (!c.dense && p.rank == 3) return;
    f(p, p.extents[static_cast<std::size_t>(p.rank - 1)]);
  });
}

/// The ranks' slices of replicated gradients to all of them.
struct gradient_slices {
  float *mine, *all;
  offset_t count;

  template <class X>
  [[nodiscard]] static gradient_slices carve(arena<>& from, token_blocks<X> const& blocks,
                                             model_config const& here) noexcept {
    offset_t count = 0;
    for_each_replicated(here, [&](model_parameter const& p, offset_t columns) {
      count += p.size() / columns * blocks.columns_each(columns);
    });
    return {from.take<float>(count), from.take<float>(count * blocks.ranks()), count};
  }
  template <class X>
  [[nodiscard]] status share(token_blocks<X> const& blocks, model_config const& here,
                             view<float, 1> gradients) const noexcept {
    each_piece(blocks, here, gradients, blocks.rank(), mine,
               [](float* piece, float* own) { *piece = *own; });
    status const met = blocks.named(blocks.among.transport.all_gather(
        mine, all, static_cast<std::size_t>(count) * sizeof(float)));
    for (int r = 0; r < blocks.ranks() && met.ok(); ++r) {
      if (r == blocks.rank()) continue;
      each_piece(blocks, here, gradients, r, all + r * count,
                 [](float* piece, float* own) { *own = *piece; });
    }
    return met;
  }

 private:
  template <class X, class Move>
  static void each_piece(token_blocks<X> const& blocks, model_config const& here,
                         view<float, 1> gradients, int rank, float* pieces,
                         Move const& move) noexcept {
    for_each_replicated(here, [&](model_parameter const& p, offset_t columns) {
      offset_t const each = blocks.columns_each(columns),
                     first = blocks.first_column(columns, rank),
                     wide = blocks.column_count(columns, rank), rows = p.size() / columns;
      for (offset_t r = 0; r < rows; ++r, pieces += each) {
        float* const own = gradients.data() + p.offset + r * columns + first;
        for (offset_t c = 0; c < wide; ++c) move(pieces + c, own + c);
      }
    });
  }
};

}  // namespace detail
}  // namespace SHUNT_ABI
}  // namespace shunt::nn
