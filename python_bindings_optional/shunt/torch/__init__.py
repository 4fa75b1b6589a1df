"""Shunt under torch: the layer and its experts with gradients, a module, and an experts
implementation of transformers.

    layer = shunt.torch.MoELayer.from_preset("Mixtral-8x7B", hidden=512, intermediate=1024)

    shunt.torch.register()
    model = AutoModelForCausalLM.from_config(config, experts_implementation="shunt")

Needs torch; transformers only where register() is called.
"""

from __future__ import annotations

from ._experts import moe_experts
from ._layer import LayerOutput, moe_layer
from ._module import MoELayer
from ._transformers import register

__all__ = ["LayerOutput", "MoELayer", "moe_experts", "moe_layer", "register"]
