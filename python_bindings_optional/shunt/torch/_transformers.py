"""Shunt as an experts implementation of transformers (5 and later)."""

from __future__ import annotations

import math
from typing import Any, Optional

import torch

from .._experts import activation_forward
from .._options import activation
from ._experts import moe_experts

_KNOWN: dict[Any, activation] = {}  # of each kind of experts module that was met


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
    """What transformers calls in the place of an experts module's own forward."""
    if getattr(self, "has_post_expert_norm", False):
        raise NotImplementedError(f"{_who(self)} norms each expert's output, which Shunt does not")
    up = self.gate_up_proj if self.has_gate else self.up_proj
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
        down_bias=down_bias, pairs=pairs, act=_activation_of(self),
    )  # fmt: skip
    return y.to(hidden_states.dtype)


def _who(module: torch.nn.Module) -> str:
    return type(module).__name__


def _numbers(module: torch.nn.Module, *names: str) -> Optional[float]:
    found = [getattr(module, n, None) for n in names]
    return next((float(v) for v in found if isinstance(v, (int, float))), None)


def _activation_of(module: torch.nn.Module) -> activation:
    act = getattr(module, "act_fn", None)
    limit = _numbers(module, "limit", "swiglu_limit")
    alpha = _numbers(module, "alpha", "swiglu_alpha")
    # An activation module without parameters is its class; another is looked at by itself.
    if isinstance(act, torch.nn.Module) and next(act.parameters(), None) is None:
        act = type(act)
    key = (type(module), act, limit, alpha, module.is_concatenated, module.has_gate)
    if key not in _KNOWN:
        _KNOWN[key] = _recognised(module, limit, alpha)
    return _KNOWN[key]


@torch.no_grad()
def _recognised(
    module: torch.nn.Module, limit: Optional[float], alpha: Optional[float]
) -> activation:
    """The one of Shunt's that gives the module's own numbers, on both sides of every bend."""
    edge = limit if limit is not None and math.isfinite(limit) else 4.0
    points = torch.linspace(-1.5 * edge, 1.5 * edge, 41)
    if module.has_gate:
        gate, up = (p.reshape(-1) for p in torch.meshgrid(points, points, indexing="ij"))
        rows = torch.stack([gate, up], 0 if module.is_concatenated else 1).reshape(1, -1)
        own = module._apply_gate(rows).reshape(-1).float()
        ours = torch.cat([gate, up]).reshape(1, -1)
        candidates = [activation("swiglu"), activation("geglu")]
        if limit is not None:
            candidates.append(activation("swiglu_capped", limit))
            if alpha is not None:
                candidates.append(activation("swiglu_clamped", alpha, limit))
    else:
        own = module.act_fn(points).float()
        ours = points.reshape(1, -1)
        candidates = [activation(k) for k in ("relu2", "relu", "gelu", "gelu_tanh", "identity")]
    for candidate in candidates:
        if torch.allclose(activation_forward(ours, candidate).reshape(-1), own, 1e-5, 1e-5):
            return candidate
    raise NotImplementedError(
        f"{_who(module)} has an activation that Shunt does not know; it is none of "
        + ", ".join(c.kind for c in candidates)
    )
