"""
TensorRT on NVIDIA's GPUs, Jetson's included. Reads ONNX graphs, and compiles each for this very GPU
(tensorrt_plans.py).

Arithmetic is the graph's: networks are strongly typed, the only kind that TensorRT 11 has, and 10 has it too. A graph
in float32 is computed in float32, without TF32; one in fp16 or int8 is made by the toolchain (recipes trt-*). What was
quantised for CPUs has zero points, which TensorRT does not compute with.

Arrays go to the GPU and come back by its driver (device_buffers.py): no PyTorch, no CUDA runtime of our own.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from engines.backends import Probe, Session, device_buffers, vocabulary
from engines.backends.device_buffers import DeviceBuffers, Driver
from engines.backends.refusals import refusal
from engines.backends.tensorrt_plans import PlanCompiler, SerializedPlan, TensorRtLog
from engines.backends.tensorrt_types import Library
from engines.bundle import Bundle, Format, Part
from engines.bundle.signatures import Array, check_words
from engines.errors import EngineError
from engines.machine.preflight import ImportTrial
from engines.messages.status import Group

TYPES: dict[str, np.dtype[Any]] = {
    "FLOAT": np.dtype(np.float32),
    "INT64": np.dtype(np.int64),
}  # of everything that crosses the border
OLDEST = 10
MISSING = "TensorRT is not installed: pip install tensorrt-cu12, or on a Jetson the package python3-libnvinfer"
TRIAL = ImportTrial("tensorrt", ("tensorrt",))
QUANTISED = "is quantised for CPUs: build the model with the recipe trt-int8"


class TensorRtSession:
    def __init__(
        self,
        library: Library,
        said: TensorRtLog,
        driver: Driver,
        plan: SerializedPlan,
        label: str,
        limits: Mapping[str, int],
    ) -> None:
        """Load a plan. EngineError: it is not one for this machine, or its arrays are not those of the house."""
        self.said, self.driver, self.label, self.limits = said, driver, label, limits
        self.runtime = library.Runtime(said.logger)
        engine = self.runtime.deserialize_cuda_engine(plan)
        context = engine.create_execution_context() if engine is not None else None
        if engine is None or context is None:
            raise self._failed("it cannot be loaded", said.why())
        self.engine, self.context, self.buffers = engine, context, DeviceBuffers(driver)
        self.inputs: dict[str, tuple[np.dtype[Any], int]] = {}
        self.outputs: dict[str, np.dtype[Any]] = {}
        for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
            dtype = TYPES.get(engine.get_tensor_dtype(name).name)
            if dtype is None:
                raise self._failed(f"{name} is {engine.get_tensor_dtype(name).name}", f"not {', '.join(TYPES)}")
            if engine.get_tensor_mode(name).name == "INPUT":
                self.inputs[name] = dtype, len(engine.get_tensor_shape(name))
            else:
                self.outputs[name] = dtype

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self._check(feeds)
        held = {name: np.ascontiguousarray(array) for name, array in feeds.items()}  # until the work is done
        try:
            self.driver.enter()
            try:
                return self._run(held)
            finally:
                self.buffers.wait()
        except (EngineError, RuntimeError, ValueError) as exc:
            raise self._failed(str(exc), self.said.why()) from exc

    def _run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs; the arrays are filled when the buffers' work is done."""
        for name, array in feeds.items():
            self._agree(self.context.set_input_shape(name, array.shape), f"{name} {array.shape} is no size for it")
            self.context.set_tensor_address(name, self.buffers.upload(name, array))
        shapes = {name: tuple(self.context.get_tensor_shape(name)) for name in self.outputs}
        for name, shape in shapes.items():
            self._agree(min(shape, default=0) >= 0, f"no size follows for {name}")
            size = int(np.prod(shape)) * self.outputs[name].itemsize
            self.context.set_tensor_address(name, self.buffers.allocate(name, size))
        self._agree(self.context.execute_async_v3(self.buffers.stream.value or 0), "it cannot be run")
        return {name: self.buffers.download(name, shape, self.outputs[name]) for name, shape in shapes.items()}

    def _check(self, feeds: Mapping[str, Array]) -> None:
        """Raise EngineError for other types, which TensorRT would read as its own, and for words beyond the table."""
        given = {name: (array.dtype, array.ndim) for name, array in feeds.items()}
        if given != self.inputs:
            raise self._failed(f"fed {given}", f"wants {self.inputs}")
        check_words(feeds, self.limits, f"tensorrt: {self.label}")

    def _agree(self, well: bool, what: str) -> None:
        if not well:
            raise EngineError(what, engine="tensorrt")

    def _failed(self, what: str, why: str) -> EngineError:
        return EngineError(f"tensorrt: {self.label}: {what}: {why}", engine="tensorrt")

    def close(self) -> None:
        self.buffers.close()
        del self.context, self.engine, self.runtime, self.buffers


@cache
def installed() -> Library:
    """Return TensorRT's package. EngineError: why it cannot be used."""
    device_buffers.driver()  # without a GPU there is nothing to install, and no need to load hundreds of megabytes
    if find_spec("tensorrt") is None:
        raise EngineError(MISSING, engine="tensorrt")
    try:
        library: Library = importlib.import_module("tensorrt")
    except (ImportError, OSError) as exc:  # the bindings are here, the libraries are not
        raise EngineError(f"TensorRT cannot be loaded ({exc})", engine="tensorrt") from exc
    if int(library.__version__.partition(".")[0]) < OLDEST:
        raise EngineError(f"TensorRT {library.__version__} is too old: {OLDEST} or newer", engine="tensorrt")
    return library


@cache
def _said(library: Library) -> TensorRtLog:
    """Return the process' only log: TensorRT wants no second one."""
    return TensorRtLog(library)


@dataclass(frozen=True)
class TensorRtEngine:
    name: str = "tensorrt"
    formats: frozenset[Format] = frozenset({"tensorrt", "onnx"})
    group: Group = "edge"
    rank: int = 1
    trusted: bool = False
    trial: ImportTrial = TRIAL
    library: Callable[[], Library] = installed
    driver: Callable[[], Driver] = device_buffers.driver

    def probe(self) -> Probe:
        if why := refusal(self.name):  # before it is imported here
            return Probe(False, "", why)
        try:
            library, gpu = self.library(), self.driver().gpu()
        except EngineError as exc:
            return Probe(False, "", str(exc))
        return Probe(True, gpu.name, str(gpu), f"tensorrt {library.__version__}")

    def refuses(self, part: Part) -> str:
        """Return why it cannot compute this part; empty: it can."""
        return f"its {part.role} {QUANTISED}" if part.format == "onnx" and part.precision != "fp32" else ""

    def load(self, bundle: Bundle, part: Part) -> Session:
        """
        Load the part's plan; where none is kept, compile it, for minutes. EngineError: TensorRT refuses the graph.
        """
        library, driver, label = self.library(), self.driver(), f"{bundle.name}/{part.file}"
        said = _said(library)
        driver.enter()
        try:
            plan = PlanCompiler(library, said, driver.gpu(), bundle, part).plan()
        except (EngineError, RuntimeError, TypeError, ValueError) as exc:
            raise EngineError(f"tensorrt: {label}: {exc}", engine="tensorrt") from exc
        return TensorRtSession(library, said, driver, plan, label, vocabulary(bundle, part))


ENGINE = TensorRtEngine()
