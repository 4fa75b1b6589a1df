#!/usr/bin/env python3
"""train_lm's training step and the same model's in PyTorch, in turns: milliseconds a step.

  torch_train.py --steps PROGRAM --json FILE [--rounds N] [--filter REGEX]

PROGRAM (train_steps.cpp) writes the first weights and makes Shunt's steps in a process of its own; the
model here takes the same weights, batches, learning rates, clipping and AdamW. The losses of the first
steps are compared before anything is timed. Experts by a loop and by torch._grouped_mm, whichever runs.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import random
import re
import subprocess
import sys
import tempfile
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F

from torch_common import entries, grouped, grouped_runs, in_turns, loop, write

STEPS_IN_A_TURN = 10
COMPARED = 20


def tensors(path: pathlib.Path) -> dict[str, torch.Tensor]:
    """All of a safetensors file's float tensors."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    body = bytearray(data[8 + size :])
    return {
        name: torch.frombuffer(body, dtype=torch.float32)[t["data_offsets"][0] // 4 : t["data_offsets"][1] // 4]
        .view(t["shape"])
        .clone()
        for name, t in header.items()
        if name != "__metadata__"
    }  # fmt: skip


class Model:
    def __init__(self, s: Any, state: dict[str, torch.Tensor], by_loop: bool) -> None:
        self.s, self.by_loop = s, by_loop
        self.bias = state["choice_bias"].clone()
        self.p = {n: t.clone() for n, t in state.items()
                  if n != "choice_bias" and not n.startswith("optimizer.")}  # fmt: skip
        if by_loop:  # as models with a loop have them: a parameter for each expert
            for name in [n for n in self.p if ".experts." in n]:
                for e, w in enumerate(self.p.pop(name)):
                    self.p[f"{name}.{e}"] = w.clone()
        for t in self.p.values():
            t.requires_grad_(True)
        decayed = [t for n, t in self.p.items() if not n.endswith("norm")]
        rest = [t for n, t in self.p.items() if n.endswith("norm")]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": s.weight_decay}, {"params": rest, "weight_decay": 0.0}],
            lr=s.learning_rate, betas=(0.9, 0.95), eps=1e-8, fused=True,
        )  # fmt: skip
        d = s.width // s.heads
        angle = torch.arange(s.sequence)[:, None] * 10000.0 ** (-torch.arange(d // 2) / (d // 2))
        self.cosine, self.sine = angle.cos(), angle.sin()
        self.step = 0

    def rotated(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * self.cosine - b * self.sine, b * self.cosine + a * self.sine], dim=-1)

    def attention(self, x: torch.Tensor, layer: str) -> torch.Tensor:
        s, (B, S, W) = self.s, x.shape
        qkv = F.linear(x, self.p[f"{layer}.attention.qkv"])
        qkv = qkv.view(B, S, s.heads + 2 * s.kv_heads, W // s.heads).transpose(1, 2)
        q, k, v = qkv.split([s.heads, s.kv_heads, s.kv_heads], dim=1)
        y = F.scaled_dot_product_attention(
            self.rotated(q), self.rotated(k), v, is_causal=True, enable_gqa=True
        )
        return F.linear(y.transpose(1, 2).reshape(B, S, W), self.p[f"{layer}.attention.out"])

    def feed(self, x: torch.Tensor, layer: str, number: int) -> torch.Tensor:
        score = F.linear(x, self.p[f"{layer}.gate"]).sigmoid()
        ids = (score.detach() + self.bias[number]).topk(self.s.top_k, dim=-1).indices
        self.counts.append(torch.bincount(ids.flatten(), minlength=self.s.experts))
        gates = score.gather(1, ids)
        gates = gates / gates.sum(-1, keepdim=True)
        up, down = f"{layer}.experts.up", f"{layer}.experts.down"
        if not self.by_loop:
            return grouped(x, ids, gates, self.p[up], self.p[down])
        of = lambda name: [self.p[f"{name}.{e}"] for e in range(self.s.experts)]
        return loop(x, ids, gates, of(up), of(down))

    def loss(self, tokens: torch.Tensor) -> torch.Tensor:
        self.counts: list[torch.Tensor] = []
        norm = lambda x, name: F.rms_norm(x, x.shape[-1:], self.p[name], 1e-5)
        x = F.embedding(tokens[:, :-1], self.p["embedding"])
        for number in range(self.s.layers):
            layer = f"layers.{number}"
            x = x + self.attention(norm(x, f"{layer}.attention.norm"), layer)
            rows = norm(x, f"{layer}.feed.norm").flatten(0, 1)
            x = x + self.feed(rows, layer, number).view_as(x)
        logits = F.linear(norm(x, "norm"), self.p["head"])
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten().long())

    def rate(self) -> float:
        s, warm_up = self.s, min(self.s.warm_up, self.s.steps // 2)
        if self.step < warm_up:
            return s.learning_rate * (self.step + 1) / warm_up
        done = (self.step - warm_up) / (s.steps - warm_up)
        return s.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))

    def train(self, tokens: torch.Tensor) -> float:
        rate = self.rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(tokens)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.p.values(), self.s.clip)
        self.optimizer.step()
        step = self.s.bias_rate * rate / self.s.learning_rate
        for bias, counts in zip(self.bias, self.counts):
            bias += step * torch.sign(counts.float().mean() - counts)
        self.step += 1
        return loss.item()


