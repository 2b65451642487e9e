"""
A GPU that is none: TensorRT's package over ONNX Runtime, and NVIDIA's driver in forty lines of C over malloc.

Both keep the contracts that the engine relies on, the unpleasant ones too: results are there only after the stream was
waited for, calls without a current context fail, a shape outside of the profile is refused with an error in the log,
and what is deserialised is remembered. Its names and signatures are held
against the true package by tests/engines/backends/test_tensorrt.py.
"""

from __future__ import annotations

import ctypes
import json
import math
import shutil
import subprocess
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from engines.backends import ort_backend
from engines.backends.device_buffers import Driver

DRIVER = r"""
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#define CONTEXT ((void *)0x123456789abc)
long memory_left = 1L << 32, live = 0;
int devices = 1;
static __thread int current;
static struct { void *to, *from; size_t size; } later[64];
static int waiting;
int cuInit(unsigned flags) { return flags ? 1 : 0; }
int cuGetErrorString(int e, const char **s) {
  *s = e == 2 ? "out of memory" : e == 201 ? "no context" : "bad";
  return 0;
}
int cuDeviceGetCount(int *n) { *n = devices; return 0; }
int cuDeviceGet(int *d, int i) { *d = 7; return i; }
int cuDeviceGetName(char *s, int n, int d) { strncpy(s, "ACME RTX 9000", n); return d == 7 ? 0 : 101; }
int cuDriverGetVersion(int *v) { *v = 12040; return 0; }
int cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 : a == 76 ? 7 : -1; return d == 7 ? 0 : 101; }
int cuDevicePrimaryCtxRetain(void **c, int d) { *c = CONTEXT; return d == 7 ? 0 : 101; }
int cuCtxSetCurrent(void *c) { current = c == CONTEXT; return current ? 0 : 201; }
int cuStreamCreate(void **s, unsigned f) { if (!current) return 201; *s = malloc(1); live++; return f == 1 ? 0 : 1; }
int cuStreamDestroy_v2(void *s) { if (!current) return 201; free(s); live--; return 0; }
int cuMemAlloc_v2(uint64_t *p, size_t n) {
  if (!current) return 201;
  if ((long)n > memory_left) return 2;
  char *room = malloc(n + 16);
  *(size_t *)room = n; memory_left -= n; live++;
  *p = (uint64_t)(room + 16);
  return 0;
}
int cuMemFree_v2(uint64_t p) {
  if (!current) return 201;
  char *room = (char *)p - 16;
  memory_left += *(size_t *)room; live--;
  free(room);
  return 0;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, void *from, size_t n, void *s) {
  if (!current || !s) return 201;
  memcpy((void *)to, from, n);
  return 0;
}
int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n, void *s) {
  if (!current || !s) return 201;
  later[waiting].to = to; later[waiting].from = (void *)from; later[waiting++].size = n;
  return 0;
}
int cuStreamSynchronize(void *s) {
  if (!current || !s) return 201;
  for (; waiting; waiting--) memcpy(later[waiting - 1].to, later[waiting - 1].from, later[waiting - 1].size);
  return 0;
}
"""
TYPES = {"tensor(float)": "FLOAT", "tensor(int64)": "INT64", "tensor(float16)": "HALF"}


