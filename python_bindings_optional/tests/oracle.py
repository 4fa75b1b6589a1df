"""The formulas in double, by NumPy alone: slow, plain, and no relative of the library."""

from __future__ import annotations

import math

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(z):
    s = np.exp(z - z.max(axis=-1, keepdims=True))
    return s / s.sum(axis=-1, keepdims=True)


def route(
    logits,
    top_k,
    score="softmax",
    gates="raw",
    scale=1.0,
    epsilon=0.0,
    choice_bias=None,
    expert=None,
):
    """(expert [T,K], gate [T,K]); expert: a choice from outside."""
    z = np.asarray(logits, np.float64)
    s = {"softmax": softmax, "sigmoid": sigmoid, "logits": lambda z: z}[score](z)
    if expert is None:
        key = z if choice_bias is None else s + np.asarray(choice_bias, np.float64)
        expert = np.argsort(-key, axis=-1, kind="stable")[:, :top_k]
    chosen = np.take_along_axis(s, expert, -1)
    if gates == "renormalized":
        chosen = chosen / (chosen.sum(-1, keepdims=True) + epsilon)
    elif gates == "softmax_chosen":
        chosen = softmax(chosen)
    return expert, scale * chosen


def halves(pre):
    half = pre.shape[-1] // 2
    return pre[..., :half], pre[..., half:]


def swiglu(pre):
    g, u = halves(pre)
    return g * sigmoid(g) * u


def swiglu_clamped(pre, alpha=1.702, limit=7.0):
    g, u = halves(pre)
    g, u = np.minimum(g, limit), np.clip(u, -limit, limit)
    return g * sigmoid(alpha * g) * (u + 1)


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


activations = {
    "identity": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu2": lambda x: np.maximum(x, 0) ** 2,
    "gelu": gelu,
    "swiglu": swiglu,
    "swiglu_clamped": swiglu_clamped,
}


def moe(x, w, top_k, act="swiglu", **routing):
    """y [T,H] of weights in the layout [gate; up]."""
    x = np.asarray(x, np.float64)
    w = {name: np.asarray(a, np.float64) for name, a in w.items()}
    f = activations[act]
    logits = x @ w["gate"].T + w.get("gate_bias", 0.0)
    expert, gate = route(logits, top_k, choice_bias=w.get("choice_bias"), **routing)
    y = np.zeros_like(x)
    for t in range(x.shape[0]):
        for e, g in zip(expert[t], gate[t]):
            pre = w["up"][e] @ x[t] + (w["up_bias"][e] if "up_bias" in w else 0.0)
            row = w["down"][e] @ f(pre) + (w["down_bias"][e] if "down_bias" in w else 0.0)
            y[t] += g * row
    if "shared_up" in w:
        shared = f(x @ w["shared_up"].T) @ w["shared_down"].T
        if "shared_gate" in w:
            shared = shared * sigmoid(x @ w["shared_gate"])[:, None]
        y += shared
    return y


def slope(f, at, direction, step=1e-5):
    """The derivative of f at `at` along `direction`, by central differences."""
    return (f(at + step * direction) - f(at - step * direction)) / (2 * step)


# Storage types. bfloat16 is its bits in uint16: NumPy has no such type.


def to_bf16(x):
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


STORES = {
    "float32": (lambda x: np.ascontiguousarray(x, np.float32), lambda x: x, 2.0**-24),
    "float16": (lambda x: np.ascontiguousarray(x, np.float16), lambda x: x, 2.0**-11),
    "bfloat16": (to_bf16, from_bf16, 2.0**-8),
}


def worst(got, expected):
    """The largest error, relative to the root mean square of what is expected."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    size = np.sqrt(np.mean(expected**2))
    assert size > 1e-4, "the oracle is flat: this test proves nothing"
    return np.abs(got - expected).max() / size


def two_lists(w, put=np.copy):
    """(gates, ups) of w [E,2I,K] or [2I,K]: arrays of their own, as `put` makes them."""
    w = w.reshape(-1, *w.shape[-2:])
    middle = w.shape[1] // 2
    return [put(one[:middle]) for one in w], [put(one[middle:]) for one in w]


def stacked(w):
    """One array [E,N,K] of a list, or of (gates, ups)."""
    if not isinstance(w, tuple):
        return np.stack(list(w))
    return np.concatenate([np.stack(h) for h in w], 1)
