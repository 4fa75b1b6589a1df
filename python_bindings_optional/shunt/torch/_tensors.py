"""What calls of Shunt need of tensors."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Iterable, Optional

import torch

from .._options import on_host


@lru_cache(maxsize=16)
def _host(threads: int) -> on_host:
    return on_host(threads=threads)


def policy(x: torch.Tensor, on: Any) -> Any:
    """Where a call runs: as asked, else where x lies, on torch's current stream or with as many
    threads as torch uses."""
    if on is not None:
        return on
    if x.device.type == "cpu":
        return _host(torch.get_num_threads())
    if x.is_cuda:
        return None
    raise ValueError(f"x is on {x.device}; Shunt takes tensors of the CPU and of CUDA")


def rows(x: torch.Tensor) -> torch.Tensor:
    """Tokens as Shunt reads them: each one's numbers side by side."""
    x = x.detach()
    return x if x.stride(-1) == 1 else x.contiguous()


def floats(t: Optional[torch.Tensor]) -> Optional[torch.Tensor]:
    """Numbers that Shunt takes in float only."""
    return None if t is None else t.detach().to(torch.float32)


def buffer_like(t: torch.Tensor) -> torch.Tensor:
    """Where a gradient is written: float, lying as the tensor does."""
    return torch.empty_like(t, dtype=torch.float32)


def of_types(
    gradients: Iterable[Optional[torch.Tensor]], tensors: Iterable[Optional[torch.Tensor]]
) -> list[Optional[torch.Tensor]]:
    """What autograd gets: each gradient in the type of its tensor."""
    return [None if g is None else g.to(t.dtype) for g, t in zip(gradients, tensors)]


def trains(*tensors: Optional[torch.Tensor]) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
