"""
NVIDIA's first GPU through its driver: what it is called, and memory on it for arrays. Knows no graph and no engine.

The driver's own library, by ctypes, because it is the one thing that is on every such machine, a Jetson included: it
comes with the driver, and its names have stood still since CUDA 4. The CUDA runtime and cuda-python would have to be
installed in the version that fits. Memory is that of the device's primary context, which TensorRT and PyTorch use too.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import DTypeLike

from engines.bundle.signatures import Array
from engines.errors import EngineError

LIBRARY = "libcuda.so.1"
NO_DRIVER, NO_GPU = "no NVIDIA driver", "no NVIDIA GPU"
NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
Address = ctypes.c_uint64  # CUdeviceptr
Handle = ctypes.c_void_p  # CUcontext, CUstream


@dataclass(frozen=True)
class Gpu:
    """`cuda` is the newest CUDA that its driver knows, `capability` the generation that code is compiled for."""

    name: str
    capability: str
    cuda: tuple[int, int]

    def __str__(self) -> str:
        return f"compute {self.capability}, driver for CUDA {self.cuda[0]}.{self.cuda[1]}"


class Driver:
    def __init__(self, library: str) -> None:
        """Open the driver and its first GPU. EngineError: there is no driver, or no GPU."""
        try:
            self.library = ctypes.CDLL(library)
        except OSError as exc:
            raise EngineError(NO_DRIVER, engine="cuda") from exc
        count, self.device = ctypes.c_int(), ctypes.c_int()
        try:
            self.call("cuInit", ctypes.c_uint(0))
            self.call("cuDeviceGetCount", ctypes.byref(count))
        except EngineError as exc:
            raise EngineError(f"{NO_GPU} ({exc})", engine="cuda") from exc
        if not count.value:
            raise EngineError(NO_GPU, engine="cuda")
        self.call("cuDeviceGet", ctypes.byref(self.device), ctypes.c_int(0))

    def call(self, name: str, *arguments: object) -> None:
        """Call a function of the driver. EngineError: it fails, in the driver's own words."""
        status = getattr(self.library, name)(*arguments)
        if status:
            words = ctypes.c_char_p()
            self.library.cuGetErrorString(ctypes.c_int(status), ctypes.byref(words))
            why = words.value.decode(errors="replace") if words.value else "unknown error"
            raise EngineError(f"{name}: {why} ({status})", engine="cuda")

    def gpu(self) -> Gpu:
        name, version = ctypes.create_string_buffer(256), ctypes.c_int()
        self.call("cuDeviceGetName", name, ctypes.c_int(len(name)), self.device)
        self.call("cuDriverGetVersion", ctypes.byref(version))  # 12040 is 12.4
        major, minor = self._attribute(MAJOR), self._attribute(MINOR)
        cuda = (version.value // 1000, version.value % 1000 // 10)
        return Gpu(name.value.decode(errors="replace"), f"{major}.{minor}", cuda)

    def _attribute(self, which: int) -> int:
        value = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(which), self.device)
        return value.value

    def enter(self) -> None:
        """Make the device's context the calling thread's; every thread that uses the device must do so first."""
        self.call("cuCtxSetCurrent", self.context)

    @cached_property
    def context(self) -> Handle:
        context = Handle()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self.device)
        return context


@cache
def driver(library: str = LIBRARY) -> Driver:
    """Return this machine's driver. EngineError: there is none, or no GPU."""
    return Driver(library)


@cache
def gpu() -> Gpu:
    """Return this machine's first GPU. EngineError: there is none, and why."""
    return driver().gpu()


class DeviceBuffers:
    """A stream of work, and memory on the device for named arrays, which grows with them and is used again."""

    def __init__(self, driver: Driver) -> None:
        self.driver, self.stream = driver, Handle()
        self.allocations: dict[str, tuple[Address, int]] = {}
        driver.enter()
        driver.call("cuStreamCreate", ctypes.byref(self.stream), ctypes.c_uint(NON_BLOCKING))

    def allocate(self, name: str, size: int) -> int:
        """Return the address of at least `size` bytes under this name. EngineError: there is not that much memory."""
        address, held = self.allocations.get(name, (Address(), 0))
        if not held or held < size:
            self._free(name)
            self.driver.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(1, size)))
            self.allocations[name] = address, max(1, size)
        return address.value

    def upload(self, name: str, array: Array) -> int:
        """Copy a contiguous array to the device and return its address there. It must stay alive until `wait`."""
        address = self.allocate(name, array.nbytes)
        source, size = ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)
        self.driver.call("cuMemcpyHtoDAsync_v2", Address(address), source, size, self.stream)
        return address

    def download(self, name: str, shape: Sequence[int], dtype: DTypeLike) -> Array:
        """Return a new array of what lies under this name on the device; it is filled when `wait` returns."""
        array = np.empty(shape, dtype)
        source, size = self.allocations[name][0], ctypes.c_size_t(array.nbytes)
        self.driver.call("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(array.ctypes.data), source, size, self.stream)
        return array

    def wait(self) -> None:
        """Wait until all work of the stream is done. EngineError: some of it failed."""
        self.driver.call("cuStreamSynchronize", self.stream)

    def close(self) -> None:
        self.driver.enter()
        for name in list(self.allocations):
            self._free(name)
        self.driver.call("cuStreamDestroy_v2", self.stream)

    def _free(self, name: str) -> None:
        if name in self.allocations:
            self.driver.call("cuMemFree_v2", self.allocations.pop(name)[0])
