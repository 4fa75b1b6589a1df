"""The layer against the formulas in double."""

from __future__ import annotations

import numpy as np
import oracle
import pytest

import shunt

T, H, I, E, K = 7, 12, 10, 6, 2


def make(rng, dtype=np.float32, **more):
    def f(*shape):
        return (rng.standard_normal(shape) * 0.5).astype(dtype)

    arrays = dict(gate=f(E, H), up=f(E, 2 * I, H), down=f(E, H, I))
    arrays.update({name: f(*shape) for name, shape in more.items()})
    return f(T, H), arrays


def test_forward_is_the_formula(rng):
    x, arrays = make(rng)
    options = shunt.layer_options(top_k=K, route=shunt.route_options(gates="renormalised"))
    y = shunt.moe_layer(x, shunt.Weights(**arrays), options)
    expected = oracle.moe(x, arrays, K, gates="renormalised")
    assert np.abs(expected).max() > 1e-2, "the oracle is flat: this test proves nothing"
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_three_lines_show_a_published_layer(rng):
    x, arrays = make(rng)
    y = shunt.moe_layer(x, shunt.Weights(**arrays), shunt.presets["Mixtral-8x7B"].options())
    assert y.shape == x.shape and y.dtype == x.dtype
    assert np.array_equal(y, shunt.moe_layer(x, shunt.Weights(**arrays),
                                             shunt.layer_options(
                                                 top_k=2,
                                                 route=shunt.route_options(gates="renormalised"))))
