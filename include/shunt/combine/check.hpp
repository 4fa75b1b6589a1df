#pragma once
#include <limits>

#include "shunt/combine/options.hpp"
#include "shunt/core/abi.hpp"
#include "shunt/dispatch/check.hpp"

/// What combine and combine_backward refuse.
namespace shunt {

namespace check {
inline namespace SHUNT_ABI {

/// y may be the very memory of an input whose element is read where y's is written.
template <class T, space S>
[[nodiscard]] status apart_or_same(char const* out_name, view<T, 2, S> out, char const* in_name,
                                   view<T const, 2, S> in) noexcept {
  if (out.data() == in.data() && out.stride(0) == in.stride(0)) return {};
  return apart(out_name, out, in_name, in);
}

template <class T, space S>
[[nodiscard]] status zero(char const* who, zero_experts<T, S> const& z, dispatch_plan<S> const& p,
                          offset_t hidden) noexcept {
  constexpr index_t most = std::numeric_limits<index_t>::max();
  argument const first(who, "options.zero.first"), count(who, "options.zero.count");
  if (status bad = first_of(
          optional_matrix(who, "options.zero.expert", z.expert, p.tokens, "plan.tokens", p.top_k,
                          "plan.top_k"),
          optional_matrix(who, "options.zero.x", z.x, p.tokens, "plan.tokens", hidden, "hidden"),
          between(first, z.first, 0, most), between(count, z.count, 0, most));
      !bad.ok()) {
    return bad;
  }
  if (z.count > 0 && p.slot_row.extent(0) > 0 && !z.expert) {
    return status::fail(error::null_pointer,
                        "%s.options.zero.expert: the pointer is null; with %d zero experts it must "
                        "be the ids [%d,%d]",
                        who, static_cast<int>(z.count), static_cast<int>(p.tokens),
                        static_cast<int>(p.top_k));
  }
  return {};
}

template <class T, space S>
[[nodiscard]] status tokens_of(char const* who, zero_experts<T, S> const& z,
                               dispatch_plan<S> const& p, offset_t hidden) noexcept {
  if (z.count <= 0 || z.x || p.tokens == 0 || hidden == 0) return {};
  return status::fail(error::null_pointer,
                      "%s.options.zero.x: the pointer is null; with %d zero experts it must be the "
                      "tokens [%d,%lld]",
                      who, static_cast<int>(z.count), static_cast<int>(p.tokens),
                      static_cast<long long>(hidden));
}

template <class A, class B, space S>
[[nodiscard]] status combine(view<A const, 2, S> row, dispatch_plan<S> const& p,
                             view<float const, 2, S> gate, view<B, 2, S> y,
                             combine_options<B, S> const& o) noexcept {
  constexpr char const* who = "combine";
  offset_t const hidden = y.extent(1);
  if (status bad = first_of(
          tokens_and_rows(who, "y", y, "rows", row, p),
          optional_matrix(who, "gate", gate, p.tokens, "plan.tokens", p.top_k, "plan.top_k"),
          optional_matrix(who, "options.shared", o.shared, p.tokens, "plan.tokens", hidden,
                          "hidden"),
          optional_vector(who, "options.shared_gate", o.shared_gate, p.tokens, "plan.tokens"),
          optional_matrix(who, "options.residual", o.residual, p.tokens, "plan.tokens", hidden,
                          "hidden"),
          optional_vector(who, "options.valid", o.valid, p.tokens, "plan.tokens"),
          zero(who, o.zero, p, hidden), tokens_of(who, o.zero, p, hidden));
      !bad.ok()) {
    return bad;
  }
  if (o.shared_gate && !o.shared && !y.empty()) {
    return status::fail(error::null_pointer,
                        "combine.options.shared: the pointer is null; with shared_gate it must be "
                        "the shared output [%d,%lld]",
                        static_cast<int>(p.tokens), static_cast<long long>(hidden));
  }
  return first_of(apart("combine.y", y, "rows", row), apart("combine.y", y, "gate", gate),
                  apart("combine.y", y, "options.shared_gate", o.shared_gate),
                  apart_or_same("combine.y", y, "options.shared", o.shared),
                  apart_or_same("combine.y", y, "options.residual", o.residual),
                  apart_or_same("combine.y", y, "options.zero.x", o.zero.x));
}

template <class T, class R, space S>
[[nodiscard]] status combine_backward(view<T const, 2, S> d_y, dispatch_plan<S> const& p,
                                      view<float const, 2, S> gate, view<R const, 2, S> row,
                                      view<R, 2, S> d_rows,
                                      combine_gradients<T, S> const& o) noexcept {
  constexpr char const* who = "combine_backward";
  offset_t const hidden = d_y.extent(1), rows_of_plan = p.row_slot.extent(0);
  auto const token_matrix = [&](char const* what, auto m) {
    return optional_matrix(who, what, m, p.tokens, "plan.tokens", hidden, "hidden");
  };
  if (status bad = first_of(
          plan(who, p), extent("combine_backward.d_y", 0, d_y.extent(0), p.tokens, "plan.tokens"),
          rows("combine_backward.d_y", d_y),
          optional_matrix(who, "gate", gate, p.tokens, "plan.tokens", p.top_k, "plan.top_k"),
          optional_matrix(who, "rows", row, rows_of_plan, "rows of the plan", hidden, "hidden"),
          optional_matrix(who, "d_rows", d_rows, rows_of_plan, "rows of the plan", hidden,
                          "hidden"),
          token_matrix("options.shared", o.shared),
          optional_vector(who, "options.shared_gate", o.shared_gate, p.tokens, "plan.tokens"),
          optional_vector(who, "options.valid", o.valid, p.tokens, "plan.tokens"),
          zero(who, o.zero, p, hidden),
          optional_matrix(who, "options.d_gate", o.d_gate, p.tokens, "plan.tokens", p.top_k,
                          "plan.top_k"),
          token_matrix("options.d_shared", o.d_shared),
          optional_vector(who, "options.d_shared_gate", o.d_shared_gate, p.tokens, "plan.tokens"),
          token_matrix("options.d_residual", o.d_residual), token_matrix("options.d_x", o.d_x),
          o.d_gate ? tokens_of(who, o.zero, p, hidden) : status{});
      !bad.ok()) {
    return bad;
  }
  if (o.d_shared_gate && !o.shared && !d_y.empty()) {
    return status::fail(
        error::null_pointer,
        "combine_backward.options.shared: the pointer is null; for d_shared_gate it "
        "must be the shared output [%d,%lld]",
        static_cast<int>(p.tokens), static_cast<long long>(hidden));
  }
  return first_of(
      apart("combine_backward.d_rows", d_rows, "d_y", d_y),
      apart("combine_backward.d_rows", d_rows, "rows", row),
      apart("combine_backward.options.d_gate", o.d_gate, "gate", gate),
      apart("combine_backward.options.d_shared", o.d_shared, "options.shared", o.shared),
      apart("combine_backward.options.d_shared", o.d_shared, "d_y", d_y),
      apart_or_same("combine_backward.options.d_residual", o.d_residual, "d_y", d_y),
      apart("combine_backward.options.d_x", o.d_x, "d_y", d_y),
      apart("combine_backward.options.d_x", o.d_x, "options.zero.x", o.zero.x));
}

}  // namespace SHUNT_ABI
}  // namespace check
}  // namespace shunt
