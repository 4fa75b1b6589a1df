"""What a call from Python costs beside the call itself.

    python python_bindings_optional/bench/overhead.py [--seconds N]

Each line is a tiny call (one token, eight experts, one thread) made from Python, and the same call
repeated inside the extension module; the difference is the overhead: arguments, checks of aliasing,
the GIL, a new output where none is given. Processor time of the calling thread, so that other work
on the machine counts little: the minimum, median and maximum of several rounds, in microseconds.
The goal is at most 5.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Callable

import numpy as np

import shunt
from shunt import _host

TIMES = 100  # of each kind in a round: short ones, as processors change their pace


def seconds_of(call: Callable[[], object], times: int) -> float:
    start = time.thread_time()
    for _ in range(times):
        call()
    return time.thread_time() - start


def overhead(call: Callable[[], object], seconds: float) -> list[tuple[float, float]]:
    """Rounds of (a call from Python) - (the call repeated inside one), in alternation, and of the
    latter."""
    seconds_of(call, TIMES)
    rounds, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(rounds) < 5:
        outside = seconds_of(call, TIMES) / TIMES
        _host.repeat(TIMES)
        inside = seconds_of(call, 1) / TIMES
        _host.repeat(1)
        rounds.append(((outside - inside) * 1e6, inside * 1e6))
    return rounds


def calls(new: Callable[..., object], kind: str) -> dict[str, Callable[[], object]]:
    """The calls on arrays of one library; new(shape) makes them."""
    tokens, hidden, inner, experts, top_k = 1, 8, 8, 8, 2
    on = shunt.on_host(threads=1)
    options = shunt.layer_options(top_k=top_k)
    x, y = new(tokens, hidden), new(tokens, hidden)
    w = shunt.Weights(
        new(experts, hidden), new(experts, 2 * inner, hidden), new(experts, hidden, inner)
    )
    logits = new(tokens, experts)
    routed = shunt.route(logits, top_k, on=on)
    plan = shunt.plan_dispatch(routed.expert, experts, on=on)
    rows = shunt.dispatch(x, plan, on=on)
    saved = shunt.Saved()
    return {
        f"{kind} route, outputs given": lambda: shunt.route(logits, top_k, out=routed, on=on),
        f"{kind} route, new outputs": lambda: shunt.route(logits, top_k, on=on),
        f"{kind} combine, output given": lambda: shunt.combine(
            rows, plan, routed.gate, out=y, on=on
        ),
        f"{kind} combine, new output": lambda: shunt.combine(rows, plan, routed.gate, on=on),
        f"{kind} moe_layer, output given": lambda: shunt.moe_layer(x, w, options, out=y, on=on),
        f"{kind} moe_layer, new output": lambda: shunt.moe_layer(x, w, options, on=on),
        f"{kind} moe_layer, saving": lambda: shunt.moe_layer(
            x, w, options, out=y, saved=saved, on=on
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each line")
    seconds = parser.parse_args().seconds
    rng = np.random.default_rng(0)
    lines = calls(lambda *shape: rng.standard_normal(shape).astype(np.float32), "numpy")
    try:
        import torch
    except ImportError:
        print("not run: torch is not installed")
    else:
        lines.update(calls(lambda *shape: torch.randn(shape), "torch"))
    print(f"{'microseconds beside the call':38}{'min':>8}{'median':>8}{'max':>8}{'the call':>10}")
    for name, call in lines.items():
        beside, inside = zip(*overhead(call, seconds))
        print(f"{name:38}{min(beside):8.2f}{statistics.median(beside):8.2f}{max(beside):8.2f}"
              f"{statistics.median(inside):10.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
