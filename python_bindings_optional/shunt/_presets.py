"""The published layers, as data: `presets["Mixtral-8x7B"]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import _host
from ._options import activation, layer_options, route_options


@dataclass(frozen=True)
class preset:
    """A published MoE layer: its shape, its routing, its experts; fields as C++ `shunt::preset`."""

    name: str
    hidden: int
    intermediate: int
    experts: int
    top_k: int
    route: route_options
    act: str | activation
    choice: str
    balance: str
    choice_bias: bool
    gate_bias: bool
    expert_biases: bool
    interleaved: bool
    model_hidden: int
    shared_experts: int
    shared_intermediate: int
    shared_gate: bool
    capacity: float

    def options(self, **changes: Any) -> layer_options:
        """Options of moe_layer for this family; keywords change them."""
        given = {"top_k": self.top_k, "route": self.route, "act": self.act}
        return layer_options(**{**given, **changes})


def _read(d: dict[str, Any]) -> preset:
    kind, limit = d.pop("activation"), d.pop("activation_limit")
    act: str | activation = kind
    if limit:
        act = activation(kind, None, limit) if kind == "swiglu_clamped" else activation(kind, limit)
    return preset(**{**d, "route": route_options(**d["route"]), "act": act})


presets: dict[str, preset] = {d["name"]: _read(d) for d in _host.presets()}
