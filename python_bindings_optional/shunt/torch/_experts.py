"""The experts alone, for ids and gates that a router of torch made."""

from __future__ import annotations

from typing import Any, Optional

import torch
from torch.autograd.function import once_differentiable

from .._backend import backend
from .._layer import Saved
from .._options import act_of, activation
from ._tensors import buffer_like, dense, floats, ids, of_types, plain, policy, rows, trains

Tensor = torch.Tensor


class _Call:
    """One call's arguments, but for its tensors."""

    __slots__ = ("pairs", "act", "module", "on")

    def __init__(self, x: Tensor, pairs: Any, act: Any, on: Any) -> None:
        self.pairs, self.act = pairs, act_of(act)
        self.module, self.on = backend(on, x)

    def experts(self, up: Tensor, down: Tensor, up_bias: Any, down_bias: Any) -> tuple[Any, ...]:
        bias = [None if b is None else rows(b) for b in (up_bias, down_bias)]
        return (plain(up), plain(down), *bias, self.pairs, self.act)

    def forward(
        self, expert: Tensor, x: Tensor, gate: Tensor, experts: Any, saved: Optional[Saved] = None
    ) -> Tensor:
        return self.module.moe_experts(
            rows(x), expert, floats(gate), self.experts(*experts), saved, None, self.on
        )


class _Experts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, call: _Call, expert: Tensor, x: Tensor, gate: Tensor, *experts: Any
    ) -> Tensor:
        saved = Saved()
        y = call.forward(expert, x, gate, experts, saved)
        ctx.call, ctx.saved = call, saved
        # All memory goes to autograd, whose hooks may move it, or let it go and make it again.
        ctx.save_for_backward(saved.lend(), expert, x, gate, *experts)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_y: Tensor) -> tuple[Any, ...]:
        call: _Call = ctx.call
        memory, expert, x, gate, *experts = ctx.saved_tensors
        wanted = ctx.needs_input_grad[3:]
        to = [
            buffer_like(t, strided=t.dim() == 3) if want else None
            for want, t in zip(wanted, (gate, *experts))
        ]
        d_x = call.module.moe_experts_backward(
            rows(x), expert, floats(gate), call.experts(*experts), dense(d_y, x.dtype),
            ctx.saved.with_memory(memory), tuple(to), None, call.on,
        )  # fmt: skip
        return (None, None, d_x, *of_types(to, (gate, *experts)))


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
    down [E,H,I] of x's type · up_bias [E,2I], down_bias [E,H] · pairs: the layout of the rows of
    gate and up, as in shunt.Weights; None for an act without a gate half.

    Strides: any. up and down are read in place. The other tensors are copied where their rows are
    not contiguous, and ids and gates where they are not contiguous int32 and float32.
    Errors: a TypeError for ids that are no integers; a ValueError for one beyond 32 bits (in CUDA
    memory, which is not waited for, such an id is no expert).
    """
    call = _Call(x, pairs, act, policy(x, on))
    expert = ids(expert, "moe_experts.expert")
    experts = (up, down, up_bias, down_bias)
    if trains(x, gate, *experts):
        return _Experts.apply(call, expert, x, gate, *experts)
    return call.forward(expert, x, gate, experts)
