"""moe_layer across ranks, forward and backward."""

from __future__ import annotations

from typing import Any, Optional

from .. import _host
from .._backend import backend
from .._layer import _NO_OPTIONS, Array, Gradients, LayerReport, Saved, Weights
from .._options import layer_options, made
from .._routing import Routing, wanted_of
from ._ranks import AmongRanks, checked, on_all


def _host_policy(on: Any, x: Array) -> Any:
    module, where = backend(on, x)
    if module is not _host:
        raise ValueError("across ranks x lies in device memory; it must lie in host memory")
    return where


def moe_layer(
    x: Array,
    weights: Weights,
    among: AmongRanks,
    options: layer_options = _NO_OPTIONS,
    *,
    valid: Optional[Array] = None,
    ids: Optional[Array] = None,
    token: Optional[Array] = None,
    loss: Optional[Array] = None,
    observe: Optional[Routing] = None,
    report: Optional[LayerReport] = None,
    out: Optional[Array] = None,
    saved: Optional[Saved] = None,
    on: Any = None,
) -> Array:
    """y [T,H] of this rank's tokens x [T,H], T of 0 too: the bits of shunt.moe_layer over the
    tokens of all ranks, in blocks by rank.

    weights: gate and shared experts whole, up and down those of among.placement.of(rank). The other
    arguments as in shunt.moe_layer; loss, and counts, importance and tokens of observe, are those
    of all ranks. Where one rank's arguments are wrong, every rank raises, and nothing was written.
    What the exchange raises is raised as it is; a lost rank_processes is a ConnectionError."""
    ranks = checked(among, "moe_layer.among")

    def arguments() -> tuple[Any, ...]:
        return (
            made(weights, Weights, "moe_layer.weights"),
            made(options, layer_options, "moe_layer.options"),
            wanted_of(observe, "moe_layer.observe"),
            _host_policy(on, x),
        )

    w, o, wanted, where = on_all(ranks, "moe_layer_across", arguments)
    return _host.moe_layer_across(
        x, w, ranks, o, valid, ids, token, loss, wanted, report, out, saved, where
    )


def moe_layer_backward(
    x: Array,
    weights: Weights,
    d_y: Array,
    saved: Saved,
    among: AmongRanks,
    options: layer_options = _NO_OPTIONS,
    *,
    gradients: Optional[Gradients] = None,
    valid: Optional[Array] = None,
    frozen: Optional[Array] = None,
    ids: Optional[Array] = None,
    token: Optional[Array] = None,
    from_losses: Optional[tuple[Optional[Array], Optional[Array], Optional[Array]]] = None,
    d_x: Optional[Array] = None,
    on: Any = None,
) -> tuple[Array, Gradients]:
    """(d_x, gradients) from d_y [T,H] and what across.moe_layer saved with the same arguments.

    d_x and the gradients of experts have the bits of one process. Gradients of what every rank has
    whole (gate, shared experts, latents) are those of this rank's tokens: sum_gradients adds them.
    frozen is [L] of this rank's experts; the rest as in shunt.moe_layer_backward. After an error no
    weight gradient was written.
    """
    ranks = checked(among, "moe_layer_backward.among")

    def arguments() -> tuple[Any, ...]:
        w = made(weights, Weights, "moe_layer_backward.weights")
        to = Gradients.like(weights, on) if gradients is None else gradients
        if not isinstance(to, Gradients):
            raise TypeError(
                f"gradients is {type(to).__name__}; it must be a shunt.Gradients or None"
            )
        o = made(options, layer_options, "moe_layer_backward.options")
        return w, to, o, _host_policy(on, x)

    w, to, o, where = on_all(ranks, "moe_layer_across_backward", arguments)
    d_x = _host.moe_layer_across_backward(
        x, w, d_y, saved, ranks, o, valid, frozen, ids, token, from_losses, to._arrays(), d_x, where
    )
    return d_x, to
