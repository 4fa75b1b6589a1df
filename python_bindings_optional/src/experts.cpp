#include "shunt/experts.hpp"

#include <limits>
#include <string>
#include <utility>

#include "bind.hpp"
#include "call.hpp"
#include "maybe.hpp"
#include "options.hpp"
#include "plan.hpp"
#include "shunt/dispatch.hpp"
#include "weights.hpp"

namespace bindings {
namespace {

/// Rows read through the plan that `rows` is: `a` are then its tokens.
shunt::row_gather<S> gathered_of(bool wanted, segments_argument const& rows, array const& a) {
  if (!wanted) return {};
  if (rows.plan == nullptr) {
    value_error(std::string(a.name()) + " is to be gathered; rows must then be a shunt.Plan");
  }
  if (a.extent(0) != rows.plan->tokens) {
    value_error(std::string(a.name()) + ": extent 0 is " + std::to_string(a.extent(0)) +
                "; it must be " + std::to_string(rows.plan->tokens) + " (plan.tokens)");
  }
  return {rows.plan->as<S>().row_slot, rows.plan->top_k};
}

/// Factors of rows: [R], or with a plan gates [T,K].
struct scale_argument {
  array factor;
  plan_state const* plan = nullptr;

  scale_argument(policy const& on, nb::handle given, char const* name,
                 segments_argument const& rows) {
    if (given.is_none()) return;
    factor = array(given, name, -1, {element::f32}, access::read, here);
    if (factor.rank() == 1) return;
    plan = rows.plan;
    bool const fits = plan != nullptr && factor.rank() == 2 && factor.extent(0) == plan->tokens &&
                      factor.extent(1) == plan->top_k;
    if (!fits) {
      value_error(std::string(name) +
                  ": it must be a factor for each row [R], or with a shunt.Plan for rows "
                  "gates [tokens, top_k]");
    }
    bool const dense = (factor.extent(1) <= 1 || factor.stride(1) == 1) &&
                       (factor.extent(0) <= 1 || factor.stride(0) == factor.extent(1));
    if (!dense) lay_out(on, given, name);
  }
  [[nodiscard]] shunt::row_factors<S> as() const noexcept {
    if (plan == nullptr) return {factor.as<float const, 1, S>(), {}};
    auto* const gates = static_cast<float const*>(factor.data());
    return {{gates, {{factor.extent(0) * factor.extent(1)}}}, plan->as<S>().row_slot};
  }

