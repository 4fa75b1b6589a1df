"""What torch_moe.py and torch_train.py share: the experts as model code in torch writes them, turns, JSON."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from typing import Any, Callable

import torch
import torch.nn.functional as F

Tensor = torch.Tensor


def loop(x: Tensor, ids: Tensor, gates: Tensor, up: list[Tensor], down: list[Tensor]) -> Tensor:
    """An expert after the other, each a parameter of its own: gather, two linears, index_add_."""
    y = torch.zeros_like(x)
    for e in torch.unique(ids).tolist():
        token, slot = torch.where(ids == e)
        gate, linear = F.linear(x[token], up[e]).chunk(2, dim=-1)
        rows = F.linear(F.silu(gate) * linear, down[e])
        y.index_add_(0, token, rows * gates[token, slot, None].to(x.dtype))
    return y


def grouped(x: Tensor, ids: Tensor, gates: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """torch._grouped_mm over rows sorted by expert."""
    flat = ids.flatten()
    order = flat.argsort(stable=True)
    token = order // ids.shape[1]
    ends = torch.bincount(flat, minlength=len(up)).cumsum(0).to(torch.int32)
    gate, linear = torch._grouped_mm(x[token], up.transpose(1, 2), offs=ends).chunk(2, dim=-1)
    rows = torch._grouped_mm(F.silu(gate) * linear, down.transpose(1, 2), offs=ends)
    rows = rows * gates.flatten()[order, None].to(x.dtype)
    return torch.zeros_like(x).index_add_(0, token, rows)


def grouped_runs(dtype: torch.dtype) -> str:
    """Why torch._grouped_mm does not run here, forward and backward, or an empty string."""
    x = torch.ones(4, 16, dtype=dtype, requires_grad=True)
    w = torch.ones(2, 32, 16, dtype=dtype, requires_grad=True)
    ends = torch.tensor([2, 4], dtype=torch.int32)
    try:
        y = torch._grouped_mm(x, w.transpose(1, 2), offs=ends)
        y.backward(torch.ones_like(y))
    except (AttributeError, RuntimeError) as e:
        return str(e).splitlines()[0]
    return ""


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, one after the other, `rounds` times. Two pools of threads must not meet:
    a pause lets the last one's go to sleep."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(0.06)
            before = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - before)
    return times


def entries(base: str, times: dict[str, list[float]], ours: str) -> list[dict[str, Any]]:
    """Benchmarks in the form of Google Benchmark's JSON, with the ratio to `ours` of each round."""
    all = []
    for name, seconds in times.items():
        entry = {
            "name": f"{base}/{name}", "time_unit": "ms", "rounds": len(seconds),
            "real_time": 1e3 * statistics.median(seconds),
            "least": 1e3 * min(seconds), "most": 1e3 * max(seconds),
        }  # fmt: skip
        if name != ours:
            ratios = [a / b for a, b in zip(seconds, times[ours])]
            entry["to_shunt"] = statistics.median(ratios)
            entry["to_shunt_least"], entry["to_shunt_most"] = min(ratios), max(ratios)
        all.append(entry)
    return all


def write(path: str, benchmarks: list[dict[str, Any]]) -> None:
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        names = [line.split(": ", 1)[1].strip() for line in info if line.startswith("model name")]
    context = {
        "num_cpus": os.cpu_count(), "processor": (names or ["unknown"])[0],
        "isa": torch.backends.cpu.get_cpu_capability(), "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
    }  # fmt: skip
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"context": context, "benchmarks": benchmarks}, file, indent=1)


def same(what: str, got: Tensor, want: Tensor, bound: float) -> None:
    off = float((got.double() - want.double()).norm() / want.double().norm())
    if not off < bound:
        sys.exit(f"{what} is off by {off} of the root mean square")
