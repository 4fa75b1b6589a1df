#!/usr/bin/env python3
"""The experts of a layer in PyTorch and in Shunt's Python module, in turns in one process.

  torch_moe.py --json FILE [--filter REGEX] [--rounds N]

Against Shunt: the loop over experts that model code uses, and torch._grouped_mm. Forward, and forward
with backward to tokens, gates and all weights. Outputs and gradients are compared before they are timed.
"""

from __future__ import annotations

import argparse
import re
import sys
from typing import Any

import torch

import shunt.torch
from torch_common import entries, grouped, grouped_runs, in_turns, loop, same, write

# T, whether backward is run, and E, K, H, I
WORKS = (
    (512, True, 64, 6, 512, 384),
    (512, False, 64, 6, 2048, 1408),
    (64, False, 64, 6, 2048, 1408),
    (8, False, 64, 6, 2048, 1408),
    (1, False, 64, 6, 2048, 1408),
    (512, False, 128, 8, 2048, 768),
)


class Scene:
    def __init__(self, E: int, K: int, H: int, I: int, dtype: torch.dtype) -> None:
        torch.manual_seed(1)
        self.E, self.K, self.H, self.dtype = E, K, H, dtype
        self.up = torch.empty(E, 2 * I, H, dtype=dtype).uniform_(-2 / H**0.5, 2 / H**0.5)
        self.down = torch.empty(E, H, I, dtype=dtype).uniform_(-2 / I**0.5, 2 / I**0.5)

    def set_tokens(self, T: int, training: bool) -> None:
        self.x = torch.empty(T, self.H, dtype=self.dtype).uniform_(-1, 1)
        scores = torch.rand(T, self.E)
        self.gates, self.ids = torch.topk(scores, self.K, dim=1)
        self.gates = self.gates / self.gates.sum(1, keepdim=True)
        self.d_y = torch.empty_like(self.x).uniform_(-1, 1)
        for t in (self.x, self.gates, self.up, self.down):
            t.requires_grad_(training)
            t.grad = None
        # The loop's models have a parameter for each expert: views, with gradients of their own.
        self.ups = [w.detach().requires_grad_(training) for w in self.up]
        self.downs = [w.detach().requires_grad_(training) for w in self.down]

    def forward(self, how: str) -> torch.Tensor:
        if how == "loop":
            return loop(self.x, self.ids, self.gates, self.ups, self.downs)
        if how == "grouped_mm":
            return grouped(self.x, self.ids, self.gates, self.up, self.down)
        return shunt.torch.moe_experts(self.x, self.ids, self.gates, self.up, self.down)

    def infer(self, how: str) -> torch.Tensor:
        with torch.no_grad():
            return self.forward(how)

    def train(self, how: str) -> torch.Tensor:
        for t in (self.x, self.gates, self.up, self.down, *self.ups, *self.downs):
            t.grad = None
        y = self.forward(how)
        y.backward(self.d_y)
        return y.detach()

    def gradients(self, how: str) -> list[torch.Tensor]:
        def of(one: torch.Tensor, each: list[torch.Tensor]) -> torch.Tensor:
            if how != "loop":
                return one.grad
            return torch.stack([torch.zeros_like(w) if w.grad is None else w.grad for w in each])

        return [self.x.grad.clone(), self.gates.grad.clone(),
                of(self.up, self.ups), of(self.down, self.downs)]  # fmt: skip


def compete(scene: Scene, base: str, ways: list[str], training: bool, rounds: int) -> list[Any]:
    bound = 1e-5 if scene.dtype == torch.float32 else 2.0**-5
    work = scene.train if training else scene.infer
    want = work("shunt")
    wanted = scene.gradients("shunt") if training else []
    for how in ways:
        same(f"{base}: {how}: y", work(how), want, bound)
        if training:
            for name, g, w in zip(("d_x", "d_gates", "d_up", "d_down"), scene.gradients(how), wanted):
                same(f"{base}: {how}: {name}", g, w, bound)
    del want, wanted
    calls = {how: (lambda how=how: work(how)) for how in ["shunt", *ways]}
    return entries(base, in_turns(calls, rounds), "shunt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", required=True)
    parser.add_argument("--filter", default=".")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    found: list[Any] = []
    scene: Any = None
    made: Any = None
    for dtype, type_name in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
        ways = ["loop", "grouped_mm"]
        if why := grouped_runs(dtype):
            ways.remove("grouped_mm")
            print(f"not run: torch._grouped_mm, {type_name}: {why}", file=sys.stderr)
        for T, trained, E, K, H, I in WORKS:
            for training in (False, True) if trained else (False,):
                base = (f"experts{'_training' if training else ''}/E{E}_K{K}_H{H}_I{I}/{type_name}"
                        f"/T{T}/threads{torch.get_num_threads()}/torch")  # fmt: skip
                if not re.search(asked.filter, base):
                    continue
                if made != (E, K, H, I, dtype):
                    scene = None  # before the next one's gigabytes
                    scene, made = Scene(E, K, H, I, dtype), (E, K, H, I, dtype)
                scene.set_tokens(T, training)
                print(f"running {base}", file=sys.stderr)
                found += compete(scene, base, ways, training, asked.rounds)
    if found:
        write(asked.json, found)


if __name__ == "__main__":
    main()
