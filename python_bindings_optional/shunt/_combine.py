"""Expert rows to tokens, weighted by the gates, and back."""

from __future__ import annotations

from typing import Any, Optional, Tuple

from ._backend import backend
from ._dispatch import Plan

Array = Any
#: (expert [T,K] int32, x [T,H], first, count): ids [first, first + count) give the token itself.
ZeroExperts = Optional[Tuple[Array, Optional[Array], int, int]]


def combine(
    rows: Array,
    plan: Plan,
    gate: Optional[Array] = None,
    *,
    shared: Optional[Array] = None,
    shared_gate: Optional[Array] = None,
    residual: Optional[Array] = None,
    zero: ZeroExperts = None,
    valid: Optional[Array] = None,
    out: Optional[Array] = None,
    on: Any = None,
) -> Array:
    """y [T,H]: each token's rows of rows [R,H], weighted by gate [T,K], and what is added beside.
    out may be the memory of shared, residual or zero's x."""
    module, where = backend(on, rows)
    return module.combine(rows, plan, gate, shared, shared_gate, residual, zero, valid, out, where)


def combine_backward(
    d_y: Array,
    plan: Plan,
    gate: Optional[Array] = None,
    rows: Optional[Array] = None,
    *,
    shared: Optional[Array] = None,
    shared_gate: Optional[Array] = None,
    zero: ZeroExperts = None,
    valid: Optional[Array] = None,
    d_rows: Optional[Array] = None,
    d_gate: Optional[Array] = None,
    d_shared: Optional[Array] = None,
    d_shared_gate: Optional[Array] = None,
    d_residual: Optional[Array] = None,
    d_x: Optional[Array] = None,
    accumulate: bool = False,
    on: Any = None,
) -> Tuple[Array, Optional[Array]]:
    """(d_rows [R,H], d_gate [T,K]); d_gate is None unless the forward's rows, or d_gate, are given.
    d_shared, d_shared_gate, d_residual and d_x are written where they are given."""
    module, where = backend(on, d_y)
    return module.combine_backward(
        d_y, plan, gate, rows, shared, shared_gate, zero, valid, d_rows, d_gate, d_shared,
        d_shared_gate, d_residual, d_x, accumulate, where,
    )  # fmt: skip
