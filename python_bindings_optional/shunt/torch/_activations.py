"""Which of Shunt's activations an experts module of transformers has, if any."""

from __future__ import annotations

import functools
import math
import sys
from typing import Any, Optional
from weakref import WeakKeyDictionary

import torch
from torch.nn import functional as F

from .._experts import activation_forward
from .._options import activation

# Modules of torch and transformers that have no parameters of their own, by where and how they are
# called; those below are looked at by their arguments too.
_NAMED = {
    ("torch.nn.modules.activation", "SiLU"): "silu",
    ("torch.nn.modules.activation", "ReLU"): "relu",
    ("torch.nn.modules.linear", "Identity"): "identity",
    ("transformers.activations", "SiLUActivation"): "silu",
    ("transformers.activations", "NewGELUActivation"): "gelu_tanh",
    ("transformers.activations", "ReLUSquaredActivation"): "relu2",
    ("transformers.activations", "LinearActivation"): "identity",
}
_FUNCTIONS = ((F.silu, "silu"), (F.relu, "relu"), (torch.relu, "relu"), (F.gelu, "gelu"))
_OF_GELU = {"none": "gelu", "tanh": "gelu_tanh"}  # by its argument `approximate`
_OF_METHODS = {"_gelu_python": "gelu", "_gelu_tanh_python": "gelu_tanh"}
_GATED = {"silu": "swiglu", "gelu": "geglu"}  # the activation of the gate half
_PLAIN = ("relu2", "relu", "gelu", "gelu_tanh", "identity")

# What each module was found to have, and what it was like then.
_FOUND: WeakKeyDictionary[torch.nn.Module, tuple[Any, Optional[activation]]] = WeakKeyDictionary()


def activation_of(module: torch.nn.Module) -> Optional[activation]:
    """By the names and the arguments of its activation and its gate. Where these do not tell, by
    what the module itself computes, up to numbers that 16 bits just hold. None: Shunt has none."""
    act = getattr(module, "act_fn", None)
    known = _named(act)
    if known is not None:
        if not module.has_gate and known in _PLAIN:
            return activation(known)
        if module.has_gate and module.is_concatenated and _gates_as_all_do(module):
            return activation(_GATED[known]) if known in _GATED else None
    if isinstance(act, torch.nn.Module) and _learns(act):
        return None
    looks = _looks(module)
    found = _FOUND.get(module)
    if found is None or found[0] != looks:
        found = _FOUND[module] = (looks, _probed(module))
    return found[1]


def _named(act: Any) -> Optional[str]:
    """silu, gelu, gelu_tanh, relu, relu2 or identity."""
    if isinstance(act, functools.partial):
        tanh = act.func is F.gelu and not act.args and set(act.keywords) <= {"approximate"}
        return _OF_GELU.get(act.keywords.get("approximate", "none")) if tanh else None
    if not isinstance(act, torch.nn.Module):
        return next((kind for function, kind in _FUNCTIONS if function is act), None)
    if "forward" in vars(act) or act._forward_hooks or act._forward_pre_hooks:
        return None
    name = type(act).__module__, type(act).__name__
    if name == ("torch.nn.modules.activation", "GELU"):
        return _OF_GELU.get(act.approximate)
    if name in (("transformers.activations", "GELUActivation"),
                ("transformers.activations", "GELUTanh")):  # fmt: skip
        inner = act.act
        is_method = getattr(inner, "__self__", None) is act
        return _OF_METHODS.get(inner.__name__) if is_method else _named(inner)
    return _NAMED.get(name)


def _gates_as_all_do(module: torch.nn.Module) -> bool:
    """act(gate) * up, which transformers gives a class without a gate of its own."""
    moe = sys.modules.get("transformers.integrations.moe")
    default = getattr(moe, "_default_apply_gate", None)
    if default is None or "_apply_gate" in vars(module):
        return False
    return getattr(type(module), "_apply_gate", None) is default


def _learns(act: torch.nn.Module) -> bool:
    return any(True for _ in act.parameters()) or any(True for _ in act.buffers())


def _looks(module: torch.nn.Module) -> Any:
    """All that an activation may depend on: the module's own numbers and flags, and those of the
    modules that it is made of."""

    def plain(m: torch.nn.Module) -> Any:
        values = ((k, v) for k, v in vars(m).items() if isinstance(v, (int, float, str)))
        return type(m), tuple(values)

    act, gate = getattr(module, "act_fn", None), getattr(module, "_apply_gate", None)
    parts = act.modules() if isinstance(act, torch.nn.Module) else ()
    return plain(module), act, getattr(gate, "__func__", gate), tuple(plain(m) for m in parts)


def _number(module: torch.nn.Module, *names: str) -> Optional[float]:
    found = [getattr(module, n, None) for n in names]
    return next((float(v) for v in found if isinstance(v, (int, float)) and math.isfinite(v)), None)


@torch.no_grad()
def _probed(module: torch.nn.Module) -> Optional[activation]:
    """The one that gives the module's own numbers: on both sides of its limit, and of a limit that
    nothing says anything of, wherever it is."""
    limit = _number(module, "limit", "swiglu_limit")
    alpha = _number(module, "alpha", "swiglu_alpha")
    new = {"dtype": torch.float32, "device": "cpu"}
    near = torch.linspace(-1.5, 1.5, 41, **new) * (limit or 4.0)
    far = torch.exp2(torch.arange(-24, 32, **new) / 2)
    points = torch.cat([near, far, -far])
    try:
        if module.has_gate:
            gate, up = (p.reshape(-1) for p in torch.meshgrid(points, points, indexing="ij"))
            rows = torch.stack([gate, up], 0 if module.is_concatenated else 1).reshape(1, -1)
            own = module._apply_gate(rows).reshape(-1).float()
            ours, size = torch.cat([gate, up]).reshape(1, -1), (gate * up).abs()
        else:
            own = module.act_fn(points).float()
            ours, size = points.reshape(1, -1), points.abs()
    except Exception:  # it needs what is not here: its weights' device or type, say
        return None
    for candidate in _candidates(module.has_gate, limit, alpha):
        value = activation_forward(ours, candidate).reshape(-1)
        # In its tail a formula of float loses all digits of a small factor, not of a large one.
        if value.shape == own.shape and bool(
            ((value - own).abs() <= 1e-5 * (1 + size + own.abs())).all()
        ):
            return candidate
    return None


def _candidates(
    gated: bool, limit: Optional[float], alpha: Optional[float]
) -> list[activation]:
    if not gated:
        return [activation(kind) for kind in _PLAIN]
    some = [activation(kind) for kind in _GATED.values()]
    if limit is not None:
        some.append(activation("swiglu_capped", limit))
        if alpha is not None:
            some.append(activation("swiglu_clamped", alpha, limit))
    return some
