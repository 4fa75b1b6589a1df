"""The experts alone, for ids and gates that a router of torch made."""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch.autograd.function import once_differentiable

from .._backend import backend
from .._layer import Saved
from .._options import act_of, activation
from ._tensors import buffer_like, floats, of_types, policy, rows, trains

Tensor = torch.Tensor


class _Call:
    """One call's arguments, but for what has a gradient."""

    __slots__ = ("expert", "pairs", "act", "saved", "module", "on")

    def __init__(self, x: Tensor, expert: Tensor, pairs: Any, act: Any, on: Any) -> None:
        self.expert = expert.detach().to(torch.int32)
        self.pairs, self.act = pairs, act_of(act)
        self.module, self.on = backend(on, x)
        self.saved: Optional[Saved] = None

    def experts(self, up: Tensor, down: Tensor, up_bias: Any, down_bias: Any) -> tuple[Any, ...]:
        bias = [None if b is None else b.detach() for b in (up_bias, down_bias)]
        return (up.detach(), down.detach(), *bias, self.pairs, self.act)

    def forward(self, x: Tensor, gate: Tensor, *experts: Any) -> Tensor:
        return self.module.moe_experts(
            rows(x), self.expert, floats(gate), self.experts(*experts), self.saved, None, self.on
        )


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, x: Tensor, gate: Tensor, *experts: Any) -> Tensor:
        call.saved = Saved()
        ctx.call = call
        ctx.save_for_backward(x, gate, *experts)
        return call.forward(x, gate, *experts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Any, ...]:
        call: _Call = ctx.call
        x, gate, *experts = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        to = [
            buffer_like(gate.contiguous() if t is gate else t) if want else None
            for want, t in zip(wanted, (gate, *experts))
        ]
        d_x = call.module.moe_experts_backward(
            rows(x), call.expert, floats(gate), call.experts(*experts),
            d_y.detach().to(x.dtype).contiguous(), call.saved, tuple(to), None, call.on,
        )  # fmt: skip
        return (None, d_x, *of_types(to, (gate, *experts)))


def moe_experts(
    x: Tensor,
    expert: Tensor,
    gate: Tensor,
    up: Tensor,
    down: Tensor,
    *,
    up_bias: Optional[Tensor] = None,
    down_bias: Optional[Tensor] = None,
    pairs: Any = "gate_up",
    act: str | activation = "swiglu",
    on: Any = None,
) -> Tensor:
    """y [T,H]: each token's experts weighted by its gates; gradients to all but `expert`.

    x [T,H] · expert [T,K] integers, one outside 0..E-1 is no expert · gate [T,K] · up [E,2I,H],
    down [E,H,I] of x's type, with any strides · up_bias [E,2I], down_bias [E,H] · pairs: how the
    rows of gate and up lie, as in shunt.Weights; None for an act without a gate half.
    """
    call = _Call(x, expert, pairs, act, policy(x, on))
    if trains(x, gate, up, down, up_bias, down_bias):
        return _Experts.apply(call, x, gate, up, down, up_bias, down_bias)
    return call.forward(x, gate, up, down, up_bias, down_bias)
