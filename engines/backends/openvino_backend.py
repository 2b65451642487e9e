"""
OpenVINO on the CPU. Reads the same ONNX graphs as ONNX Runtime, quantised ones included.

Arithmetic: a part that allows no rounding runs in f32; any other runs in the narrowest float that this processor
multiplies natively (bf16 on AVX512-BF16 and AMX, f16 on AVX512-FP16 and ARMv8.2), which also takes what a quantised
graph leaves in float. Where the processor has neither, everything is f32, and the probe says so.

Compiled models are kept in the bundle's cache folder; with it, loading takes a fifth of the time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines.backends import Probe, Session, version
from engines.backends.page_cache import given_back
from engines.backends.refusals import refusal
from engines.bundle import Bundle, Format, Part, Role, size_bytes
from engines.bundle.signatures import Array, check_output, check_words
from engines.errors import EngineError, engine_failed
from engines.machine import cores, processor_flags, trim_heap
from engines.machine.preflight import ImportTrial
from engines.messages.status import Group

if TYPE_CHECKING:
    import openvino

TYPES = {"f32": np.dtype(np.float32), "i64": np.dtype(np.int64)}
LARGE = 50_000_000  # bytes of weights: less is not worth reading from the disk again
COMPILED = "openvino"  # folder of the bundle's cache
Shapes = tuple[tuple[int, ...], ...]
# By the flag of the processor that says so; the first that is there counts
WITHOUT_REDUCED = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")  # oneDNN's names
REDUCED_PRECISION = {"avx512_bf16": "bf16", "amx_bf16": "bf16", "avx512_fp16": "f16", "asimdhp": "f16"}


class OpenVinoSession:
    """`mapped`: folders of weights that are large enough to be given back once OpenVINO has its own copy of them."""

    def __init__(
        self,
        model: openvino.CompiledModel,
        role: Role,
        limits: Mapping[str, int],
        label: str,
        mapped: tuple[Path, ...] = (),
    ) -> None:
        self.model, self.request = model, model.create_infer_request()
        self.role, self.limits, self.label = role, limits, label
        self.mapped, self.met = mapped, set[Shapes]()
        self.inputs = {
            port.any_name: (TYPES[port.element_type.to_string()], port.partial_shape.rank.get_length())
            for port in model.inputs
        }
        self.outputs = [(port.any_name, port) for port in model.outputs]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self._check(feeds)
        try:
            with self._copying(tuple(array.shape for array in feeds.values())):
                results = self.request.infer(dict(feeds), share_inputs=True)
        except (RuntimeError, ValueError, TypeError) as exc:
            raise engine_failed("openvino", self.label, exc) from exc
        outputs = {name: results[port] for name, port in self.outputs}
        # On one thread it does not raise where shapes do not go together: it gives nothing, or what it gave before.
        check_output(self.role, feeds, next(iter(outputs.values())), f"openvino: {self.label}")
        return outputs

    def _copying(self, shapes: Shapes) -> AbstractContextManager[None]:
        """Give pages back around the first run with these shapes, which is when OpenVINO copies weights."""
        if shapes in self.met:
            return nullcontext()
        self.met.add(shapes)
        return given_back(*self.mapped)

    def _check(self, feeds: Mapping[str, Array]) -> None:
        """Raise EngineError where other engines refuse, and OpenVINO would convert, reshape or read beyond the end."""
        given = {name: (array.dtype, array.ndim) for name, array in feeds.items()}
        if given != self.inputs:
            raise EngineError(f"openvino: {self.label}: fed {given}, wants {self.inputs}", engine="openvino")
        check_words(feeds, self.limits, f"openvino: {self.label}")

    def release_memory(self) -> None:
        self.model.release_memory()

    def close(self) -> None:
        """Give back the weights, and what runs took."""
        del self.request, self.model, self.outputs  # an output holds its model too
        trim_heap()


class OpenVinoEngine:
    name = "openvino"
    formats: frozenset[Format] = frozenset({"openvino", "onnx"})
    group: Group = "edge"
    rank = 2
    trusted = False
    trial = ImportTrial(
        "openvino", ("openvino",), "sys.modules['openvino'].Core().get_property('CPU', 'FULL_DEVICE_NAME')"
    )

    def probe(self) -> Probe:
        if find_spec("openvino") is None:
            return Probe(False, "", "openvino is not installed")
        if why := refusal(self.name):
            return Probe(False, "", why)
        return Probe(True, "CPU", f"{cores()} threads, {reduced_precision()}", version("openvino"))

    def load(self, bundle: Bundle, part: Part) -> Session:
        """Compile the part's graph, or load it compiled. EngineError: OpenVINO refuses the model."""
        import openvino

        label, core = f"{bundle.name}/{part.file}", openvino.Core()
        try:
            path, mapped = bundle.graph(part), _mapped(bundle, part)
            with given_back(*mapped):
                compiled = core.compile_model(path, "CPU", _settings(bundle, part))  # what is cached is not read again
            looks_up = any(TYPES[port.element_type.to_string()] == np.int64 for port in compiled.inputs)
            limits = _vocabularies(core.read_model(path)) if looks_up else {}
            return OpenVinoSession(compiled, part.role, limits, label, mapped)
        except (RuntimeError, KeyError, ValueError) as exc:  # it raises RuntimeError for everything
            raise engine_failed("openvino", label, exc) from exc


def reduced_precision() -> str:
    """
    Return the narrowest float that this processor multiplies natively: "bf16", "f16" or "f32". Where somebody holds
    oneDNN to fewer instructions (ONEDNN_MAX_CPU_ISA), quantised graphs in another float would not compile.
    """
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "") in WITHOUT_REDUCED:
        return "f32"
    return next((kind for flag, kind in REDUCED_PRECISION.items() if flag in processor_flags()), "f32")


def _settings(bundle: Bundle, part: Part) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": cores(),
        "INFERENCE_PRECISION_HINT": "f32" if part.precision == "fp32" else reduced_precision(),
    }
    if bundle.cache is not None and _writable(bundle.cache):
        settings["CACHE_DIR"] = str(bundle.cache / COMPILED)
    return settings


def _mapped(bundle: Bundle, part: Part) -> tuple[Path, ...]:
    """
    Return the folders of a large part's weights and of what was compiled of them: others of the bundle may be in use by
    another engine.
    """
    if size_bytes(bundle.root / part.file) < LARGE:
        return ()
    compiled = bundle.cache and bundle.cache / COMPILED
    return tuple(folder.resolve() for folder in (bundle.graph(part).parent, compiled) if folder)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a full or read-only disk costs loading time, nothing else
        return False
    return True


def _vocabularies(model: openvino.Model) -> dict[str, int]:
    """Return how many rows the tables of integer inputs have: beyond the end OpenVINO itself would return zeros."""
    limits = {}
    for port in model.inputs:
        tables = [user.get_node() for user in port.get_target_inputs() if user.get_node().get_type_name() == "Gather"]
        if tables:
            limits[port.any_name] = min(node.input(0).get_partial_shape()[0].get_length() for node in tables)
    return limits


ENGINE = OpenVinoEngine()
