"""New arrays of the caller's kind."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

_NUMPY = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(np.uint16),
    "int16": np.dtype(np.int16),
    "int32": np.dtype(np.int32),
    "int64": np.dtype(np.int64),
    "uint8": np.dtype(np.uint8),
}


def empty(like: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """An array for Shunt to write: of torch for torch's, of CuPy for CuPy's, else of NumPy."""
    if type(like) is not np.ndarray:
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(like, torch.Tensor):
            return torch.empty(shape, dtype=getattr(torch, dtype), device=like.device)
        cupy = sys.modules.get("cupy")
        if cupy is not None and isinstance(like, cupy.ndarray):
            with like.device:
                return cupy.empty(shape, dtype=_NUMPY[dtype])
    elif dtype == "bfloat16" and like.dtype.name == "bfloat16":  # ml_dtypes
        return np.empty(shape, like.dtype)
    return np.empty(shape, _NUMPY[dtype])


def zeros(like: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """The same, of zeros."""
    made = empty(like, shape, dtype)
    made[...] = 0
    return made
