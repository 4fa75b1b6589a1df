"""The layer with its experts on several ranks, each with tokens of its own.

    among = shunt.across.AmongRanks(exchange, shunt.across.place_evenly(experts, ranks))
    y = shunt.across.moe_layer(x, weights, among, options)

An exchange is any object with `rank`, `ranks`, `all_gather` and `exchange`: see Exchange. OverMpi
and OverTorch are two; rank_processes serves processes of one host without either. Host memory."""

from __future__ import annotations

from .._host import ProcessTable, rank_processes
from ._exchanges import Exchange, OverMpi, OverTorch
from ._layer import moe_layer, moe_layer_backward
from ._ranks import AmongRanks, Placement, place_evenly, place_on_survivors
from ._sums import gradient_norm, sum_across, sum_gradients

__all__ = [
    "AmongRanks",
    "Exchange",
    "OverMpi",
    "OverTorch",
    "Placement",
    "ProcessTable",
    "gradient_norm",
    "moe_layer",
    "moe_layer_backward",
    "place_evenly",
    "place_on_survivors",
    "rank_processes",
    "sum_across",
    "sum_gradients",
]
