"""The whole layer, from the router on, with the gradients of everything that has one."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional, Sequence

import torch
from torch.autograd.function import once_differentiable

from .._layer import Gradients, LayerReport, Saved, Weights
from .._layer import moe_layer as _moe_layer
from .._layer import moe_layer_backward as _moe_layer_backward
from .._options import layer_options
from .._routing import Routing
from ..across import AmongRanks
from ..across import moe_layer as _moe_layer_across
from ..across import moe_layer_backward as _moe_layer_across_backward
from ._tensors import buffer_like, dense, floats, of_types, plain, policy, rows, trains
from ._tensors import ids as ids_of

Tensor = torch.Tensor

# In the order of the function's arguments; those below `FLOAT` are float for Shunt.
NAMES = ("gate", "up", "down", "gate_bias", "up_bias", "down_bias", "shared_up", "shared_down",
         "shared_gate", "latent_down", "latent_up")  # fmt: skip
FLOAT = ("gate_bias",)
MATRICES = ("up", "down", "shared_up", "shared_down")  # read, and their gradients written, anyhow
OF_TOKENS = ("valid", "ids", "token")


class LayerOutput(NamedTuple):
    """y, and with observe=True the load of the call, of which losses are made."""

    y: Tensor
    counts: Optional[Tensor] = None  # [E] slots of each expert
    tokens: Optional[Tensor] = None  # [1] that count
    importance: Optional[Tensor] = None  # [E] sums of probabilities; has a gradient
    z: Optional[Tensor] = None  # [T] log Σ exp(logits); has a gradient

    def balance_loss(self) -> Tensor:
        """E Σ f P: f the share of slots, P the mean probability. 1 where the load is even."""
        assert self.counts is not None and self.importance is not None, "observe=True was not given"
        counts = self.counts.to(torch.float32)  # a quotient of integers has torch's default type
        share = counts / self.counts.sum().clamp(min=1).to(torch.float32)
        return len(share) * (share * self.importance).sum() / self.tokens.clamp(min=1)[0]

    def z_loss(self) -> Tensor:
        """The mean over tokens of z²."""
        assert self.z is not None, "observe=True was not given"
        return (self.z * self.z).sum() / self.tokens.clamp(min=1)[0]


class _Call:
    """One call's arguments, but for its tensors."""

    def __init__(self, options: layer_options, choice_bias: Optional[Tensor], pairs: Any,
                 shared_pairs: Any, observe: bool, report: Optional[LayerReport],
                 among: Optional[AmongRanks], on: Any) -> None:  # fmt: skip
        self.options = options
        # Not one of autograd's: a step of the bias between forward and backward is legal.
        self.of_weights = {"choice_bias": floats(choice_bias), "pairs": pairs,
                           "shared_pairs": shared_pairs}  # fmt: skip
        self.observe, self.report, self.on = observe, report, on
        self.among = [] if among is None else [among]
        self.runs = _moe_layer if among is None else _moe_layer_across
        self.runs_backward = _moe_layer_backward if among is None else _moe_layer_across_backward

    def weights(self, tensors: Sequence[Optional[Tensor]]) -> Weights:
        given = {}
        for name, t in zip(NAMES, tensors):
            if t is not None:
                t = plain(t) if name in MATRICES else floats(t) if name in FLOAT else rows(t)
            given[name] = t
        return Weights(**given, **self.of_weights)

    def of_tokens(self, tensors: Sequence[Optional[Tensor]]) -> dict[str, Any]:
        return {**dict(zip(OF_TOKENS, tensors)), "on": self.on}

    def forward(self, of_tokens: Sequence[Optional[Tensor]], x: Tensor,
                tensors: Sequence[Optional[Tensor]], saved: Optional[Saved] = None
                ) -> LayerOutput:  # fmt: skip
        load: dict[str, Tensor] = {}
        if self.observe:
            experts, tokens = len(tensors[0]), len(x)
            for name, size, dtype in (("counts", experts, torch.int32), ("tokens", 1, torch.int32),
                                      ("importance", experts, torch.float32),
                                      ("z", tokens, torch.float32)):  # fmt: skip
                load[name] = torch.empty(size, dtype=dtype, device=x.device)
        y = self.runs(
            rows(x), self.weights(tensors), *self.among, self.options, saved=saved, report=self.report,
            observe=Routing(**load) if load else None, **self.of_tokens(of_tokens),
        )  # fmt: skip
        return LayerOutput(y, **load)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, valid: Any, ids: Any, token: Any, x: Tensor,
                *tensors: Optional[Tensor]) -> tuple[Any, ...]:  # fmt: skip
        saved = Saved()
        out = call.forward((valid, ids, token), x, tensors, saved)
        ctx.call, ctx.saved = call, saved
        # All memory goes to autograd, whose hooks may move it, or let it go and make it again.
        ctx.save_for_backward(saved.lend(), valid, ids, token, x, *tensors)
        ctx.set_materialize_grads(False)
        if out.counts is not None:
            ctx.mark_non_differentiable(out.counts, out.tokens)
        return tuple(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Any, _c: Any, _t: Any, d_importance: Any, d_z: Any) -> Any:
        call: _Call = ctx.call
        memory, valid, ids, token, x, *tensors = ctx.saved_tensors
        d_y = torch.zeros_like(x) if d_y is None else d_y
        to = {
            name: buffer_like(t, strided=name in MATRICES)
            for name, t, want in zip(NAMES, tensors, ctx.needs_input_grad[5:])
            if want
        }
        losses = None
        if d_importance is not None or d_z is not None:
            losses = (floats(d_importance), None, floats(d_z))
        d_x, _ = call.runs_backward(
            rows(x), call.weights(tensors), dense(d_y, x.dtype), ctx.saved.with_memory(memory),
            *call.among, call.options, gradients=Gradients(**to), from_losses=losses,
            **call.of_tokens((valid, ids, token)),
        )  # fmt: skip
        return (None, None, None, None, d_x, *of_types(map(to.get, NAMES), tensors))


