"""Whole models of transformers, before and after they are switched to Shunt by one argument."""

from __future__ import annotations

import pathlib
import sys
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
moe = pytest.importorskip("transformers.integrations.moe", reason="transformers is older than 5")

import shunt.torch  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "tests" / "golden"))
from families import FAMILIES, configuration  # noqa: E402

# Their experts are not behind the interface that transformers switches by, or their one layer has
# no attention, which a whole model needs.
APART = ("llama4", "longcat_flash", "qwen3_next", "nemotron_h")
SWITCHED = [f for f in FAMILIES if f.name not in APART]


@pytest.fixture(autouse=True)
def registered() -> None:
    transformers.logging.set_verbosity_error()
    shunt.torch.register()
    torch.set_num_threads(1)  # for such sizes


def model_of(family: Any, implementation: str, dtype: Any) -> Any:
    wide = dict(hidden_size=32, head_dim=16)
    if family.name == "deepseek_v3":  # its rotary width is its head's
        wide["head_dim"] = 8
    config = transformers.AutoConfig.for_model(
        family.model_type, **{**configuration(family, "f32"), **wide}
    )
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(
        config, experts_implementation=implementation
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3)
        for name, table in model.named_buffers():
            if name.endswith("tid2eid"):
                for row in table:
                    row.copy_(torch.randperm(8)[: len(row)])
    return model.to(dtype)


def run(model: Any) -> tuple[Any, dict[str, Any]]:
    """Logits, and every gradient of a language model's loss."""
    ids = torch.randint(3, 40, (2, 9), generator=torch.Generator().manual_seed(2))
    out = model(input_ids=ids, labels=ids)
    out.loss.backward()
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return out.logits.detach(), grads


def off(a: Any, b: Any) -> float:
    """Of the root mean square."""
    a, b = a.double(), b.double()
    return float((a - b).norm() / b.norm().clamp(min=1e-12))


@pytest.mark.parametrize("family", SWITCHED, ids=lambda f: f.name)
def test_a_switched_model_is_the_same_model(family: Any) -> None:
    want_logits, want = run(model_of(family, "eager", torch.float32))
    logits, got = run(model_of(family, "shunt", torch.float32))
    assert off(logits, want_logits) < 1e-6
    assert set(got) == set(want)
    for name, gradient in got.items():
        assert off(gradient, want[name]) < 1e-5, name


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss"])
def test_in_bf16_both_are_as_near_to_float(name: str) -> None:
    family = next(f for f in FAMILIES if f.name == name)
    exact = model_of(family, "eager", torch.bfloat16).float()
    want_logits, want = run(exact)
    for implementation in ("eager", "shunt"):
        logits, got = run(model_of(family, implementation, torch.bfloat16))
        assert off(logits, want_logits) < 2.0**-6
        assert all(off(g, want[n]) < 2.0**-4 for n, g in got.items())


def test_a_model_is_switched_and_back() -> None:
    model = model_of(next(f for f in FAMILIES if f.name == "olmoe"), "eager", torch.float32)
    ids = torch.arange(3, 12)[None]
    with torch.no_grad():
        eager = model(input_ids=ids).logits
        model.set_experts_implementation("shunt")
        switched = model(input_ids=ids).logits
        model.set_experts_implementation("eager")
        again = model(input_ids=ids).logits
    assert torch.equal(eager, again) and not torch.equal(eager, switched)
    assert off(switched, eager) < 1e-6


def test_a_training_step_and_generation() -> None:
    losses, texts = {}, {}
    for implementation in ("eager", "shunt"):
        family = next(f for f in FAMILIES if f.name == "qwen3_moe")
        model = model_of(family, implementation, torch.float32)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ids = torch.arange(3, 35).reshape(2, 16)
        steps = []
        for _ in range(3):
            loss = model(input_ids=ids, labels=ids).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps.append(float(loss.detach()))
        losses[implementation] = steps
        model.eval()
        texts[implementation] = model.generate(ids[:1, :4], max_new_tokens=6, do_sample=False)
    assert losses["shunt"][-1] < losses["shunt"][0]
    assert losses["shunt"] == pytest.approx(losses["eager"], rel=1e-5)
    assert torch.equal(texts["shunt"], texts["eager"])


class experts(torch.nn.Module):
    """What an experts module of transformers has, at its least."""

    def __init__(self, **about: Any) -> None:
        super().__init__()
        self.has_gate, self.has_bias, self.is_transposed = True, False, False
        self.is_concatenated, self.has_post_expert_norm = True, False
        self.gate_up_proj = torch.nn.Parameter(torch.randn(4, 6, 5))
        self.down_proj = torch.nn.Parameter(torch.randn(4, 5, 3))
        self.act_fn = torch.nn.functional.silu
        for name, value in about.items():
            setattr(self, name, value)

    def _apply_gate(self, gate_up: Any) -> Any:
        gate, up = gate_up.chunk(2, dim=-1)
        return self.act_fn(gate) * up


def call(module: Any) -> Any:
    forward = moe.ALL_EXPERTS_FUNCTIONS["shunt"]
    return forward(module, torch.randn(3, 5), torch.tensor([[0], [3], [1]]), torch.rand(3, 1))


def test_what_is_not_known_is_refused() -> None:
    assert call(experts()).shape == (3, 5)
    with pytest.raises(NotImplementedError, match="experts has an activation that Shunt does not"):
        call(experts(act_fn=torch.sin))
    with pytest.raises(NotImplementedError, match="experts norms each expert's output"):
        call(experts(has_post_expert_norm=True))
    with pytest.raises(ValueError, match="moe_experts.down: extent 1 is 4; it must be 5"):
        call(experts(down_proj=torch.nn.Parameter(torch.randn(4, 4, 3))))


def test_a_limit_that_differs_is_another_activation() -> None:
    torch.manual_seed(3)
    narrow, wide = experts(swiglu_limit=0.5), experts(swiglu_limit=50.0)
    for module in (narrow, wide):

        def clamped(gate_up: Any, limit: float = module.swiglu_limit) -> Any:
            gate, up = gate_up.chunk(2, dim=-1)
            return torch.nn.functional.silu(gate.clamp(max=limit)) * up.clamp(-limit, limit)

        module._apply_gate = clamped
        with torch.no_grad():
            module.gate_up_proj.fill_(1.0)
            module.down_proj.fill_(1.0)
    x, ids, one = torch.ones(1, 5), torch.tensor([[0]]), torch.ones(1, 1)
    forward = moe.ALL_EXPERTS_FUNCTIONS["shunt"]
    silu = torch.nn.functional.silu
    assert float(forward(narrow, x, ids, one)[0, 0].detach()) == pytest.approx(
        3 * float(silu(torch.tensor(0.5))) * 0.5, rel=1e-5
    )
    assert float(forward(wide, x, ids, one)[0, 0].detach()) == pytest.approx(
        3 * float(silu(torch.tensor(5.0))) * 5.0, rel=1e-5
    )
