"""The whole layer, from the router on, with the gradients of everything that has one."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

import torch
from torch.autograd.function import once_differentiable

from .._layer import Gradients, LayerReport, Saved, Weights
from .._layer import moe_layer as _moe_layer
from .._layer import moe_layer_backward as _moe_layer_backward
from .._options import layer_options
from .._routing import Routing
from ._tensors import buffer_like, floats, of_types, policy, rows, trains

Tensor = torch.Tensor

# In the order of the function's arguments; those below `FLOAT` are float for Shunt.
NAMES = ("gate", "up", "down", "gate_bias", "up_bias", "down_bias", "shared_up", "shared_down",
         "shared_gate", "latent_down", "latent_up")  # fmt: skip
FLOAT = ("gate_bias",)


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
        share = self.counts / self.counts.sum().clamp(min=1)
        return len(share) * (share * self.importance).sum() / self.tokens.clamp(min=1)[0]

    def z_loss(self) -> Tensor:
        """The mean over tokens of z²."""
        assert self.z is not None, "observe=True was not given"
        return (self.z * self.z).sum() / self.tokens.clamp(min=1)[0]


class _Call:
    """One call's arguments, but for what has a gradient."""

    def __init__(self, options: layer_options, choice_bias: Optional[Tensor], pairs: Any,
                 shared_pairs: Any, observe: bool, report: Optional[LayerReport],
                 **of_tokens: Any) -> None:  # fmt: skip
        self.options = options
        self.of_weights = {"choice_bias": floats(choice_bias), "pairs": pairs,
                           "shared_pairs": shared_pairs}  # fmt: skip
        self.observe, self.report = observe, report
        self.of_tokens = of_tokens
        self.saved: Optional[Saved] = None

    def weights(self, tensors: tuple[Optional[Tensor], ...]) -> Weights:
        given = {}
        for name, t in zip(NAMES, tensors):
            given[name] = None if t is None else floats(t) if name in FLOAT else t.detach()
        return Weights(**given, **self.of_weights)

    def forward(self, x: Tensor, tensors: tuple[Optional[Tensor], ...]) -> LayerOutput:
        load: dict[str, Tensor] = {}
        if self.observe:
            experts, tokens = len(tensors[0]), len(x)
            load["counts"] = torch.empty(experts, dtype=torch.int32, device=x.device)
            load["tokens"] = torch.empty(1, dtype=torch.int32, device=x.device)
            load["importance"] = torch.empty(experts, device=x.device)
            load["z"] = torch.empty(tokens, device=x.device)
        y = _moe_layer(
            rows(x), self.weights(tensors), self.options, saved=self.saved, report=self.report,
            observe=Routing(**load) if load else None, **self.of_tokens,
        )  # fmt: skip
        return LayerOutput(y, **load)


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, x: Tensor, *tensors: Optional[Tensor]) -> tuple[Any, ...]:
        call.saved = Saved()
        ctx.call = call
        ctx.save_for_backward(x, *tensors)
        ctx.set_materialize_grads(False)
        out = call.forward(x, tensors)
        if out.counts is not None:
            ctx.mark_non_differentiable(out.counts, out.tokens)
        return tuple(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Any, _c: Any, _t: Any, d_importance: Any, d_z: Any) -> Any:
        call: _Call = ctx.call
        x, *tensors = ctx.saved_tensors
        d_y = torch.zeros_like(x) if d_y is None else d_y.detach().to(x.dtype).contiguous()
        to = {
            name: buffer_like(t)
            for name, t, want in zip(NAMES, tensors, ctx.needs_input_grad[2:])
            if want
        }
        losses = None
        if d_importance is not None or d_z is not None:
            losses = (
                None if d_importance is None else d_importance.detach().contiguous(),
                None,
                None if d_z is None else d_z.detach().contiguous(),
            )
        d_x, _ = _moe_layer_backward(
            rows(x), call.weights(tuple(tensors)), d_y, call.saved, call.options,
            gradients=Gradients(**to), from_losses=losses, **call.of_tokens,
        )  # fmt: skip
        return (None, d_x, *of_types(map(to.get, NAMES), tensors))


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
    on: Any = None,
) -> LayerOutput:
    """shunt.moe_layer with gradients to x and to every weight (shunt.Weights says how they lie).

    Losses are the caller's, from what observe=True gives: `options` must have none of its own, and
    must not add to y or to gradients.
    """
    for name, plain in (("balance_loss", 0.0), ("z_loss", 0.0), ("add_to_y", False),
                        ("gradients", "overwrite")):  # fmt: skip
        if getattr(options, name) != plain:
            raise ValueError(
                f"options.{name} is {getattr(options, name)!r}; under torch it must be {plain!r}"
            )
    of_tokens = {"valid": valid, "ids": ids, "token": token, "on": policy(x, on)}
    call = _Call(options, choice_bias, pairs, shared_pairs, observe, report, **of_tokens)
    tensors = (gate, up, down, gate_bias, up_bias, down_bias, shared_up, shared_down, shared_gate,
               latent_down, latent_up)  # fmt: skip
    if trains(x, *tensors):
        return LayerOutput(*_Layer.apply(call, x, *tensors))
    return call.forward(x, tensors)
