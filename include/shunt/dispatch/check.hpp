#pragma once
#include <limits>

#include "shunt/core/abi.hpp"
#include "shunt/core/check.hpp"
#include "shunt/core/numeric.hpp"
#include "shunt/dispatch/options.hpp"
#include "shunt/dispatch/plan.hpp"

/// What dispatch, its plans and their backward refuse.
namespace shunt {

namespace check {
inline namespace SHUNT_ABI {

/// The shape of a plan: views that fit tokens and top_k. The content is not read.
template <space S> [[nodiscard]] status plan(char const* who, dispatch_plan<S> const& p) noexcept {
  argument const tokens(who, "plan.tokens"), top_k(who, "plan.top_k"), slots(who, "plan.slot_row"),
      ids(who, "plan.row_slot"), ends(who, "plan.offset"), product(who, "plan.tokens x top_k");
  constexpr offset_t most = std::numeric_limits<index_t>::max();
  return first_of(
      between(tokens, p.tokens, 0, most), between(top_k, p.top_k, 0, most),
      fits_index(product, p.tokens, p.top_k), offsets(ends, p.segments()),
      extent(slots, 0, p.slot_row.extent(0), offset_t{p.tokens} * p.top_k, "tokens x top_k"),
      rows(slots, p.slot_row), rows(ids, p.row_slot));
}

/// How the caller names the members of a plan_report.
struct report_names {
  char const *wanted, *kept, *totals;
};
inline constexpr report_names report_in_options{"options.report.wanted", "options.report.kept",
                                                "options.report.totals"};
inline constexpr report_names report_in_outputs{"outputs.plan.wanted", "outputs.plan.kept",
                                                "outputs.plan.totals"};

template <space S>
[[nodiscard]] status report(char const* who, plan_report<S> const& r, offset_t experts,
                            report_names const& name = report_in_options) noexcept {
  return first_of(optional_vector(who, name.wanted, r.wanted, experts, "experts"),
                  optional_vector(who, name.kept, r.kept, experts, "experts"),
                  optional_vector(who, name.totals, r.totals, 1, "one plan_counts"));
}

/// row_slot holds what the plan may need, and row numbers fit index_t.
template <space S>
[[nodiscard]] status holds_rows(char const* name, dispatch_plan<S> const& p,
                                offset_t bound) noexcept {
  if (status bad = fits_index(name, bound, 1); !bad.ok()) return bad;
  if (p.row_slot.extent(0) < bound) {
    return status::fail(error::bad_shape,
                        "%s: extent 0 is %lld; it must be %lld or more (the rows that any choice "
                        "may need)",
                        name, static_cast<long long>(p.row_slot.extent(0)),
                        static_cast<long long>(bound));
  }
  return {};
}

template <space S>
[[nodiscard]] status plan_dispatch(view<index_t const, 2, S> expert, dispatch_plan<S> const& p,
                                   plan_options<S> const& o) noexcept {
  constexpr char const* who = "plan_dispatch";
  constexpr index_t most = std::numeric_limits<index_t>::max();
  if (status bad = plan(who, p); !bad.ok()) return bad;
  index_t const local = p.experts();
  shape const s{.tokens = p.tokens, .experts = local, .top_k = p.top_k};
  offset_t const least_ids = o.experts == 0 ? 0 : offset_t{o.first_expert} + local;
  if (status bad =
          first_of(between("plan_dispatch.options.capacity", o.capacity, 0, most),
                   between("plan_dispatch.options.segment_multiple", o.segment_multiple, 1, most),
                   between("plan_dispatch.options.first_expert", o.first_expert, 0, most - local),
                   between("plan_dispatch.options.experts", o.experts, least_ids, most),
                   between("plan_dispatch.options.zero_experts", o.zero_experts, 0, most),
                   extent("plan_dispatch.expert", 0, expert.extent(0), p.tokens, "plan.tokens"),
                   extent("plan_dispatch.expert", 1, expert.extent(1), p.top_k, "plan.top_k"),
                   rows("plan_dispatch.expert", expert),
                   holds_rows("plan_dispatch.plan.row_slot", p, plan_rows_bound(s, o)),
                   optional_matrix(who, "options.gate", o.gate, p.tokens, "plan.tokens", p.top_k,
                                   "plan.top_k"),
                   optional_vector(who, "options.valid", o.valid, p.tokens, "plan.tokens"),
                   report(who, o.report, local));
      !bad.ok()) {
    return bad;
  }
  if (o.capacity > 0 && o.drop == drop_policy::by_gate && !o.gate && !expert.empty()) {
    return status::fail(error::null_pointer,
                        "plan_dispatch.options.gate: the pointer is null; dropping by gate must "
                        "have gates [%d,%d]",
                        static_cast<int>(p.tokens), static_cast<int>(p.top_k));
  }
  return first_of(apart("plan_dispatch.plan.offset", p.offset, "expert", expert),
                  apart("plan_dispatch.plan.row_slot", p.row_slot, "expert", expert),
                  apart("plan_dispatch.plan.slot_row", p.slot_row, "expert", expert),
                  apart("plan_dispatch.plan.row_slot", p.row_slot, "plan.slot_row", p.slot_row),
                  apart("plan_dispatch.plan.row_slot", p.row_slot, "plan.offset", p.offset),
                  apart("plan_dispatch.plan.slot_row", p.slot_row, "plan.offset", p.offset));
}

template <space S>
[[nodiscard]] status plan_from_expert_choice(view<index_t const, 2, S> token,
                                             dispatch_plan<S> const& p,
                                             expert_choice_options<S> const& o) noexcept {
  constexpr char const* who = "plan_from_expert_choice";
  constexpr index_t most = std::numeric_limits<index_t>::max();
  index_t const local = p.experts();
  offset_t const chosen = token.extent(1);
  if (status bad = first_of(
          plan(who, p),
          extent("plan_from_expert_choice.plan.top_k", 0, p.top_k, local,
                 "experts: slots are token·E + e"),
          extent("plan_from_expert_choice.token", 0, token.extent(0), local, "experts"),
          rows("plan_from_expert_choice.token", token),
          between("plan_from_expert_choice.token: extent 1", chosen, 0, most),
          between("plan_from_expert_choice.options.segment_multiple", o.segment_multiple, 1, most),
          optional_matrix(who, "options.gate", o.gate, local, "experts", chosen, "chosen tokens"),
          optional_matrix(who, "options.dense_gate", o.dense_gate, p.tokens, "plan.tokens", local,
                          "experts"),
          optional_vector(who, "options.valid", o.valid, p.tokens, "plan.tokens"),
          report(who, o.report, local));
      !bad.ok()) {
    return bad;
  }
  if (status bad = holds_rows(
          "plan_from_expert_choice.plan.row_slot", p,
          expert_choice_rows_bound(local, static_cast<index_t>(chosen), o.segment_multiple));
      !bad.ok()) {
    return bad;
  }
  if (o.dense_gate && !o.gate && !token.empty()) {
    return status::fail(error::null_pointer,
                        "plan_from_expert_choice.options.gate: the pointer is null; writing "
                        "dense_gate it must have gates [%d,%d]",
                        static_cast<int>(local), static_cast<int>(chosen));
  }
  return first_of(
      apart("plan_from_expert_choice.plan.row_slot", p.row_slot, "token", token),
      apart("plan_from_expert_choice.plan.slot_row", p.slot_row, "token", token),
      apart("plan_from_expert_choice.plan.offset", p.offset, "token", token),
      apart("plan_from_expert_choice.plan.row_slot", p.row_slot, "plan.slot_row", p.slot_row),
      apart("plan_from_expert_choice.plan.row_slot", p.row_slot, "plan.offset", p.offset),
      apart("plan_from_expert_choice.plan.slot_row", p.slot_row, "plan.offset", p.offset),
      apart("plan_from_expert_choice.options.dense_gate", o.dense_gate, "options.gate", o.gate));
}

/// Tokens [T,H] and rows [R,H] that fit a plan and each other.
template <class A, class B, space S>
[[nodiscard]] status tokens_and_rows(char const* who, char const* tokens_name, view<A, 2, S> tokens,
                                     char const* rows_name, view<B, 2, S> row,
                                     dispatch_plan<S> const& p) noexcept {
  argument const t(who, tokens_name), r(who, rows_name);
  return first_of(plan(who, p), extent(t, 0, tokens.extent(0), p.tokens, "plan.tokens"),
                  extent(r, 0, row.extent(0), p.row_slot.extent(0), "rows of the plan"),
                  extent(r, 1, row.extent(1), tokens.extent(1), "hidden"), rows(t, tokens),
                  rows(r, row));
}

template <class T, space S>
[[nodiscard]] status dispatch(view<T const, 2, S> x, dispatch_plan<S> const& p, view<T, 2, S> row,
                              dispatch_options<S> const& o) noexcept {
  if (o.gate && !storage<T>) {
    return status::fail(error::unsupported,
                        "dispatch.options.gate: elements of %zu bytes are no storage type; with "
                        "gates they must be float, bf16 or fp16",
                        sizeof(T));
  }
  return first_of(tokens_and_rows("dispatch", "x", x, "rows", row, p),
                  optional_matrix("dispatch", "options.gate", o.gate, p.tokens, "plan.tokens",
                                  p.top_k, "plan.top_k"),
                  apart("dispatch.rows", row, "x", x));
}

template <class A, class B, space S>
[[nodiscard]] status dispatch_backward(view<A const, 2, S> d_rows, dispatch_plan<S> const& p,
                                       view<B, 2, S> d_x,
                                       dispatch_gradients<A, S> const& o) noexcept {
  constexpr char const* who = "dispatch_backward";
  offset_t const hidden = d_x.extent(1);
  if (status bad = first_of(
          tokens_and_rows(who, "d_x", d_x, "d_rows", d_rows, p),
          optional_matrix(who, "options.gate", o.gate, p.tokens, "plan.tokens", p.top_k,
                          "plan.top_k"),
          optional_matrix(who, "options.x", o.x, p.tokens, "plan.tokens", hidden, "hidden"),
          optional_matrix(who, "options.d_gate", o.d_gate, p.tokens, "plan.tokens", p.top_k,
                          "plan.top_k"),
          apart("dispatch_backward.d_x", d_x, "d_rows", d_rows),
          apart("dispatch_backward.d_x", d_x, "options.x", o.x),
          apart("dispatch_backward.options.d_gate", o.d_gate, "options.gate", o.gate));
      !bad.ok()) {
    return bad;
  }
  if (o.d_gate && !o.x && !d_x.empty()) {
    return status::fail(error::null_pointer,
                        "dispatch_backward.options.x: the pointer is null; for d_gate it must be "
                        "the forward's tokens [%d,%lld]",
                        static_cast<int>(p.tokens), static_cast<long long>(hidden));
  }
  return {};
}

/// A value [R] for each row of a plan.
template <class T, space S>
[[nodiscard]] status per_row(char const* who, dispatch_plan<S> const& p, char const* what,
                             view<T, 1, S> value) noexcept {
  argument const name(who, what);
  return first_of(plan(who, p),
                  extent(name, 0, value.extent(0), p.row_slot.extent(0), "rows of the plan"),
                  rows(name, value));
}

template <class A, class B, space S>
[[nodiscard]] status gates(char const* who, view<A, 2, S> gate, dispatch_plan<S> const& p,
                           view<B, 1, S> row_gate) noexcept {
  argument const name(who, "gate"), other(who, "row_gate");
  return first_of(per_row(who, p, "row_gate", row_gate),
                  extent(name, 0, gate.extent(0), p.tokens, "plan.tokens"),
                  extent(name, 1, gate.extent(1), p.top_k, "plan.top_k"), rows(name, gate),
                  apart(name, gate, "row_gate", row_gate));
}

}  // namespace SHUNT_ABI
}  // namespace check
}  // namespace shunt
