#!/usr/bin/env python3
"""Golden files: MoE layers as Hugging Face transformers computes them.

  make.py            writes <family>.<f32|bf16>.safetensors beside this script
  make.py --check    makes them again in memory and compares with the files

Each file is a checkpoint of one MoE layer, its tensors under the names that transformers publishes
them by, and under `reference.` what its own module made of them: input, choice, gates, output, and
the gradients that autograd gives. The metadata has the config.json and the versions. Needs torch,
transformers and safetensors.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys

import torch
import transformers
from families import FAMILIES, TOKENS, VOCABULARY, WIDTH, Family, configuration
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.core_model_loading import revert_weight_conversion

HERE = pathlib.Path(__file__).parent
KINDS = {"f32": torch.float32, "bf16": torch.bfloat16}
Tensors = dict[str, torch.Tensor]


def filled(model: torch.nn.Module, block: torch.nn.Module, rng: torch.Generator) -> None:
    """Random weights with which nothing saturates and every branch is taken."""

    def normal(tensor: torch.Tensor, scale: float) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=rng) * scale)

    with torch.no_grad():
        for name, tensor in block.named_parameters():
            experts = tensor.dim() == 3
            transposed = experts and getattr(
                block.experts, "is_transposed", "Llama4" in type(block).__name__
            )
            fan = tensor.shape[-2 if transposed else -1]
            if "bias" in name:
                normal(tensor, 0.5)
            elif name.startswith(("gate.", "router.")):
                normal(tensor, 2.0 / fan**0.5)
            else:
                normal(
                    tensor, (1.5 if "up_proj" in name or "gate_proj" in name else 1.0) / fan**0.5
                )
        for name, tensor in block.named_buffers():
            if "correction_bias" in name:
                normal(tensor, 0.1)
            elif "tid2eid" in name:
                for row in tensor:
                    row.copy_(
                        torch.randperm(block.experts.num_experts, generator=rng)[: row.numel()]
                    )


def kept_in_float(block: torch.nn.Module, kind: torch.dtype) -> None:
    """The storage type for all but the biases of the choice, as published checkpoints have it."""
    biases = {n: b.clone() for n, b in block.named_buffers() if "correction_bias" in n}
    block.to(kind)
    for name, value in biases.items():
        owner, _, leaf = name.rpartition(".")
        setattr(block.get_submodule(owner), leaf, value)


def run(
    family: Family, block: torch.nn.Module, x: torch.Tensor, d_y: torch.Tensor, ids: torch.Tensor
) -> Tensors:
    """The module forward and backward, with what its router said."""
    said: list[tuple[torch.Tensor, ...]] = []
    hook = block.get_submodule(family.router).register_forward_hook(
        lambda _m, _i, out: said.append(out)
    )
    block.zero_grad(set_to_none=True)
    x = x.clone().requires_grad_()
    y = block(x[None], ids[None]) if family.by_token else block(x[None])
    y = (y[0] if isinstance(y, tuple) else y).reshape(TOKENS, WIDTH)
    y.backward(d_y)
    hook.remove()
    if (
        family.name == "llama4"
    ):  # its router gives the scores of all, and 0 where an expert was not chosen
        gates, choice = said[0][0].topk(block.top_k, dim=-1)
    else:
        _, gates, choice = said[0]
    out = {
        "x": x,
        "d_y": d_y,
        "y": y,
        "choice": choice.int(),
        "gates": gates.float(),
        "d_x": x.grad,
    }
    if family.by_token:
        out["token"] = ids.int()
    return {
        name: t.detach().clone(memory_format=torch.contiguous_format) for name, t in out.items()
    }


def gradients(block: torch.nn.Module) -> Tensors:
    """Of all parameters, in the orders of moe_gradients: [E,N,K], [gate; up]."""
    of = {name: p.grad for name, p in block.named_parameters()}
    plain = {
        "gate.weight": "gate",
        "router.weight": "gate",
        "router.classifier.weight": "gate",
        "router.bias": "gate_bias",
        "experts.gate_up_proj": "up",
        "experts.up_proj": "up",
        "experts.down_proj": "down",
        "experts.gate_up_proj_bias": "up_bias",
        "experts.down_proj_bias": "down_bias",
        "shared_expert_gate.weight": "shared_gate",
        "fc1_latent_proj.weight": "latent_down",
        "fc2_latent_proj.weight": "latent_up",
    }
    transposed = getattr(block.experts, "is_transposed", "Llama4" in type(block).__name__)
    out: Tensors = {}
    halves: dict[str, torch.Tensor] = {}
    for name, grad in of.items():
        if name.startswith("shared_expert") and name != "shared_expert_gate.weight":
            halves[name.split(".")[-2]] = grad
            continue
        to = plain[name]  # KeyError: a parameter that no gradient here accounts for
        if to in ("up", "down") and transposed:
            grad = grad.transpose(1, 2)
        if to == "up":  # transformers' LongCat has rows for zero experts too, which nothing reads
            grad = grad[: len(block.experts.down_proj)]
        out[to] = grad
    if "gate_proj" in halves:
        out["shared_up"] = torch.cat([halves["gate_proj"], halves["up_proj"]])
    elif halves:
        out["shared_up"] = halves["up_proj"]
    if halves:
        out["shared_down"] = halves["down_proj"]
    if "shared_gate" in out:
        out["shared_gate"] = out["shared_gate"].reshape(-1)
    return {
        "d_" + name: grad.clone(memory_format=torch.contiguous_format) for name, grad in out.items()
    }


def made(family: Family, kind: str) -> tuple[Tensors, dict[str, str]]:
    config = transformers.AutoConfig.for_model(family.model_type, **configuration(family, kind))
    config._experts_implementation = "eager"
    for seed in range(1, 200):
        rng = torch.Generator().manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
        config.architectures = [type(model).__name__]
        layers = model.model.layers
        block = layers[family.layer].get_submodule(family.block).train()
        filled(model, block, rng)
        x, d_y = (torch.randn(TOKENS, WIDTH, generator=rng) for _ in range(2))
        ids = torch.randint(VOCABULARY, (TOKENS,), generator=rng)
        kept_in_float(block, KINDS[kind])
        x, d_y = x.to(KINDS[kind]), d_y.to(KINDS[kind])
        found = run(family, block, x, d_y, ids)
        found.update(gradients(block))
        state = {
            k: v
            for k, v in model.state_dict().items()
            if f"layers.{family.layer}.{family.block}." in k
        }
        # In 16 bits some routers round their logits: take numbers that choose the same without.
        block.float()
        exact = run(family, block, x.float(), d_y.float(), ids)
        if torch.equal(found["choice"].sort()[0], exact["choice"].sort()[0]):
            break
    else:
        raise SystemExit(f"{family.name}: no seed whose choice is the same in float and in {kind}")
    weights = revert_weight_conversion(model, state)
    tensors = {name: t.detach().clone().contiguous() for name, t in weights.items()}
    tensors.update({"reference." + name: t for name, t in found.items()})
    about = {
        "family": family.name,
        "layer": str(family.layer),
        "seed": str(seed),
        "config": json.dumps(json.loads(config.to_json_string(use_diff=False))),
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
    }
    return tensors, about


def differences(path: pathlib.Path, tensors: Tensors) -> list[str]:
    """Where the file is not what was made: weights by the bit, results up to their rounding."""
    wrong: list[str] = []
    with safe_open(path, "pt") as file:
        if set(file.keys()) != set(tensors):
            return [f"{path.name}: other tensors: {sorted(set(file.keys()) ^ set(tensors))}"]
        for name, new in tensors.items():
            old = file.get_tensor(name)
            if name.startswith("reference.") and new.is_floating_point():
                off = (old.double() - new.double()).norm() / old.double().norm()
                good = bool(off <= (2.0**-8 if new.dtype == torch.bfloat16 else 1e-6))
            else:
                good = old.dtype == new.dtype and torch.equal(old, new)
            if not good:
                wrong.append(f"{path.name}: {name} differs")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("family", nargs="*", help="these only")
    asked = parser.parse_args()
    transformers.logging.set_verbosity_error()
    wrong: list[str] = []
    for family in FAMILIES:
        if asked.family and family.name not in asked.family:
            continue
        for kind in KINDS:
            path = HERE / f"{family.name}.{kind}.safetensors"
            tensors, about = made(family, kind)
            if asked.check:
                wrong += differences(path, tensors)
            else:
                save_file(tensors, path, about)
            print(
                f"{family.name} {kind}: seed {about['seed']}, {path.stat().st_size} bytes",
                flush=True,
            )
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
