"""Shunt as an experts implementation of transformers (5 and later)."""

from __future__ import annotations

import warnings
from typing import Optional

import torch

from .._options import activation
from ._activations import activation_of
from ._experts import moe_experts
from ._tensors import STORAGE


def register(name: str = "shunt") -> None:
    """From now on a model takes experts_implementation="shunt", from_config, from_pretrained and
    set_experts_implementation alike."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    ALL_EXPERTS_FUNCTIONS.register(name, experts_forward)


@torch.compiler.disable
def experts_forward(
    self: torch.nn.Module,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> torch.Tensor:
    """What transformers calls in the place of an experts module's own forward, which computes what
    Shunt does not: a RuntimeWarning then says so. Where the module has none, a
    NotImplementedError."""
    up = self.gate_up_proj if self.has_gate else self.up_proj
    act, missing = _what_shunt_needs(self, up)
    if act is None:
        own = getattr(type(self).forward, "__wrapped__", None)  # of use_experts_implementation
        if own is None:
            raise NotImplementedError(missing)
        warnings.warn(f"{missing}; the module's own forward runs", RuntimeWarning, stacklevel=2)
        return own(self, hidden_states, top_k_index, top_k_weights)
    down = self.down_proj
    if self.is_transposed:
        up, down = up.transpose(1, 2), down.transpose(1, 2)
    up_bias = down_bias = None
    if self.has_bias:
        up_bias = self.gate_up_proj_bias if self.has_gate else self.up_proj_bias
        down_bias = self.down_proj_bias
    pairs = ("gate_up", 0 if self.is_concatenated else 1) if self.has_gate else None
    y = moe_experts(
        hidden_states.to(up.dtype), top_k_index, top_k_weights, up, down, up_bias=up_bias,
        down_bias=down_bias, pairs=pairs, act=act,
    )  # fmt: skip
    return y.to(hidden_states.dtype)


def _what_shunt_needs(
    module: torch.nn.Module, up: torch.Tensor
) -> tuple[Optional[activation], str]:
    """The module's activation; None, and a sentence, where Shunt is not to compute it."""
    who = type(module).__name__
    if getattr(module, "has_post_expert_norm", False):
        return None, f"{who} norms each expert's output, which Shunt does not"
    if up.dtype not in STORAGE:
        return None, f"{who} has weights of {up.dtype}, which Shunt does not take"
    act = activation_of(module)
    return act, "" if act is not None else f"{who} has an activation that Shunt does not know"
