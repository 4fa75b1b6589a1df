"""Ids that torch's doors take: integers, and only those that 32 bits hold."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import shunt  # noqa: E402
from shunt.torch import moe_experts, moe_layer  # noqa: E402

T, H, I, E, K = 20, 24, 10, 9, 2


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(20260101)


IN_32_BITS = "it must be from -2147483648 to 2147483647"
WRONG_IDS = [
    (torch.int64, 2**32, ValueError, f"is 4294967296; {IN_32_BITS}"),
    (torch.int64, 2**32 - 1, ValueError, f"is 4294967295; {IN_32_BITS}"),
    (torch.int64, -(2**32), ValueError, f"is -4294967296; {IN_32_BITS}"),
    (torch.uint32, 2**32 - 1, ValueError, f"is 4294967295; {IN_32_BITS}"),
    (torch.float32, 1, TypeError, "its elements are torch.float32; they must be integers"),
    (torch.bfloat16, 1, TypeError, "its elements are torch.bfloat16; they must be integers"),
    (torch.bool, 1, TypeError, "its elements are torch.bool; they must be integers"),
    (torch.uint64, 1, TypeError, "its elements are torch.uint64; they must be integers"),
    (torch.complex64, 1, TypeError, "its elements are torch.complex64; they must be integers"),
]


@pytest.mark.parametrize("dtype, value, error, sentence", WRONG_IDS, ids=lambda v: str(v)[:16])
def test_battery39_ids_are_integers_and_not_narrowed(
    dtype: Any, value: int, error: Any, sentence: str
) -> None:
    x, gate = torch.randn(T, H), torch.rand(T, K)
    up, down, router = torch.randn(E, 2 * I, H), torch.randn(E, H, I), torch.randn(E, H)
    wrong = torch.zeros(T, K, dtype=dtype)
    wrong[3, 1] = value
    row = torch.zeros(T, dtype=dtype)
    row[3] = value
    table = torch.zeros(T, K, dtype=torch.int32)
    options = shunt.layer_options(top_k=K)
    for name, call in {
        "moe_experts.expert": lambda: moe_experts(x, wrong, gate, up, down),
        "moe_layer.ids": lambda: moe_layer(x, router, up, down, options, ids=wrong),
        "moe_layer.token": lambda: moe_layer(x, router, up, down, options, ids=table, token=row),
    }.items():
        with pytest.raises(error, match=rf"{name}(\[3(, 1)?\] |: ){sentence}"):
            call()
    with pytest.raises(error, match=sentence):  # and before anything is saved for backward
        moe_experts(x.requires_grad_(), wrong, gate, up, down)


def test_battery39_every_integer_type_is_taken() -> None:
    x, gate = torch.randn(T, H), torch.rand(T, K)
    up, down, router = torch.randn(E, 2 * I, H), torch.randn(E, H, I), torch.randn(E, H)
    ids = torch.stack([torch.randperm(E)[:K] for _ in range(T)]).int()
    options = shunt.layer_options(top_k=K)
    want = moe_experts(x, ids, gate, up, down), moe_layer(x, router, up, down, options, ids=ids).y
    for dtype in (torch.int64, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32):
        given = ids.to(dtype)
        assert torch.equal(moe_experts(x, given, gate, up, down), want[0])
        assert torch.equal(moe_layer(x, router, up, down, options, ids=given).y, want[1])
    far = ids.long()
    far[0] = 2**31 - 1
    far[1] = -(2**31)
    assert (moe_experts(x, far, gate, up, down)[:2] == 0).all()  # of 32 bits, and no expert
