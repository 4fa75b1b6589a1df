"""Sums over ranks, in one order."""

from __future__ import annotations

import sys
from typing import Any, Iterator

from .. import _host
from .._layer import Gradients
from ._ranks import AmongRanks, checked

_EXPERTS = ("up", "down", "up_bias", "down_bias")


def _flat(array: Any, *shape: int) -> Any:
    """A view of the same numbers."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return array.view(*shape)  # raises where it cannot be one
    if not getattr(getattr(array, "flags", None), "c_contiguous", False):
        raise ValueError(
            f"a {type(array).__name__} cannot be summed across ranks where it lies; it must be a "
            "contiguous array"
        )
    return array.reshape(*shape)


def _whole(gradients: Gradients) -> Iterator[Any]:
    """What every rank has whole, in the order of the fields."""
    for name in Gradients.__slots__:
        given = None if name in _EXPERTS else getattr(gradients, name)
        if isinstance(given, tuple):  # (gates, ups)
            given = [one for half in given for one in half]
        if given is not None:
            yield from given if isinstance(given, list) else [given]


def sum_across(values: Any, among: AmongRanks) -> None:
    """Adds the ranks' float32 values, of any shape and contiguous, in place and in the order of
    ranks: the same bits on every rank and run."""
    _host.sum_across(_flat(values, -1), checked(among, "sum_across.among"))


def sum_gradients(gradients: Gradients, among: AmongRanks) -> None:
    """sum_across of the gradients of what every rank has whole: gate, shared experts, latents."""
    for array in _whole(gradients):
        sum_across(array, among)


def gradient_norm(gradients: Gradients, among: AmongRanks) -> float:
    """The norm of all gradients, after sum_gradients: those of every expert once, wherever it
    lives, and of the others once. The same bits on any number of ranks and for any placement."""
    experts = []
    for name in _EXPERTS:
        given = getattr(gradients, name)
        if isinstance(given, (list, tuple)):
            raise ValueError(f"gradients.{name} is a list; gradient_norm takes one array [L, ...]")
        if given is not None:
            experts.append(_flat(given, len(given), -1) if len(given) else given.reshape(0, 1))
    whole = [_flat(array, -1) for array in _whole(gradients)]
    return _host.gradient_norm_across(experts, whole, checked(among, "gradient_norm.among"))
