"""Shunt: the inside of a mixture-of-experts layer, on NumPy arrays and torch tensors.

Functions and options carry the names of the C++ library, whose docs say what each one promises.
"""

from __future__ import annotations

from .layer import (
    Gradients,
    LayerReport,
    Saved,
    Weights,
    moe_layer,
    moe_layer_backward,
)
from .options import activation, layer_options, on_host, route_options
from .presets import preset, presets
from .routing import Routing
