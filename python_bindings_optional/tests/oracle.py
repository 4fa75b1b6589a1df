"""The formulas in double, by NumPy alone: slow, plain, and no relative of the library."""

from __future__ import annotations

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(z):
    s = np.exp(z - z.max(axis=-1, keepdims=True))
    return s / s.sum(axis=-1, keepdims=True)


def route(logits, top_k, score="softmax", gates="raw", scale=1.0, epsilon=0.0, choice_bias=None):
    """(expert [T,K], gate [T,K])."""
    z = np.asarray(logits, np.float64)
    s = {"softmax": softmax, "sigmoid": sigmoid, "logits": lambda z: z}[score](z)
    key = z if choice_bias is None else s + np.asarray(choice_bias, np.float64)
    expert = np.argsort(-key, axis=-1, kind="stable")[:, :top_k]
    chosen = np.take_along_axis(s, expert, -1)
    if gates == "renormalised":
        chosen = chosen / (chosen.sum(-1, keepdims=True) + epsilon)
    elif gates == "softmax_chosen":
        chosen = softmax(chosen)
    return expert, scale * chosen


def swiglu(pre):
    half = pre.shape[-1] // 2
    g, u = pre[..., :half], pre[..., half:]
    return g * sigmoid(g) * u


def moe(x, w, top_k, act=swiglu, **routing):
    """y [T,H]."""
    x = np.asarray(x, np.float64)
    w = {name: np.asarray(a, np.float64) for name, a in w.items()}
    expert, gate = route(x @ w["gate"].T, top_k, **routing)
    y = np.zeros_like(x)
    for t in range(x.shape[0]):
        for e, g in zip(expert[t], gate[t]):
            y[t] += g * (w["down"][e] @ act(w["up"][e] @ x[t]))
    if "shared_up" in w:
        shared = act(x @ w["shared_up"].T) @ w["shared_down"].T
        if "shared_gate" in w:
            shared = shared * sigmoid(x @ w["shared_gate"])[:, None]
        y += shared
    return y
