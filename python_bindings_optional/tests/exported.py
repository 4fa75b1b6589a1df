"""What an object needs to export an array through DLPack, in plain Python."""

from __future__ import annotations

import ctypes


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16), ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    ]  # fmt: skip


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Export:
    """A tensor as DLPack describes it; strides in elements, None: dense. It must outlive whoever
    takes a capsule of it."""

    def __init__(self, data, shape, strides, device, code, bits, offset=0):
        self.shape = (ctypes.c_int64 * len(shape))(*shape)
        self.strides = None if strides is None else (ctypes.c_int64 * len(strides))(*strides)
        steps = None if strides is None else ctypes.addressof(self.strides)
        extents = ctypes.addressof(self.shape)
        self.managed = _Managed(
            _Tensor(data - offset, *device, len(shape), code, bits, 1, extents, steps, offset)
        )

    def capsule(self):
        return _new_capsule(ctypes.addressof(self.managed), b"dltensor", None)