def moe_layer(
    x: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
    options: layer_options,
    *,
    gate_bias: Optional[Tensor] = None,
    choice_bias: Optional[Tensor] = None,
    up_bias: Optional[Tensor] = None,
    down_bias: Optional[Tensor] = None,
    shared_up: Optional[Tensor] = None,
    shared_down: Optional[Tensor] = None,
    shared_gate: Optional[Tensor] = None,
    latent_down: Optional[Tensor] = None,
    latent_up: Optional[Tensor] = None,
    pairs: Any = None,
    shared_pairs: Any = None,
    valid: Optional[Tensor] = None,
    ids: Optional[Tensor] = None,
    token: Optional[Tensor] = None,
    observe: bool = False,
    report: Optional[LayerReport] = None,
    among: Optional[AmongRanks] = None,
    on: Any = None,
) -> LayerOutput:
    """shunt.moe_layer with gradients to x and to every weight (shunt.Weights says how they lie).

    among: the experts are on several ranks; up and down, with their biases, are those of this one, and
    every rank goes backward as often as forward. Gradients of the other weights are those of this rank's
    tokens, to be added: shunt.across.sum_across. What observe=True gives is of all ranks' tokens, but z.

    Strides: any. The matrices of experts are read in place. The other tensors are copied where
    their rows are not contiguous. ids and token: integers, as in moe_experts.
    Losses are the caller's, from what observe=True gives: `options` must have none of its own, and
    must not add to y or to gradients.
    """
    for name, plain in (("balance_loss", 0.0), ("z_loss", 0.0), ("add_to_y", False),
                        ("accumulate", False)):  # fmt: skip
        if getattr(options, name) != plain:
            raise ValueError(
                f"options.{name} is {getattr(options, name)!r}; under torch it must be {plain!r}"
            )
    of_tokens = (
        dense(valid),
        None if ids is None else ids_of(ids, "moe_layer.ids"),
        None if token is None else ids_of(token, "moe_layer.token"),
    )
    call = _Call(options, choice_bias, pairs, shared_pairs, observe, report, among, policy(x, on))
    tensors = (gate, up, down, gate_bias, up_bias, down_bias, shared_up, shared_down, shared_gate,
               latent_down, latent_up)  # fmt: skip
    if trains(x, *tensors):
        return LayerOutput(*_Layer.apply(call, *of_tokens, x, *tensors))
    return call.forward(of_tokens, x, tensors)
