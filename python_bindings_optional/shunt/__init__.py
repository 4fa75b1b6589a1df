"""Shunt: the inside of a mixture-of-experts layer, on NumPy arrays and torch tensors.

Functions and options carry the names of the C++ library, whose docs say what each one promises.
"""

from __future__ import annotations

from ._combine import combine, combine_backward
from ._dispatch import (
    Plan,
    dispatch,
    dispatch_backward,
    gates_to_rows,
    plan_dispatch,
    plan_from_expert_choice,
    row_tokens,
    rows_to_gates,
)
from ._experts import (
    activation_backward,
    activation_forward,
    grouped_dgrad,
    grouped_gemm,
    grouped_wgrad,
    pack_weights,
)
from ._layer import (
    Gradients,
    LayerReport,
    Saved,
    Weights,
    moe_layer,
    moe_layer_backward,
)
from ._losses import (
    balance_loss,
    band_loss,
    quantile_step,
    sequence_balance_loss,
    sign_step,
    z_loss,
)
from ._options import activation, layer_options, on_cuda, on_host, route_options
from ._presets import preset, presets
from ._routing import (
    ExpertChoice,
    Routing,
    gate_logits,
    gate_logits_backward,
    route,
    route_backward,
    route_events,
    route_expert_choice,
    route_expert_choice_backward,
)
from ._stats import add_load, load_stats

__all__ = [name for name in dir() if not name.startswith("_") and name != "annotations"]