def compile_driver(folder: Path) -> Path:
    """The library; skips where there is no C compiler."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("no C compiler to make a driver with")
    (folder / "cuda.c").write_text(DRIVER)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libfakecuda.so", folder / "cuda.c"], check=True)
    return folder / "libfakecuda.so"


def counter(driver: Driver, name: str) -> Any:
    return ctypes.c_long.in_dll(driver.library, name)


class Severity(IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2


class NetworkFlag(IntEnum):
    STRONGLY_TYPED = 1


class Flag(IntEnum):
    TF32 = 7


class Mode(IntEnum):
    INPUT = 1
    OUTPUT = 2


@dataclass(frozen=True)
class Type:
    name: str


class Logger:
    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


@dataclass
class Tensor:
    name: str
    shape: tuple[int, ...]
    dtype: Type


def tensors(values: list[Any]) -> list[Tensor]:
    return [
        Tensor(v.name, tuple(d if isinstance(d, int) else -1 for d in v.shape), Type(TYPES[v.type])) for v in values
    ]


def open_session(path: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@dataclass
class Network:
    flags: int
    path: str = ""
    inputs: list[Tensor] = field(default_factory=list)

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> Tensor:
        return self.inputs[index]


@dataclass
class Parser:
    network: Network
    logger: Logger
    errors: list[str] = field(default_factory=list)

    @property
    def num_errors(self) -> int:
        return len(self.errors)

    def get_error(self, index: int) -> str:
        return self.errors[index]

    def parse_from_file(self, model: str) -> bool:
        try:
            self.network.inputs = tensors(open_session(model).get_inputs())
        except ort_backend.failures() as exc:
            self.errors.append(f"ModelImporter: {exc}")
            return False
        self.network.path = model
        return True


@dataclass
class Profile:
    shapes: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        assert all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True))
        self.shapes[input] = [tuple(min), tuple(opt), tuple(max)]


@dataclass
class TimingCache:
    data: bytes

    def serialize(self) -> bytes:
        return self.data


@dataclass
class Config:
    flags: set[Flag] = field(default_factory=lambda: {Flag.TF32})  # on by default
    profile: Profile | None = None
    timing: TimingCache | None = None

    def clear_flag(self, flag: Flag) -> None:
        self.flags.discard(flag)

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profile = profile
        return 0

    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache:
        return TimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.timing = cache
        return True

    def get_timing_cache(self) -> TimingCache | None:
        return self.timing


@dataclass
class Builder:
    package: FakeTensorRT
    logger: Logger

    def create_network(self, flags: int = 0) -> Network:
        return Network(flags)

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: Config) -> bytes | None:
        shapes = config.profile.shapes if config.profile else {}
        if missing := [t.name for t in network.inputs if min(t.shape) < 0 and t.name not in shapes]:
            self.logger.log(Severity.ERROR, f"Network has dynamic inputs, but no profile has been defined: {missing}")
            return None
        if config.timing is not None:
            config.timing.data += b"tactic;"
        told = {"path": network.path, "shapes": shapes, "tf32": Flag.TF32 in config.flags, "flags": network.flags}
        plan = json.dumps(told).encode()
        self.package.built.append(plan)
        return plan


@dataclass
class Context:
    engine: Engine
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self.engine.shapes.get(name) or [self.engine.get_tensor_shape(name)] * 3
        if not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
            said = (
                f"Error Code 3: {name} {shape} does not satisfy any optimization profiles. Valid range: {low}..{high}"
            )
            self.engine.logger.log(Severity.ERROR, said)
            return False
        self.shapes[name] = shape
        self.results = {}
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """The fake finds it by computing, with zeros where no numbers are yet."""
        feeds = {tensor.name: self._array(tensor) for tensor in self.engine.inputs}
        try:
            self.results = dict(
                zip([t.name for t in self.engine.outputs], self.engine.session.run(None, feeds), strict=True)
            )
        except ort_backend.failures() as exc:
            self.engine.logger.log(Severity.ERROR, f"Error Code 7: Internal Error ({exc})")
            return (-1,)
        return tuple(self.results[name].shape)

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle, "the default stream would be waited for at each call"
        for name, array in self.results.items():
            array = np.ascontiguousarray(array)
            ctypes.memmove(self.addresses[name], array.ctypes.data, array.nbytes)
        return bool(self.results)

    def _array(self, tensor: Tensor) -> Any:
        dtype = np.dtype({"FLOAT": np.float32, "INT64": np.int64}[tensor.dtype.name])
        shape = self.shapes[tensor.name]
        held = (ctypes.c_char * (math.prod(shape) * dtype.itemsize)).from_address(self.addresses[tensor.name])
        return np.frombuffer(bytes(held), dtype).reshape(shape)


class Engine:
    def __init__(self, plan: dict[str, Any], logger: Logger) -> None:
        self.session, self.logger, self.shapes = open_session(plan["path"]), logger, plan["shapes"]
        self.inputs, self.outputs = tensors(self.session.get_inputs()), tensors(self.session.get_outputs())
        self.known = {tensor.name: tensor for tensor in (*self.inputs, *self.outputs)}

    @property
    def num_io_tensors(self) -> int:
        return len(self.known)

    def get_tensor_name(self, index: int) -> str:
        return list(self.known)[index]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if self.known[name] in self.inputs else Mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Type:
        return self.known[name].dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.known[name].shape

    def create_execution_context(self) -> Context:
        return Context(self)


@dataclass
class Runtime:
    package: FakeTensorRT
    logger: Logger

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Engine | None:
        data = bytes(serialized_engine)
        self.package.run.append(data)
        return Engine(json.loads(data), self.logger)


class FakeTensorRT:
    """The package. `built` are the plans it made, `run` those it was given to run."""

    ILogger, NetworkDefinitionCreationFlag, BuilderFlag = Logger, NetworkFlag, Flag
    OnnxParser = Parser

    def __init__(self, version: str = "11.4.0.106") -> None:
        self.__version__ = version
        self.built: list[bytes] = []
        self.run: list[bytes] = []

    def Builder(self, logger: Logger) -> Builder:
        return Builder(self, logger)

    def Runtime(self, logger: Logger) -> Runtime:
        return Runtime(self, logger)
