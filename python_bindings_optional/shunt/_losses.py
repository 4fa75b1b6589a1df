"""Losses that act on the router, and the balancing without one. Each loss returns (loss [1], its
gradient): to importance or z of the Routing, which route_backward takes on to the logits."""

from __future__ import annotations

from typing import Any, Optional, Tuple

from ._backend import backend
from ._routing import Routing

Array = Any


def _load(load: Any, name: str) -> Routing:
    if isinstance(load, Routing):
        return load
    raise TypeError(f"{name}.load is {type(load).__name__}; it must be a shunt.Routing")


def balance_loss(
    load: Routing,
    *,
    coefficient: float = 0.01,
    accumulate: bool = False,
    loss: Optional[Array] = None,
    d_importance: Optional[Array] = None,
    on: Any = None,
) -> Tuple[Array, Array]:
    """Switch's and GShard's: coefficient · E · Σ f_e P_e, from counts, importance and tokens."""
    r = _load(load, "balance_loss")
    module, where = backend(on, r.importance)
    return module.balance_loss(
        r.counts, r.importance, r.tokens, coefficient, accumulate, loss, d_importance, where
    )


def sequence_balance_loss(
    load: Routing,
    *,
    coefficient: float = 0.01,
    accumulate: bool = False,
    loss: Optional[Array] = None,
    d_sequence_importance: Optional[Array] = None,
    on: Any = None,
) -> Tuple[Array, Array]:
    """The same within each sequence, from the sequence_ arrays (DeepSeek-V3)."""
    r = _load(load, "sequence_balance_loss")
    module, where = backend(on, r.sequence_importance)
    return module.sequence_balance_loss(
        r.sequence_counts, r.sequence_importance, r.sequence_tokens, coefficient, accumulate,
        loss, d_sequence_importance, where,
    )  # fmt: skip


def z_loss(
    load: Routing,
    *,
    coefficient: float = 0.01,
    accumulate: bool = False,
    loss: Optional[Array] = None,
    d_z: Optional[Array] = None,
    on: Any = None,
) -> Tuple[Array, Array]:
    """Keeps the logits small, from z and tokens (ST-MoE)."""
    r = _load(load, "z_loss")
    module, where = backend(on, r.z)
    return module.z_loss(r.z, r.tokens, coefficient, accumulate, loss, d_z, where)


def band_loss(
    routing: Routing,
    *,
    coefficient: float = 0.01,
    low: float = 0.5,
    high: float = 1.5,
    load: str = "probability",
    accumulate: bool = False,
    loss: Optional[Array] = None,
    d_importance: Optional[Array] = None,
    on: Any = None,
) -> Tuple[Array, Array]:
    """Leaves a load alone while it is within [low, high] of the uniform share; load: "probability"
    or "counts"."""
    r = _load(routing, "band_loss")
    module, where = backend(on, r.importance)
    return module.band_loss(
        r.counts, r.importance, r.tokens, coefficient, low, high, load, accumulate, loss,
        d_importance, where,
    )  # fmt: skip


def sign_step(counts: Array, bias: Array, step: float = 0.001, *, on: Any = None) -> Array:
    """bias [E] += step · sign(mean load − load), in place; counts [E] int32."""
    module, where = backend(on, counts)
    return module.sign_step(counts, bias, step, where)


def quantile_step(histogram: Array, bias: Array, top_k: int, *, on: Any = None) -> Array:
    """Quantile balancing, in place, from the histogram [E,bins] that route() gathered."""
    module, where = backend(on, histogram)
    return module.quantile_step(histogram, bias, top_k, where)
