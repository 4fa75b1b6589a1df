"""Arrays in CUDA memory in plain Python: of a GPU, or of the software device that the module was
linked with (tests/softgpu)."""

from __future__ import annotations

import ctypes
from ctypes import byref, c_int, c_size_t, c_void_p

import numpy as np
import pytest
from exported import Export

_cuda = pytest.importorskip("shunt._cuda", reason="the module was built without CUDA")

TO_DEVICE, TO_HOST = 1, 2
_CODES = {"f": 2, "i": 0, "u": 1, "b": 6}


def _runtime():
    """The software device's calls are the module's own; of a GPU any runtime will do."""
    for name in (_cuda.__file__, "libcudart.so", "libcudart.so.13", "libcudart.so.12"):
        try:
            found = ctypes.CDLL(name)
            found.cudaMalloc
            return found
        except (OSError, AttributeError):
            continue
    pytest.skip("there is no libcudart.so for the tests to call", allow_module_level=True)


runtime = _runtime()


def check(code):
    assert code == 0, f"CUDA error {code}"


def devices():
    count = c_int()
    return count.value if runtime.cudaGetDeviceCount(byref(count)) == 0 else 0


if devices() == 0:
    pytest.skip("there is no CUDA device", allow_module_level=True)


class Memory:
    """Bytes of a device, freed with their last array."""

    def __init__(self, size):
        self.at = c_void_p()
        check(runtime.cudaMalloc(byref(self.at), c_size_t(max(size, 1))))

    def __del__(self):
        runtime.cudaFree(self.at)


class Array:
    """A dense array; uint16 stands for bfloat16. `streams`: those it was exported for."""

    def __init__(self, shape, dtype, memory=None, offset=0):
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.nbytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self.memory = memory or Memory(self.nbytes)
        self.at = self.memory.at.value + offset
        self.streams, self.exports = [], []

    @classmethod
    def of(cls, array):
        array = np.ascontiguousarray(array)
        made = cls(array.shape, array.dtype)
        made.write(array)
        return made

    def write(self, array):
        check(runtime.cudaMemcpy(c_void_p(self.at), c_void_p(array.ctypes.data),
                                 c_size_t(self.nbytes), TO_DEVICE))  # fmt: skip

    def host(self):
        to = np.empty(self.shape, self.dtype)
        check(runtime.cudaDeviceSynchronize())
        check(runtime.cudaMemcpy(c_void_p(to.ctypes.data), c_void_p(self.at),
                                 c_size_t(self.nbytes), TO_HOST))  # fmt: skip
        return to

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, part):
        first, last, _ = part.indices(len(self))
        return Array((last - first,), self.dtype, self.memory, first * self.dtype.itemsize)

    def view(self, dtype):
        offset = self.at - self.memory.at.value
        return Array((self.nbytes // np.dtype(dtype).itemsize,), dtype, self.memory, offset)

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, *, stream=None, **_):
        self.streams.append(stream)
        code = 4 if self.dtype == np.uint16 else _CODES[self.dtype.kind]
        self.exports.append(
            Export(self.at, self.shape, None, (2, 0), code, 8 * self.dtype.itemsize)
        )
        return self.exports[-1].capsule()


class Strided:
    """A NumPy array's elements, strides and the bytes between them, in memory of the device."""

    def __init__(self, array):
        self.array = array
        low, high = np.lib.array_utils.byte_bounds(array)
        self.before = array.__array_interface__["data"][0] - low
        memory = np.frombuffer((ctypes.c_char * (high - low)).from_address(low), np.uint8)
        self.memory = Array.of(memory)
        steps = [s // array.itemsize for s in array.strides]
        self.shape, self.dtype = array.shape, array.dtype
        self.export = Export(self.memory.at + self.before, array.shape, steps, (2, 0),
                             _CODES[array.dtype.kind], 8 * array.itemsize)  # fmt: skip

    def host(self):
        return np.ndarray(self.shape, self.dtype, self.memory.host(), self.before,
                          self.array.strides).copy()  # fmt: skip

    def __len__(self):
        return self.shape[0]

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, **_):
        return self.export.capsule()


class Interface:
    """The same memory, as libraries without DLPack show it."""

    def __init__(self, array, stream=None):
        self.array, self.shape = array, array.shape
        self.__cuda_array_interface__ = {
            "shape": array.shape, "typestr": array.dtype.str, "data": (array.at, False),
            "strides": None, "version": 3, "stream": stream,
        }  # fmt: skip


def empty(shape, dtype):
    """For on_cuda(empty=...)."""
    return Array(shape, {"bfloat16": np.uint16}.get(dtype, dtype))


class Stream:
    def __enter__(self):
        made = c_void_p()
        check(runtime.cudaStreamCreateWithFlags(byref(made), 1))  # waits for no other
        self.handle = made.value
        return self.handle

    def __exit__(self, *_):
        check(runtime.cudaStreamSynchronize(c_void_p(self.handle)))
        check(runtime.cudaStreamDestroy(c_void_p(self.handle)))
