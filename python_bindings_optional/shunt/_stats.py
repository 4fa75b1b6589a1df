"""How evenly the experts are used."""

from __future__ import annotations

from typing import Any, Dict, Optional, Union

from ._backend import backend
from ._dispatch import Plan

Array = Any


def load_stats(
    load: Union[Array, Plan],
    *,
    share: Optional[Array] = None,
    report: Optional[Array] = None,
    on: Any = None,
) -> Dict[str, Any]:
    """Figures of a load: counts [E] int32 or int64, or a Plan. share [E] float32, written: the
    share of each expert · report: a Routing's, for the count of logits that were not finite."""
    module, where = backend(on, load)
    return module.load_stats(load, share, report, where)


def add_load(counts: Array, total: Array, *, on: Any = None) -> Array:
    """total [E] int64 += counts [E] int32, in place."""
    module, where = backend(on, counts)
    return module.add_load(counts, total, where)
