"""Which of the extension modules runs a call, and what it takes for Shunt's Python objects."""

from __future__ import annotations

import sys
from functools import lru_cache, partial
from types import ModuleType
from typing import Any, Optional, Tuple

import numpy as np

from . import _host
from ._arrays import empty_on, known_library
from ._options import on_cuda, on_host

_CUDA, _CUDA_MANAGED = 2, 13  # of DLPack


def backend(on: Any, like: Any) -> Tuple[Any, Any]:
    """The module, and its policy, for arrays that lie where `like` does."""
    if on is None:
        if type(like) is np.ndarray:
            return _host, None
        device = device_of(like)
        return (_host, None) if device is None else _on_device(_AS_THE_ARRAYS, like, device)
    if isinstance(on, on_host):
        return _host, on._made  # type: ignore[attr-defined]
    if isinstance(on, on_cuda):
        return _on_device(on, like, device_of(like))
    raise TypeError(
        f"on is {type(on).__name__}; it must be a shunt.on_host, a shunt.on_cuda or None"
    )


def device_of(like: Any) -> Optional[int]:
    """The CUDA device of an array, a plan, packed weights or a list of arrays; None: the host."""
    like = _array_of(like)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(like, torch.Tensor):
        return like.get_device() if like.is_cuda else None
    if isinstance(like, np.ndarray):
        return None
    if hasattr(like, "__dlpack_device__"):
        kind, index = like.__dlpack_device__()
        return int(index) if kind in (_CUDA, _CUDA_MANAGED) else None
    interface = getattr(like, "__cuda_array_interface__", None)
    if isinstance(interface, dict):
        return cuda_module().device_of(interface["data"][0])
    return None


@lru_cache(maxsize=1)
def cuda_module() -> ModuleType:
    try:
        from . import _cuda
    except ImportError as missing:
        raise ValueError(
            "an array lies in CUDA memory, which this installation of shunt does not take: it was "
            f"built without nvcc, or the module does not load here ({missing})"
        ) from missing
    return _cuda


def _array_of(like: Any) -> Any:
    if isinstance(like, _host.Plan):
        return like.memory
    if isinstance(like, _host.PackedWeights):
        return like.data
    if isinstance(like, (list, tuple)) and like:
        return _array_of(like[0])
    return like


_AS_THE_ARRAYS = on_cuda()


def _on_device(on: on_cuda, like: Any, device: Optional[int]) -> Tuple[Any, Any]:
    module, like = cuda_module(), _array_of(like)
    if on.device is not None:
        device = on.device
    elif device is None:  # the module says what is wrong with an array of the host
        device = module.current_device()
    of_arrays = _stream_of(like, device)
    stream = of_arrays if on.stream is None else on.stream if on.stream != 1 else 0
    make = on.empty
    if make is None and stream != of_arrays and known_library(like):
        make = partial(empty_on, stream, like)
    if make is None and on.scratch is None:
        return module, _policy(device, stream, on.products)
    return module, module.make_policy(device, stream, on.products, on.scratch, make)


@lru_cache(maxsize=256)
def _policy(device: int, stream: int, products: str) -> Any:
    return cuda_module().make_policy(device, stream, products, None, None)


def _stream_of(like: Any, device: int) -> int:
    """Where the array's library works now; of one that does not say, the legacy default stream."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(like, torch.Tensor):
        return torch.cuda.current_stream(device).cuda_stream if like.is_cuda else 0
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(like, cupy.ndarray):
        with like.device:
            return cupy.cuda.get_current_stream().ptr
    if not hasattr(like, "__dlpack__"):
        interface = getattr(like, "__cuda_array_interface__", None)
        stream = interface.get("stream") if isinstance(interface, dict) else None
        return 0 if stream in (None, 1) else int(stream)
    return 0
