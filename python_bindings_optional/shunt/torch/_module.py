"""A mixture-of-experts layer as a torch module."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Optional, Union

import torch
from torch import nn

from .._layer import LayerReport
from .._losses import sign_step
from .._options import layer_options
from .._presets import preset, presets
from ._layer import LayerOutput, moe_layer
from ._tensors import STORAGE

GATED = ("swiglu", "geglu", "swiglu_clamped", "swiglu_capped", "situ_glu")


class MoELayer(nn.Module):
    """y = the layer's output for x [..., H], with parameters of its own.

    hidden: the width H of x · intermediate: of one expert · experts: E, zero experts included ·
    options: routing, activation, top_k, and the coefficients of the losses · latent: the width
    that the experts see, where it is not H. Parameters lie as in shunt.Weights. dtype: of the
    parameters, float32, bfloat16 or float16; None: torch's default dtype, or float32 where that is
    float64. A float64 x is computed in the type of the parameters, and y is float64.

    choice_bias is a float32 buffer. It stays float32 when the module is converted and when it loads
    a checkpoint, as 16 bits cannot hold its small steps. Random numbers (jitter, the random second
    expert) come from torch's CPU generator: torch.manual_seed repeats them, and so does a
    recomputation under torch.utils.checkpoint.

    After a call in training `aux_loss` is the sum of the losses that options have coefficients
    for: add it to the model's. `load` has figures of the last call, `counts` each expert's slots.
    """

    def __init__(
        self,
        hidden: int,
        intermediate: int,
        experts: int,
        options: layer_options,
        *,
        latent: int = 0,
        gate_bias: bool = False,
        choice_bias: bool = False,
        expert_biases: bool = False,
        interleaved: bool = False,
        shared_intermediate: int = 0,
        shared_gate: bool = False,
        device: Any = None,
        dtype: Optional[torch.dtype] = None,
    ) -> None:
        super().__init__()
        kind = options.act if isinstance(options.act, str) else options.act.kind
        halves = 2 if kind in GATED else 1
        self.balance_coefficient, self.z_coefficient = options.balance_loss, options.z_loss
        self.options = options.replace(balance_loss=0.0, z_loss=0.0)
        self.pairs = None if halves == 1 else ("gate_up", 1 if interleaved else 0)
        real, seen = experts - options.route.zero_experts, latent or hidden
        if dtype is None:
            dtype = torch.get_default_dtype()
            dtype = torch.float32 if dtype == torch.float64 else dtype
        if dtype not in STORAGE:
            raise TypeError(f"dtype is {dtype}; it must be float32, bfloat16 or float16")
        new = {"device": device, "dtype": dtype}

        def weight(name: str, *shape: int, fan: int = 0) -> None:
            if 0 in shape:
                self.register_parameter(name, None)
                return
            values = torch.empty(*shape, **new)
            nn.init.normal_(values, std=fan**-0.5) if fan else nn.init.zeros_(values)
            self.register_parameter(name, nn.Parameter(values))

        weight("gate", experts, hidden, fan=hidden)
        weight("up", real, halves * intermediate, seen, fan=seen)
        weight("down", real, seen, intermediate, fan=intermediate)
        weight("gate_bias", experts if gate_bias else 0)
        weight("up_bias", real, halves * intermediate if expert_biases else 0)
        weight("down_bias", real, seen if expert_biases else 0)
        weight("shared_up", halves * shared_intermediate, hidden, fan=hidden)
        weight("shared_down", hidden, shared_intermediate, fan=max(shared_intermediate, 1))
        weight("shared_gate", hidden if shared_gate else 0, fan=hidden)
        weight("latent_down", latent, hidden, fan=hidden)
        weight("latent_up", hidden, latent, fan=max(latent, 1))
        bias = torch.zeros(experts, device=device, dtype=torch.float32) if choice_bias else None
        self.register_buffer("choice_bias", bias)
        self.aux_loss: Optional[torch.Tensor] = None
        self.counts: Optional[torch.Tensor] = None
        self._report: Optional[LayerReport] = None

    @classmethod
    def from_preset(cls, name: Union[str, preset], **changes: Any) -> MoELayer:
        """A published layer: `MoELayer.from_preset("DeepSeek-V3", hidden=256, experts=32)`.

        Keywords are those of the constructor and of layer_options (top_k, balance_loss, ...).
        """
        p = presets[name] if isinstance(name, str) else name
        of_options = layer_options.__dataclass_fields__
        options = {k: changes.pop(k) for k in list(changes) if k in of_options}
        if p.choice == "expert_choice":
            raise ValueError(f"{p.name}: give options with tokens_per_expert, and no preset")
        width = p.model_hidden or p.hidden
        given: dict[str, Any] = {
            "hidden": width,
            "intermediate": p.intermediate,
            "experts": p.experts,
            "latent": p.hidden if p.model_hidden else 0,
            "gate_bias": p.gate_bias,
            "choice_bias": p.choice_bias,
            "expert_biases": p.expert_biases,
            "interleaved": p.interleaved,
            "shared_intermediate": p.shared_intermediate,
            "shared_gate": p.shared_gate,
        }
        return cls(**{**given, **changes}, options=p.options(**options))

    def forward(
        self,
        x: torch.Tensor,
        *,
        valid: Optional[torch.Tensor] = None,
        ids: Optional[torch.Tensor] = None,
        token: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:
        """x [..., H]; valid, ids, token as in shunt.moe_layer, of the flattened tokens."""
        self._report = LayerReport()
        tokens = x.reshape(-1, x.shape[-1])
        if x.dtype == torch.float64:
            tokens = tokens.to(self.up.dtype)
        out = moe_layer(
            tokens, self.gate, self.up, self.down, self._call_options(),
            gate_bias=self.gate_bias, choice_bias=self.choice_bias, up_bias=self.up_bias,
            down_bias=self.down_bias, shared_up=self.shared_up, shared_down=self.shared_down,
            shared_gate=self.shared_gate, latent_down=self.latent_down, latent_up=self.latent_up,
            pairs=self.pairs, valid=None if valid is None else valid.reshape(-1), ids=ids,
            token=None if token is None else token.reshape(-1), observe=self.training,
            report=self._report,
        )  # fmt: skip
        self.counts = out.counts
        self.aux_loss = self._losses(out) if self.training else None
        return out.y.reshape(x.shape).to(x.dtype)

    def _call_options(self) -> layer_options:
        """Jitter and the random second expert: in training, with new draws in each call."""
        route = self.options.route
        if not route.jitter and not route.random_second:
            return self.options
        if not self.training:
            return self.options.replace(route=replace(route, jitter=0.0, random_second=False))
        # Of torch's own generator, whose state checkpointing restores before it runs a call again.
        drawn = int(torch.randint(2**63 - 1, (), dtype=torch.int64, device="cpu"))
        return self.options.replace(route=replace(route, seed=(route.seed + drawn) % 2**64))

    def _apply(self, fn: Any, recurse: bool = True) -> MoELayer:
        """Conversions pass by the bias of the choice; moves do not."""
        before = self.choice_bias
        super()._apply(fn, recurse)
        if before is not None and self.choice_bias.dtype != torch.float32:
            self.choice_bias = before.to(self.choice_bias.device)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self.choice_bias is not None and self.choice_bias.dtype != torch.float32:
            self.choice_bias = self.choice_bias.to(torch.float32)  # what assign=True brought

    def _losses(self, out: LayerOutput) -> torch.Tensor:
        loss = out.importance.new_zeros(())
        if self.balance_coefficient:
            loss = loss + self.balance_coefficient * out.balance_loss()
        if self.z_coefficient:
            loss = loss + self.z_coefficient * out.z_loss()
        return loss

    def __getstate__(self) -> dict[str, Any]:
        """A copy, or a saved module, has not been called yet."""
        return {**self.__dict__, "aux_loss": None, "counts": None, "_report": None}

    @property
    def load(self) -> dict[str, Any]:
        """Figures of the last call's load: utilization, entropy, largest share, drops."""
        if self._report is None:
            raise ValueError("load: the layer has not been called")
        return {**self._report.figures, **self._report.totals}

    @torch.no_grad()
    def step_choice_bias(self, step: float = 0.001) -> None:
        """Balancing without a loss: moves the bias of the choice against the last call's load."""
        if self.choice_bias is None or self.counts is None:
            raise ValueError("step_choice_bias: it needs a choice_bias and a call in training")
        sign_step(self.counts, self.choice_bias, step)

    def extra_repr(self) -> str:
        E, H = self.gate.shape
        return f"{H}, {self.down.shape[-1]}, experts={E}, top_k={self.options.top_k}"
