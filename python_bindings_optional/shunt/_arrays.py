"""New arrays of the caller's kind."""

from __future__ import annotations

import sys
from typing import Any, Optional

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


def _torch_of(like: Any) -> Any:
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(like, torch.Tensor) else None


def _cupy_of(like: Any) -> Any:
    cupy = sys.modules.get("cupy")
    return cupy if cupy is not None and isinstance(like, cupy.ndarray) else None


def known_library(like: Any) -> bool:
    """Of its arrays new ones can be made on a device."""
    return _torch_of(like) is not None or _cupy_of(like) is not None


def empty(like: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """An array for Shunt to write: of torch for torch's, of CuPy for CuPy's, else of NumPy."""
    if type(like) is not np.ndarray:
        torch, cupy = _torch_of(like), _cupy_of(like)
        if torch is not None:
            return torch.empty(shape, dtype=getattr(torch, dtype), device=like.device)
        if cupy is not None:
            with like.device:
                return cupy.empty(shape, dtype=_NUMPY[dtype])
        _refuse_device(like, shape, dtype)
    elif dtype == "bfloat16" and like.dtype.name == "bfloat16":  # ml_dtypes
        return np.empty(shape, like.dtype)
    return np.empty(shape, _NUMPY[dtype])


def _refuse_device(like: Any, shape: tuple[int, ...], dtype: str) -> None:
    from ._backend import device_of

    if device_of(like) is not None:
        raise ValueError(
            f"an array {list(shape)} of {dtype} is needed, and shunt cannot make a "
            f"{type(like).__name__} on a device; give outputs as arguments and scratch by "
            "on=shunt.on_cuda(scratch=...), or a function that makes arrays by on_cuda(empty=...)"
        )


def empty_on(stream: int, like: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """The same in memory that is free on `stream`, where that is not the library's current one."""
    torch = _torch_of(like)
    if torch is not None:
        with torch.cuda.stream(torch.cuda.ExternalStream(stream, like.device)):
            return empty(like, shape, dtype)
    with like.device, _cupy_of(like).cuda.ExternalStream(stream):
        return empty(like, shape, dtype)


def zeros(like: Any, shape: tuple[int, ...], dtype: str, where: Optional[Any] = None) -> Any:
    """An array of zeros; where: the policy of a call on a device, None on the host."""
    make = getattr(where, "empty", None)
    made = empty(like, shape, dtype) if make is None else make(shape, dtype)
    if hasattr(where, "stream"):
        from ._backend import cuda_module

        cuda_module().set_zero(made, where)
    else:
        made[...] = 0
    return made


def int32_part(memory: Any, first: int, count: int) -> Any:
    """`count` numbers from byte `first` on, in an array of bytes on a device."""
    torch = _torch_of(memory)
    return memory[first : first + 4 * count].view(np.int32 if torch is None else torch.int32)