def text_batches(s: Any, count: int) -> torch.Tensor:
    """Windows of this project's own headers."""
    headers = sorted(pathlib.Path(__file__).parents[2].glob("include/shunt/**/*.hpp"))
    text = b"\0".join(h.read_bytes() for h in headers)
    rng = random.Random(1)
    rows = []
    for _ in range(count * s.batch):
        at = rng.randrange(len(text) - s.sequence - 1)
        rows.append(list(text[at : at + s.sequence + 1]))
    return torch.tensor(rows, dtype=torch.int32).view(count, s.batch, s.sequence + 1)


def compete(child: Any, folder: pathlib.Path, asked: Any) -> None:
    if child.stdout.readline().strip() != "ready":
        sys.exit("train_steps did not start")
    s = SimpleNamespace(**json.loads((folder / "settings.json").read_text()))
    batches = text_batches(s, 64)
    (folder / "tokens").write_bytes(batches.numpy().tobytes())
    state = tensors(folder / "start.safetensors")

    def shunt_steps(count: int) -> list[float]:
        child.stdin.write(f"{count}\n")
        return json.loads(child.stdout.readline())

    def torch_steps(model: Model, count: int) -> list[float]:
        return [model.train(batches[model.step % len(batches)]) for _ in range(count)]

    models = {"torch_loop": Model(s, state, True)}
    if why := grouped_runs(torch.float32):
        print(f"not run: torch._grouped_mm, f32: {why}", file=sys.stderr)
    else:
        models["torch_grouped_mm"] = Model(s, state, False)
    want = shunt_steps(COMPARED)
    for name, model in models.items():
        got = torch_steps(model, COMPARED)
        worst = max(abs(a - b) / b for a, b in zip(got, want))
        print(f"{name}: the first {COMPARED} losses are Shunt's within {worst:.1e}", file=sys.stderr)
        if not worst < 2e-3:
            sys.exit(f"{name}: losses differ: {got} and {want}")
    calls = {"shunt": lambda: shunt_steps(STEPS_IN_A_TURN)}
    for name, model in models.items():
        calls[name] = lambda model=model: torch_steps(model, STEPS_IN_A_TURN)
    times = {name: [t / STEPS_IN_A_TURN for t in turns]
             for name, turns in in_turns(calls, asked.rounds).items()}  # fmt: skip
    base = (f"train_step/E{s.experts}_K{s.top_k}_H{s.width}_I{s.intermediate}_L{s.layers}/f32"
            f"/B{s.batch}_S{s.sequence}/threads{torch.get_num_threads()}")  # fmt: skip
    write(asked.json, entries(base, times, "shunt"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", required=True)
    parser.add_argument("--json", required=True)
    parser.add_argument("--filter", default=".")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    if not re.search(asked.filter, "train_step"):
        return
    with tempfile.TemporaryDirectory() as folder:
        child = subprocess.Popen([asked.steps, folder], text=True, bufsize=1,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
        compete(child, pathlib.Path(folder), asked)
        child.stdin.close()
        child.wait()


if __name__ == "__main__":
    main()
