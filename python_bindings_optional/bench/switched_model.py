#!/usr/bin/env python3
"""A model of transformers on Shunt beside the same model on transformers' own implementations.

  switched_model.py [--rounds 9] [--layers 4] [--dtype float32 bfloat16]

A model like Qwen3-MoE, one process, the implementations in turn; their logits and gradients are
compared before anything is timed. Prints the median (least to most) of each in ms, and its ratio
to Shunt's. batched_mm gathers a copy of the weights for each chosen expert of each token, so that
it runs for one token only.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any, Callable

import torch
import transformers

import shunt.torch

OURS, THEIRS = "shunt", ("eager", "grouped_mm", "batched_mm")


def model_of(layers: int, dtype: torch.dtype) -> Any:
    config = transformers.Qwen3MoeConfig(
        vocab_size=1024,
        hidden_size=512,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=64,
        num_experts=64,
        num_experts_per_tok=8,
        moe_intermediate_size=256,
        norm_topk_prob=True,
    )
    torch.manual_seed(1)
    return transformers.AutoModelForCausalLM.from_config(config).to(dtype)


def forward(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits


def training(model: Any, ids: torch.Tensor) -> torch.Tensor:
    model.zero_grad(set_to_none=True)
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return torch.cat([p.grad.reshape(-1).float() for p in model.parameters() if p.grad is not None])


def decoder(model: Any, ids: torch.Tensor) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    """One token behind a prompt whose keys and values are kept."""
    with torch.no_grad():
        cache = model(input_ids=ids, use_cache=True).past_key_values

    def step(model: Any, _ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            out = model(input_ids=ids[:, -1:], past_key_values=cache, use_cache=True)
        cache.crop(-1)
        return out.logits

    return step


def measure(model: Any, ids: torch.Tensor, names: list[str], work: Any, rounds: int) -> Any:
    """Seconds of each implementation; the first round of each is compared and not counted."""
    times: dict[str, list[float]] = {name: [] for name in names}
    want = None
    loose = 2.0**-5 if model.dtype == torch.bfloat16 else 1e-5
    for turn in range(rounds + 1):
        for name in names:
            model.set_experts_implementation(name)
            before = time.perf_counter()
            got = work(model, ids)
            seconds = time.perf_counter() - before
            if turn > 0:
                times[name].append(seconds)
                continue
            want = got if want is None else want
            off = float((got.double() - want.double()).norm() / want.double().norm())
            if not off < loose:
                raise SystemExit(f"{name} is off by {off} of the root mean square")
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    asked = parser.parse_args()
    transformers.logging.set_verbosity_error()
    shunt.torch.register()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, "
          f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print("| type | work | shunt | " + " | ".join(THEIRS) + " |")
    print("|---|---|---|" + "---|" * len(THEIRS))
    for dtype in asked.dtype:
        model = model_of(asked.layers, getattr(torch, dtype))
        prompt = torch.randint(1024, (1, 512), generator=torch.Generator().manual_seed(2))
        for label, work, few in (
            ("forward, T=512", forward, False),
            ("forward + backward, T=512", training, False),
            ("decode, T=1", decoder(model, prompt[:, :64]), True),
        ):
            names = [OURS, "eager", "grouped_mm"] + (["batched_mm"] if few else [])
            rounds = asked.rounds * (5 if few else 1)
            times = measure(model, prompt, names, work, rounds)
            ours = statistics.median(times[OURS])
            row = [dtype, label]
            for name in (OURS, *THEIRS):
                if name not in times:
                    row.append("–")
                    continue
                ms = [1e3 * t for t in times[name]]
                text = f"{statistics.median(ms):.3g} ({min(ms):.3g} to {max(ms):.3g})"
                ratio = statistics.median(times[name]) / ours
                row.append(text if name == OURS else f"{text}, {ratio:.2f} ×")
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
