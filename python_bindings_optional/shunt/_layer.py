"""The reference layer: weights as they lie, forward, backward."""

from __future__ import annotations

from typing import Any, Optional, Sequence, Tuple, Union

from . import _host
from ._arrays import zeros
from ._backend import backend
from ._options import layer_options, made
from ._routing import Routing, wanted_of

Array = Any
Halves = Tuple[Sequence[Array], Sequence[Array]]
Matrices = Union[Array, Sequence[Array], Halves, "_host.PackedWeights"]
Pairs = Union[str, "tuple[str, int]", None]

Saved = _host.Saved
LayerReport = _host.LayerReport

_NO_OPTIONS = layer_options()


class Weights:
    """The weights of one layer, where and how they lie; kept alive, never copied.

    gate [E,H] of the experts' type or float32 · gate_bias, choice_bias [E] float32
    up [L,2I,H], down [L,H,I]: one array of any strides (a transposed view of [L,H,2I] as well), or
    a list of one array per expert, or what pack_weights made · up_bias [L,2I], down_bias [L,H]
    shared_up [2Is,H], shared_down [H,Is] · shared_gate [H] · latent_down, latent_up
    up, shared_up with gate and up as arrays of their own: a tuple (gates, ups) of two lists of
    arrays [I,H], one of each per expert

    pairs: how the rows of gate and up lie in `up`: "gate_up", "up_gate", or (order, block) where
    they alternate by blocks; None for activations without a gate half, or as "gate_up", as they
    must be where `up` is (gates, ups): biases lie so.
    shared_pairs: the same of shared_up; None: as `pairs`.
    """

    # In the order of the extension module's arguments.
    _given = (
        "gate",
        "up",
        "down",
        "gate_bias",
        "choice_bias",
        "up_bias",
        "down_bias",
        "shared_up",
        "shared_down",
        "shared_gate",
        "latent_down",
        "latent_up",
        "pairs",
        "shared_pairs",
    )
    __slots__ = ("_made", *_given)

    def __init__(
        self,
        gate: Array,
        up: Matrices,
        down: Matrices,
        *,
        gate_bias: Optional[Array] = None,
        choice_bias: Optional[Array] = None,
        up_bias: Optional[Array] = None,
        down_bias: Optional[Array] = None,
        shared_up: Optional[Matrices] = None,
        shared_down: Optional[Matrices] = None,
        shared_gate: Optional[Array] = None,
        latent_down: Optional[Array] = None,
        latent_up: Optional[Array] = None,
        pairs: Pairs = None,
        shared_pairs: Pairs = None,
    ) -> None:
        given = (
            gate,
            up,
            down,
            gate_bias,
            choice_bias,
            up_bias,
            down_bias,
            shared_up,
            shared_down,
            shared_gate,
            latent_down,
            latent_up,
            pairs,
            shared_pairs,
        )
        object.__setattr__(self, "_made", _host.Weights(*given))
        for name, value in zip(self._given, given):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"Weights.{name} cannot be set; make a new Weights")


class Gradients:
    """Float32 arrays for the gradients of weights, each of the shape that its weights have; None:
    not wanted. Rows lie in the order of the weights' rows; to (gates, ups) where that is
    "gate_up"."""

    __slots__ = ("gate", "gate_bias", "up", "down", "up_bias", "down_bias", "shared_up",
                 "shared_down", "shared_gate", "latent_down", "latent_up")  # fmt: skip

    def __init__(
        self,
        *,
        gate: Optional[Array] = None,
        gate_bias: Optional[Array] = None,
        up: Optional[Matrices] = None,
        down: Optional[Matrices] = None,
        up_bias: Optional[Array] = None,
        down_bias: Optional[Array] = None,
        shared_up: Optional[Matrices] = None,
        shared_down: Optional[Matrices] = None,
        shared_gate: Optional[Array] = None,
        latent_down: Optional[Array] = None,
        latent_up: Optional[Array] = None,
    ) -> None:
        self.gate, self.gate_bias = gate, gate_bias
        self.up, self.down, self.up_bias, self.down_bias = up, down, up_bias, down_bias
        self.shared_up, self.shared_down, self.shared_gate = shared_up, shared_down, shared_gate
        self.latent_down, self.latent_up = latent_down, latent_up

    @classmethod
    def like(cls, weights: Weights, on: Any = None) -> Gradients:
        """New zeros for all that `weights` has."""
        _, where = backend(on, weights.gate)

        def new(w: Any) -> Any:
            if w is None:
                return None
            if isinstance(w, (list, tuple)):
                each = [new(one) for one in w]
                return tuple(each) if isinstance(w, tuple) else each
            like = w.data if isinstance(w, _host.PackedWeights) else w
            return zeros(like, tuple(w.shape), "float32", where)

        return cls(**{name: new(getattr(weights, name)) for name in cls.__slots__})

    def _arrays(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)


def moe_layer(
    x: Array,
    weights: Weights,
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
    """y [T,H], the layer's output for x [T,H], in `out` or a new array of x's kind.

    valid [T] uint8 or bool, 0: padding · ids [T,K] int32 or int16: a choice from outside, or with
    token [T] int32 a table [V,K] · loss [2] float32, written: balance loss, z-loss · observe: a
    Routing whose arrays are written · saved: filled for moe_layer_backward.
    """
    module, where = backend(on, x)
    return module.moe_layer(
        x,
        made(weights, Weights, "moe_layer.weights"),
        made(options, layer_options, "moe_layer.options"),
        valid,
        ids,
        token,
        loss,
        wanted_of(observe, "moe_layer.observe"),
        report,
        out,
        saved,
        where,
    )


def moe_layer_backward(
    x: Array,
    weights: Weights,
    d_y: Array,
    saved: Saved,
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
    """(d_x, gradients) from d_y [T,H] and what moe_layer saved with the same arguments.

    gradients: those given are written, or added to with options.accumulate; None:
    new ones of all weights · d_x of x's type, or float32 · frozen [L] uint8, 1: this expert's
    weights get no gradient · from_losses: gradients of further losses to (importance,
    sequence_importance, z).
    """
    made_weights = made(weights, Weights, "moe_layer_backward.weights")
    if gradients is None:
        gradients = Gradients.like(weights, on)
    elif not isinstance(gradients, Gradients):
        raise TypeError(
            f"gradients is {type(gradients).__name__}; it must be a shunt.Gradients or None"
        )
    module, where = backend(on, x)
    d_x = module.moe_layer_backward(
        x,
        made_weights,
        d_y,
        saved,
        made(options, layer_options, "moe_layer_backward.options"),
        valid,
        frozen,
        ids,
        token,
        from_losses,
        gradients._arrays(),
        d_x,
        where,
    )
    return d_x, gradients
