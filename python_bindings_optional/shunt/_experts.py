"""Grouped matrix products over the rows of each expert, activations, and their gradients.

rows: a Plan, or the offsets [E+1] int32 of the experts' rows. gather: the operand is tokens [T,·],
read through the plan. scale: a factor for each row [R], or with a Plan the gates [T,K].
w, dw [E,N,K]: one array, a list of E arrays [N,K], or a tuple (gates, ups) of two lists of E arrays
[N/2,K], which has no other pairs than "gate_up".
"""

from __future__ import annotations

from typing import Any, Optional, Sequence, Tuple, Union

from . import _host
from ._arrays import zeros
from ._backend import backend
from ._options import act_of, activation

Array = Any
Rows = Union[Array, "_host.Plan"]
Halves = Tuple[Sequence[Array], Sequence[Array]]
Matrices = Union[Array, Sequence[Array], Halves, "_host.PackedWeights"]
Pairs = Union[str, Tuple[str, int], None]


def grouped_gemm(
    a: Array,
    w: Matrices,
    rows: Rows,
    *,
    act: Union[str, activation] = "identity",
    pairs: Pairs = None,
    gather: bool = False,
    bias: Optional[Array] = None,
    pre: Optional[Array] = None,
    round_pre: bool = False,
    scale: Optional[Array] = None,
    out: Optional[Array] = None,
    on: Any = None,
) -> Array:
    """c [R,N]: each expert's rows of a [R,K] times its w [E,N,K], then + bias [E,N], act, scale;
    with a gated activation c is [R,N/2]. pre [R,N], written: the pre-activations. Rows outside
    every segment are not written."""
    module, where = backend(on, a)
    return module.grouped_gemm(
        a, w, rows, act_of(act), pairs, gather, bias, pre, round_pre, scale, out, where
    )


def grouped_dgrad(
    dc: Array,
    w: Matrices,
    rows: Rows,
    *,
    pairs: Pairs = None,
    gather: bool = False,
    scale: Optional[Array] = None,
    accumulate: bool = False,
    out: Optional[Array] = None,
    on: Any = None,
) -> Array:
    """da [R,K], the gradient of grouped_gemm to its rows, from dc [R,N]."""
    module, where = backend(on, dc)
    return module.grouped_dgrad(dc, w, rows, pairs, gather, scale, accumulate, out, where)


def grouped_wgrad(
    dc: Array,
    a: Array,
    rows: Rows,
    *,
    dw: Optional[Matrices] = None,
    pairs: Pairs = None,
    gather_dc: bool = False,
    gather_a: bool = False,
    scale: Optional[Array] = None,
    accumulate: bool = False,
    d_bias: Optional[Array] = None,
    frozen: Optional[Array] = None,
    on: Any = None,
) -> Matrices:
    """dw [E,N,K] float32, the gradient of grouped_gemm to its weights; d_bias [E,N] float32,
    written where it is given. frozen [E] uint8, 1: nothing of this expert is written."""
    module, where = backend(on, dc)
    if dw is None:
        experts = rows.experts if isinstance(rows, _host.Plan) else len(rows) - 1
        dw = zeros(dc, (experts, dc.shape[1], a.shape[1]), "float32", where)
    module.grouped_wgrad(
        dc, a, rows, dw, pairs, gather_dc, gather_a, scale, accumulate, d_bias, frozen, where
    )
    return dw


def pack_weights(w: Matrices, *, pairs: Pairs = None, on: Any = None) -> _host.PackedWeights:
    """The weights in panels, made once, to be passed in the place of w, with the same results."""
    module, where = backend(on, w)
    return module.pack_weights(w, pairs, where)


def activation_forward(
    pre: Array,
    act: Union[str, activation],
    *,
    rows: Optional[Rows] = None,
    scale: Optional[Array] = None,
    out: Optional[Array] = None,
    on: Any = None,
) -> Array:
    """scale · act(pre): pre [R,I], or [R,2I] with gate columns before up columns."""
    module, where = backend(on, pre)
    return module.activation_forward(pre, act_of(act), rows, scale, out, where)


def activation_backward(
    d_act: Array,
    pre: Array,
    act: Union[str, activation],
    *,
    rows: Optional[Rows] = None,
    scale: Optional[Array] = None,
    act_out: Optional[Array] = None,
    d_scale: Optional[Array] = None,
    d_pre: Optional[Array] = None,
    on: Any = None,
) -> Array:
    """d_pre, of pre's shape. Written where given: act_out [R,I], scale times the activation (may be
    d_act), and d_scale [R], the factors' gradient. d_pre may be pre."""
    module, where = backend(on, d_act)
    return module.activation_backward(
        d_act, pre, act_of(act), rows, scale, act_out, d_scale, d_pre, where
    )
