"""Which of the extension modules runs a call."""

from __future__ import annotations

from typing import Any

from . import _host
from .options import on_host


def backend(on: Any) -> Any:
    if on is None or type(on) is on_host:
        return _host
    raise TypeError(f"on is {type(on).__name__}; it must be a shunt.on_host or None")
