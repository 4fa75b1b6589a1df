"""Chosen experts to a plan; tokens to rows in expert order, and back."""

from __future__ import annotations

from typing import Any, Optional, Tuple

from . import _host
from ._backend import backend

Array = Any
Plan = _host.Plan


def plan_dispatch(
    expert: Array,
    local: int,
    *,
    capacity: int = 0,
    drop: str = "by_position",
    gate: Optional[Array] = None,
    valid: Optional[Array] = None,
    segment_multiple: int = 1,
    first_expert: int = 0,
    experts: int = 0,
    zero_experts: int = 0,
    wanted: Optional[Array] = None,
    kept: Optional[Array] = None,
    on: Any = None,
) -> Plan:
    """Sorts the slots of expert [T,K] int32 by expert; `local` experts live here.

    wanted, kept [local] int32, written: slots that asked for each expert, and those that got a row.
    """
    module, where = backend(on, expert)
    return module.plan_dispatch(
        expert, local, capacity, drop, gate, valid, segment_multiple, first_expert, experts,
        zero_experts, wanted, kept, where,
    )  # fmt: skip


def plan_from_expert_choice(
    token: Array,
    tokens: int,
    *,
    gate: Optional[Array] = None,
    dense_gate: Optional[Array] = None,
    valid: Optional[Array] = None,
    segment_multiple: int = 1,
    on: Any = None,
) -> Tuple[Plan, Optional[Array]]:
    """(plan, dense_gate): of tokens chosen by experts, token [E,C] int32. With gate [E,C] the gates
    [T,E] that combine takes are written too."""
    module, where = backend(on, token)
    return module.plan_from_expert_choice(
        token, tokens, gate, dense_gate, valid, segment_multiple, where
    )


def dispatch(
    x: Array,
    plan: Plan,
    *,
    gate: Optional[Array] = None,
    out: Optional[Array] = None,
    on: Any = None,
) -> Array:
    """rows [R,H]: each token of x [T,H] in its rows, times its gate where gate [T,K] is given. Rows
    behind the last segment are left as they are."""
    module, where = backend(on, x)
    return module.dispatch(x, plan, gate, out, where)


def dispatch_backward(
    d_rows: Array,
    plan: Plan,
    *,
    gate: Optional[Array] = None,
    x: Optional[Array] = None,
    d_gate: Optional[Array] = None,
    accumulate: bool = False,
    d_x: Optional[Array] = None,
    on: Any = None,
) -> Tuple[Array, Optional[Array]]:
    """(d_x [T,H], d_gate [T,K]); d_gate is None unless the forward's x is given."""
    module, where = backend(on, d_rows)
    return module.dispatch_backward(d_rows, plan, gate, x, d_gate, accumulate, d_x, where)


def row_tokens(plan: Plan, *, out: Optional[Array] = None, on: Any = None) -> Array:
    """The token of each row [R], -1 for padding and behind the last segment."""
    module, where = backend(on, plan)
    return module.row_tokens(plan, out, where)


def gates_to_rows(gate: Array, plan: Plan, *, out: Optional[Array] = None, on: Any = None) -> Array:
    """The gate of each row [R], 0 for padding."""
    module, where = backend(on, gate)
    return module.gates_to_rows(gate, plan, out, where)


def rows_to_gates(
    row_gate: Array, plan: Plan, *, out: Optional[Array] = None, on: Any = None
) -> Array:
    """A value of each row to its slot [T,K], 0 where the slot has no row."""
    module, where = backend(on, row_gate)
    return module.rows_to_gates(row_gate, plan, out, where)
