"""Which of the extension modules runs a call, and what it takes for Shunt's Python objects."""

from __future__ import annotations

from typing import Any, Tuple

from . import _host
from ._options import on_host


def backend(on: Any) -> Tuple[Any, Any]:
    """The module, and its policy."""
    if on is None:
        return _host, None
    if isinstance(on, on_host):
        return _host, on._made  # type: ignore[attr-defined]
    raise TypeError(f"on is {type(on).__name__}; it must be a shunt.on_host or None")
