"""What calls of Shunt need of tensors."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Iterable, Optional

import torch

from .. import _host
from .._options import on_host


@lru_cache(maxsize=16)
def _on_host(threads: int) -> on_host:
    return on_host(threads=threads)


def policy(x: torch.Tensor, on: Any) -> Any:
    """Where a call runs: as asked, else where x lies, on torch's current stream or with as many
    threads as torch uses."""
    if on is not None:
        return on
    if x.device.type == "cpu":
        return _on_host(torch.get_num_threads())
    if x.is_cuda:
        return None
    raise ValueError(f"x is on {x.device}; Shunt takes tensors of the CPU and of CUDA")


STORAGE = (torch.float32, torch.bfloat16, torch.float16)  # what tokens and weights may be
INTEGERS = [getattr(torch, name) for name in
            ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32")
            if hasattr(torch, name)]  # fmt: skip


def is_plain(t: torch.Tensor) -> bool:
    """Not a subclass that computes by itself (DTensor, FakeTensor): such a one goes as it is to the
    extension module, which refuses it by its name."""
    kind = type(t)
    return kind is torch.Tensor or kind.__torch_dispatch__ is torch.Tensor.__torch_dispatch__


def plain(t: torch.Tensor) -> torch.Tensor:
    """Out of autograd, and with its values in memory; those of a collective are waited for."""
    if not is_plain(t):
        return t.trigger_wait() if hasattr(t, "trigger_wait") else t  # AsyncCollectiveTensor
    t = t.detach()
    return t.resolve_neg() if t.is_neg() else t


def rows(t: torch.Tensor) -> torch.Tensor:
    """With contiguous rows, as Shunt reads tokens and vectors; a copy where they are not."""
    t = plain(t)
    return t.contiguous() if is_plain(t) and t.dim() and t.stride(-1) != 1 else t


def dense(t: Optional[torch.Tensor], dtype: Optional[torch.dtype] = None) -> Optional[torch.Tensor]:
    """Contiguous, and of the type; None stays None."""
    if t is None:
        return None
    t = plain(t)
    return t.to(dtype or t.dtype).contiguous() if is_plain(t) else t


def floats(t: Optional[torch.Tensor]) -> Optional[torch.Tensor]:
    """Numbers that Shunt takes in float only."""
    return dense(t, torch.float32)


def ids(t: torch.Tensor, name: str) -> torch.Tensor:
    """Contiguous int32 of integers. One that int32 cannot hold is no id of anything: on the host a
    ValueError; in CUDA memory, which is not waited for, it becomes -1 or the largest int32."""
    if t.dtype not in INTEGERS:
        raise TypeError(f"{name}: its elements are {t.dtype}; they must be integers, and signed or "
                        "of fewer than 64 bits")  # fmt: skip
    if t.dtype == torch.int32 or not is_plain(t):
        return dense(t)
    if t.device.type == "cpu":
        return _host.narrow_ids(t.to(torch.int64), name)
    return dense(t.to(torch.int64).clamp(-1, torch.iinfo(torch.int32).max), torch.int32)


def buffer_like(t: torch.Tensor, *, strided: bool = False) -> torch.Tensor:
    """Where a gradient is written: float, and contiguous, or lying as the weights `t` do."""
    if strided:
        return torch.empty_like(t, dtype=torch.float32)
    return torch.empty(t.shape, dtype=torch.float32, device=t.device)


def of_types(
    gradients: Iterable[Optional[torch.Tensor]], tensors: Iterable[Optional[torch.Tensor]]
) -> list[Optional[torch.Tensor]]:
    """What autograd gets: each gradient in the type of its tensor."""
    return [None if g is None else g.to(t.dtype) for g, t in zip(gradients, tensors)]


def trains(*tensors: Optional[torch.Tensor]) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