 private:
  /// Gates of a wider array: products read them as one row of slots, so that each row gets its own.
  void lay_out(policy const& on, nb::handle given, char const* name) {
    array of_rows = output(nb::none(), given, name, {plan->rows}, {element::f32}, here);
    run([&] {
      return shunt::gates_to_rows(on, factor.as<float const, 2, S>(), plan->as<S>(),
                                  of_rows.as<float, 1, S>());
    });
    factor = std::move(of_rows);
    plan = nullptr;
  }
};

/// Rows of what a product of so many segments' rows writes.
offset_t rows_of(segments_argument const& rows, bool gathered, array const& a) {
  return gathered && rows.plan != nullptr ? rows.plan->rows : a.extent(0);
}

void read_in(apart& arrays, segments_argument const& rows) {
  if (rows.plan != nullptr) {
    arrays.reads(rows.plan->memory);
  } else {
    arrays.reads(rows.offset);
  }
}

shunt::matrix_out<S> any_rows_of(array const& a) {
  if (!a) return {};
  return with_storage(a.type(), [&]<class T>() { return shunt::matrix_out<S>(a.as<T, 2, S>()); });
}

nb::object grouped_gemm(maybe a_, maybe w_, maybe rows_, maybe act_, maybe pairs, bool gather,
                        maybe bias_, maybe pre_, bool round_pre, maybe scale_, maybe out,
                        maybe on) {
  policy const where = policy_of(on);
  using enum access;
  array const a(a_, "grouped_gemm.a", 2, storage_types, read, here);
  matrices const w(w_, "grouped_gemm.w", storage_types, read, here, pairs);
  if (!w) throw nb::type_error("grouped_gemm.w must be given");
  segments_argument const rows(rows_, "grouped_gemm.rows", here);
  shunt::activation const act = activation_of(act_);
  array const bias = optional(bias_, "grouped_gemm.bias", 2, storage_types, read, here);
  array const pre = optional(pre_, "grouped_gemm.pre", 2, storage_types, write, here);
  scale_argument const scale(where, scale_, "grouped_gemm.scale", rows);
  shunt::gemm_options<S> options;
  options.gather = gathered_of(gather, rows, a);
  offset_t const width = shunt::gated(act) ? w.rows() / 2 : w.rows();
  array c = output(out, a_, "grouped_gemm.out", {rows_of(rows, gather, a), width},
                   {a.type(), element::f32}, here);
  options.bias = weights::vector_of<S>(bias);
  options.pre = any_rows_of(pre);
  options.round_pre = round_pre;
  options.scale = scale.as();
  apart arrays;
  w.each_array([&](array const& m) { arrays.reads(m); });
  read_in(arrays, rows);
  arrays.reads(a, bias, scale.factor).writes(c, pre).check();
  with_storage(a.type(), [&]<class A>() {
    with_type_or_float<A>(c.type(), [&]<class C>() {
      with_storage(w.type(), [&]<class W>() {
        run([&] {
          return shunt::grouped_gemm(where, a.as<A const, 2, S>(), w.as<W const, S>(), rows.as<S>(),
                                     c.as<C, 2, S>(), act, options);
        });
      });
    });
  });
  return nb::borrow(c.object());
}

nb::object grouped_dgrad(maybe dc_, maybe w_, maybe rows_, maybe pairs, bool gather, maybe scale_,
                         bool accumulate, maybe out, maybe on) {
  policy const where = policy_of(on);
  array const dc(dc_, "grouped_dgrad.dc", 2, storage_types, access::read, here);
  matrices const w(w_, "grouped_dgrad.w", storage_types, access::read, here, pairs);
  if (!w) throw nb::type_error("grouped_dgrad.w must be given");
  segments_argument const rows(rows_, "grouped_dgrad.rows", here);
  scale_argument const scale(where, scale_, "grouped_dgrad.scale", rows);
  shunt::dgrad_options<S> options;
  options.gather = gathered_of(gather, rows, dc);
  options.scale = scale.as();
  options.accumulate = accumulate;
  if (accumulate && out.is_none()) {
    value_error("grouped_dgrad.out is None; to accumulate it must hold a sum");
  }
  array da = output(out, dc_, "grouped_dgrad.out", {rows_of(rows, gather, dc), w.columns()},
                    {dc.type(), element::f32}, here);
  apart arrays;
  w.each_array([&](array const& m) { arrays.reads(m); });
  read_in(arrays, rows);
  arrays.reads(dc, scale.factor).writes(da).check();
  with_storage(dc.type(), [&]<class D>() {
    with_type_or_float<D>(da.type(), [&]<class A>() {
      with_storage(w.type(), [&]<class W>() {
        run([&] {
          return shunt::grouped_dgrad(where, dc.as<D const, 2, S>(), w.as<W const, S>(),
                                      rows.as<S>(), da.as<A, 2, S>(), options);
        });
      });
    });
  });
  return nb::borrow(da.object());
}

void grouped_wgrad(maybe dc_, maybe a_, maybe rows_, maybe dw_, maybe pairs, bool gather_dc,
                   bool gather_a, maybe scale_, bool accumulate, maybe d_bias_, maybe frozen_,
                   maybe on) {
  policy const where = policy_of(on);
  using enum access;
  array const dc(dc_, "grouped_wgrad.dc", 2, storage_types, read, here);
  array const a(a_, "grouped_wgrad.a", 2, storage_types, read, here);
  segments_argument const rows(rows_, "grouped_wgrad.rows", here);
  matrices const dw(dw_, "grouped_wgrad.dw", {element::f32}, write, here, pairs);
  if (!dw) throw nb::type_error("grouped_wgrad.dw must be given");
  scale_argument const scale(where, scale_, "grouped_wgrad.scale", rows);
  array const d_bias = optional(d_bias_, "grouped_wgrad.d_bias", 2, {element::f32}, write, here);
  array const frozen = optional(frozen_, "grouped_wgrad.frozen", 1, {element::u8}, read, here);
  shunt::wgrad_options<S> options;
  options.gather_dc = gathered_of(gather_dc, rows, dc);
  options.gather_a = gathered_of(gather_a, rows, a);
  options.scale = scale.as();
  options.accumulate = accumulate;
  options.d_bias = d_bias.as<float, 2, S>();
  options.frozen = frozen.as<std::uint8_t const, 1, S>();
  apart arrays;
  dw.each_array([&](array const& m) { arrays.writes(m); });
  read_in(arrays, rows);
  arrays.reads(dc, a, scale.factor, frozen).writes(d_bias).check();
  with_storage(dc.type(), [&]<class D>() {
    with_storage(a.type(), [&]<class A>() {
      run([&] {
        return shunt::grouped_wgrad(where, dc.as<D const, 2, S>(), a.as<A const, 2, S>(),
                                    rows.as<S>(), dw.as<float, S>(), options);
      });
    });
  });
}

packed_weights pack_weights(maybe w_, maybe pairs, maybe on) {
  policy const where = policy_of(on);
  matrices const w(w_, "pack_weights.w", storage_types, access::read, here, pairs);
  if (!w) throw nb::type_error("pack_weights.w must be given");
  if (w.is_packed()) value_error("pack_weights.w is packed already");
  raise_unless_ok(
      shunt::check::fits_index("pack_weights.w: experts x rows", w.experts(), w.rows() + 2 * 16));
  raise_unless_ok(shunt::check::between("pack_weights.w: extent 2", w.columns(), 1,
                                        std::numeric_limits<index_t>::max()));
  packed_weights made;
  made.experts = w.experts();
  made.rows = w.rows();
  made.columns = w.columns();
  made.pairs = w.pairs();
  nb::object like;
  w.each_array([&](array const& m) { like = nb::borrow(m.object()); });
  with_storage(w.type(), [&]<class T>() {
    auto const from = w.as<T const, S>();
    made.data =
        output(nb::none(), like, "pack_weights.packed", {from.packed_elements()}, {w.type()}, here);
    run([&] {
      auto to = made.data.as<T, 1, S>();
      return shunt::pack_weights(where, from, to);
    });
  });
  return made;
}

nb::object activation_forward(maybe pre_, maybe act_, maybe rows_, maybe scale_, maybe out,
                              maybe on) {
  policy const where = policy_of(on);
  array const pre(pre_, "activation_forward.pre", 2, storage_types, access::read, here);
  shunt::activation const act = activation_of(act_);
  segments_argument const rows(rows_, "activation_forward.rows", here);
  scale_argument const scale(where, scale_, "activation_forward.scale", rows);
  shunt::activation_options<S> options;
  options.rows = rows.as<S>();
  options.scale = scale.as();
  offset_t const width = shunt::gated(act) ? pre.extent(1) / 2 : pre.extent(1);
  array value = output(out, pre_, "activation_forward.out", {pre.extent(0), width},
                       {pre.type(), element::f32}, here);
  apart arrays;
  read_in(arrays, rows);
  arrays.reads(pre, scale.factor).writes(value).check();
  with_storage(pre.type(), [&]<class T>() {
    with_type_or_float<T>(value.type(), [&]<class O>() {
      run([&] {
        return shunt::activation_forward(where, pre.as<T const, 2, S>(), act, value.as<O, 2, S>(),
                                         options);
      });
    });
  });
  return nb::borrow(value.object());
}

nb::object activation_backward(maybe d_act_, maybe pre_, maybe act_, maybe rows_, maybe scale_,
                               maybe act_out_, maybe d_scale_, maybe out, maybe on) {
  policy const where = policy_of(on);
  using enum access;
  array const pre(pre_, "activation_backward.pre", 2, storage_types, read, here);
  array const d_act(d_act_, "activation_backward.d_act", 2, {pre.type(), element::f32}, read, here);
  shunt::activation const act = activation_of(act_);
  segments_argument const rows(rows_, "activation_backward.rows", here);
  scale_argument const scale(where, scale_, "activation_backward.scale", rows);
  array const value =
      optional(act_out_, "activation_backward.act_out", 2, storage_types, write, here);
  array const d_scale =
      optional(d_scale_, "activation_backward.d_scale", 1, {element::f32}, write, here);
  array d_pre = output(out, pre_, "activation_backward.d_pre", {pre.extent(0), pre.extent(1)},
                       {pre.type()}, here);
  shunt::activation_options<S> options;
  options.rows = rows.as<S>();
  options.scale = scale.as();
  options.act = any_rows_of(value);
  options.d_scale = d_scale.as<float, 1, S>();
  // d_pre may be exactly pre, act_out exactly d_act.
  apart arrays;
  read_in(arrays, rows);
  arrays.reads(scale.factor).writes(d_pre, value, d_scale);
  if (!same_memory(d_pre, pre)) arrays.reads(pre);
  if (!same_memory(value, d_act)) arrays.reads(d_act);
  arrays.check();
  with_storage(pre.type(), [&]<class T>() {
    with_type_or_float<T>(d_act.type(), [&]<class D>() {
      run([&] {
        return shunt::activation_backward(where, d_act.as<D const, 2, S>(), pre.as<T const, 2, S>(),
                                          act, d_pre.as<T, 2, S>(), options);
      });
    });
  });
  return nb::borrow(d_pre.object());
}

}  // namespace

void bind_experts(nb::module_& m) {
  def(m, "grouped_gemm", &grouped_gemm);
  def(m, "grouped_dgrad", &grouped_dgrad);
  def(m, "grouped_wgrad", &grouped_wgrad);
  def(m, "pack_weights", &pack_weights);
  def(m, "activation_forward", &activation_forward);
  def(m, "activation_backward", &activation_backward);
}

}  // namespace bindings
