"""Arrays of libraries that are neither NumPy nor torch: whatever exports DLPack."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from exported import Export

import shunt
from shunt import _backend

HOST, CUDA, METAL = 1, 2, 8


class Foreign:
    """A NumPy array that only DLPack can read, said to lie on a device."""

    def __init__(self, array, device=HOST, code=2, bits=None, strides=True):
        self.array, self.device = array, device
        steps = [s // array.itemsize for s in array.strides] if strides else None
        offset = min(array.nbytes, 16)  # a byte offset, as a view has
        self.export = Export(array.ctypes.data, array.shape, steps, (device, 0), code,
                             bits or 8 * array.itemsize, offset)  # fmt: skip

    def __dlpack_device__(self):
        return (self.device, 0)

    def __dlpack__(self, **_):
        return self.export.capsule()


T, H, E, K = 6, 8, 5, 2


def test_any_array_on_the_host_is_taken(rng):
    x = rng.standard_normal((T, H)).astype(np.float32)
    plain = shunt.route(x, K)
    for given in (Foreign(x), Foreign(x, strides=False)):
        assert np.array_equal(shunt.route(given, K).gate, plain.gate)
    assert np.array_equal(shunt.route(Foreign(x[:, ::-1].copy()), K).gate,
                          shunt.route(x[:, ::-1].copy(), K).gate)  # fmt: skip
    wide = np.repeat(x, 2, axis=0)
    assert np.array_equal(shunt.route(Foreign(wide[::2]), K).gate, plain.gate)
    bits = (x.view(np.uint32) >> 16).astype(np.uint16)
    assert np.array_equal(shunt.route(Foreign(bits, code=4), K).gate, shunt.route(bits, K).gate)
    out = np.zeros((T, K), np.float32)
    shunt.route(x, K, out=shunt.Routing(gate=Foreign(out)))
    assert np.array_equal(out, plain.gate)


def test_another_device_is_refused(rng):
    x, on = rng.standard_normal((T, H)).astype(np.float32), shunt.on_host()
    with pytest.raises(ValueError, match="route.logits lies in device memory"):
        shunt.route(Foreign(x, CUDA), K, on=on)
    with pytest.raises((TypeError, ValueError), match="route.logits"):
        shunt.route(Foreign(x, METAL), K)
    with pytest.raises(ValueError, match="route.gate lies in device memory"):
        shunt.route(x, K, out=shunt.Routing(gate=Foreign(np.zeros((T, K), np.float32), CUDA)))
    gate, up, down = (np.zeros(s, np.float32) for s in ((E, H), (E, 4, H), (E, H, 2)))
    with pytest.raises(ValueError, match="Weights.up lies in host memory"):
        shunt.Weights(Foreign(gate, CUDA), up, down)
    on_device = shunt.Weights(*(Foreign(a, CUDA) for a in (gate, up, down)))
    with pytest.raises(ValueError, match="weights lie in device memory"):
        shunt.moe_layer(x, on_device)


def test_without_the_cuda_module_device_arrays_are_refused(rng, monkeypatch):
    monkeypatch.setitem(sys.modules, "shunt._cuda", None)
    monkeypatch.delattr(shunt, "_cuda", raising=False)
    _backend.cuda_module.cache_clear()
    with pytest.raises(ValueError, match="lies in CUDA memory, which this installation"):
        shunt.route(Foreign(rng.standard_normal((T, H)).astype(np.float32), CUDA), K)


def test_lanes_and_broken_exports_are_refused(rng):
    x = rng.standard_normal((T, H)).astype(np.float32)
    with pytest.raises(TypeError, match="route.logits"):
        shunt.route(Foreign(x, code=0), K)  # int32

    class Broken:
        def __dlpack__(self, **_):
            raise RuntimeError("no")

    class Empty:
        def __dlpack__(self, **_):
            return None

    for wrong in (Broken(), Empty()):
        with pytest.raises(TypeError, match="route.logits is"):
            shunt.route(wrong, K)


@pytest.mark.parametrize("address, offset", [(0, 0), (0, 16), (16, 16)])
def test_battery30_elements_without_memory_are_refused(address, offset):
    """A null address stands for an empty array only; a byte offset does not make it another."""

    class Gone:
        def __init__(self, shape):
            self.export = Export(address + offset, shape, None, (HOST, 0), 2, 32, offset)

        def __dlpack_device__(self):
            return (HOST, 0)

        def __dlpack__(self, **_):
            return self.export.capsule()

    with pytest.raises(ValueError, match="route.logits has elements and no memory"):
        shunt.route(Gone((T, H)), K)
    with pytest.raises(ValueError, match="route.gate has elements and no memory"):
        shunt.route(np.zeros((T, H), np.float32), K, out=shunt.Routing(gate=Gone((T, K))))
    assert shunt.route(Gone((0, H)), K).gate.shape == (0, K)
