"""
ONNX Runtime: on an NVIDIA GPU where its package onnxruntime-gpu is installed and there is one, else on the CPU.

On a GPU what is fp32 is computed without TF32. Each call copies its feeds there and its result back, as the border of
the house is numpy: io binding would save none of these copies. An optimised graph is not kept: it is the CPU's.

All sessions on the CPU take what their runs need from one arena, without a plan for each graph: by its defaults every
session keeps its own, and for the plan a second block (the built-in models: 325 MB instead of 819 for all of them, and
no slower by more than the noise). `release_memory` empties it.

Threads do not wait for another run of their session, spinning: those of the next one would share their processors (the
denoiser's run after a preview: 38 ms, and 58 with them; its own pace 37 instead of 36).

Its other defaults are the best settings there are on the machines tried: denormals, dynamic blocks and
approximations moved nothing by more than the noise, without an arena decoders were a seventh slower, and a lower level
of optimisation made convolutions a quarter slower. What helps is to keep the optimised graph: loading takes a third of
the time.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engines import files
from engines.backends import Probe, Session, device_buffers, processor, version, vocabulary
from engines.backends.refusals import refusal
from engines.bundle import Bundle, Format, Part, size_bytes
from engines.bundle.signatures import Array, check_words
from engines.errors import EngineError, engine_failed
from engines.machine import cores, trim_heap
from engines.machine.preflight import ImportTrial
from engines.messages.status import Group

if TYPE_CHECKING:
    import onnxruntime

ON_GPU, ON_CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
GPU_PACKAGE = "onnxruntime-gpu"
NEEDS_PACKAGE = "it needs onnxruntime-gpu in the place of onnxruntime"
# A graph that returns its one number: only at the end of a run can the arena be asked to give memory back.
NOTHING = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)
MAX_OPTIMISED_BYTES = 500_000_000  # a larger optimised graph would take more disk than its loading time is worth


class OrtSession:
    def __init__(self, session: onnxruntime.InferenceSession, label: str, limits: Mapping[str, int]) -> None:
        self.session, self.label, self.limits = session, label, limits
        self.outputs = [output.name for output in session.get_outputs()]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        check_words(feeds, self.limits, f"ort: {self.label}")
        try:
            return dict(zip(self.outputs, self.session.run(None, dict(feeds)), strict=True))
        except failures() as exc:
            raise engine_failed("ort", self.label, exc) from exc

    def release_memory(self) -> None:
        """Empty the arena of all sessions on the CPU. A GPU's stays as it is."""
        import onnxruntime

        options = onnxruntime.RunOptions()
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        _nothing().run(None, {"x": np.zeros(1, np.float32)}, options)

    def close(self) -> None:
        """Give back the weights, and what runs took: the arena outlives the session."""
        del self.session
        self.release_memory()
        trim_heap()


class OrtEngine:
    name = "ort"
    formats: frozenset[Format] = frozenset({"onnx"})
    group: Group = "edge"
    rank = 3
    trusted = True
    trial = ImportTrial("ort", ("onnxruntime",))

    def probe(self) -> Probe:
        if find_spec("onnxruntime") is None:
            return Probe(False, "", "onnxruntime is not installed")
        if why := refusal(self.name):
            return Probe(False, "", why)
        runtime = version(GPU_PACKAGE) or version("onnxruntime")
        try:
            gpu = device_buffers.gpu()
        except EngineError:  # most machines have none, which needs no words
            return Probe(True, "CPU", f"{cores()} threads", runtime)
        if not built_for_gpus():
            return Probe(True, "CPU", f"{cores()} threads, {gpu.name} left out: {NEEDS_PACKAGE}", runtime)
        return Probe(True, gpu.name, str(gpu), runtime)

    def load(self, bundle: Bundle, part: Part) -> Session:
        """Open the part's graph. EngineError: ONNX Runtime refuses it, or lacks the libraries that a GPU needs."""
        path, label = bundle.graph(part), f"{bundle.name}/{part.file}"
        try:
            if self.probe().device != "CPU":
                return OrtSession(_on_gpu(path, part), label, vocabulary(bundle, part))
            return OrtSession(_open(path, _optimised_path(bundle, part)), label, {})
        except failures() as exc:
            raise engine_failed("ort", label, exc) from exc


def _open(path: Path, optimised: Path | None) -> onnxruntime.InferenceSession:
    """Open the optimised graph if it is there and whole; else the graph itself, and keep its optimised form."""
    from onnxruntime import GraphOptimizationLevel as Level

    if optimised is None:
        return _session(path)
    faults = failures()
    if optimised.is_file():
        with contextlib.suppress(*faults):
            return _session(optimised, graph_optimization_level=Level.ORT_DISABLE_ALL)
    try:
        with files.replacing(optimised) as beside:
            session = _session(path, optimized_model_filepath=str(beside))
    except faults + (OSError,):  # a full or read-only disk costs loading time, nothing else; or the graph is bad
        session = _session(path)
    return session


def _on_gpu(path: Path, part: Part) -> onnxruntime.InferenceSession:
    import onnxruntime

    onnxruntime.preload_dlls()  # CUDA and cuDNN, where they were installed by pip
    settings = {"use_tf32": "0" if part.precision == "fp32" else "1"}
    session = _session(path, providers=[(ON_GPU, settings), ON_CPU])
    if session.get_providers()[0] != ON_GPU:  # it goes on with the CPU and a line on standard error
        raise ValueError(f"{GPU_PACKAGE} does not find the CUDA and cuDNN that it was built for")
    return session


def built_for_gpus() -> bool:
    spec = find_spec("onnxruntime")
    folders = (spec.submodule_search_locations or ()) if spec else ()
    return any(path for folder in folders for path in Path(folder).glob("capi/*providers_cuda.*"))


@cache
def _share_arena() -> None:
    """Make the arena from which sessions on the CPU are to take memory; once in a process."""
    import onnxruntime as ort

    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, None)


@cache
def _nothing() -> onnxruntime.InferenceSession:
    return _session(NOTHING)


def _session(path: Path | bytes, providers: Sequence[Any] = (ON_CPU,), **settings: Any) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    if list(providers) == [ON_CPU]:
        _share_arena()
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    options.log_severity_level = 3  # it warns that an optimised graph fits this processor only, which is the point
    for name, value in settings.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(path, options, providers=list(providers))


def _optimised_path(bundle: Bundle, part: Part) -> Path | None:
    """Return where the optimised graph lies, or may lie, for these bytes, this version, this processor."""
    if bundle.cache is None or not 0 < size_bytes(bundle.root / part.file) < MAX_OPTIMISED_BYTES:
        return None
    facts = f"{part.sha256} {part.file} {version('onnxruntime')} {cores()} {processor()}"
    return bundle.cache / "ort" / f"{hashlib.sha256(facts.encode()).hexdigest()}.onnx"


def failures() -> tuple[type[Exception], ...]:
    """Return ONNX Runtime's own exceptions, which have no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    kinds = (value for value in vars(native).values() if isinstance(value, type))
    return (*(kind for kind in kinds if issubclass(kind, Exception)), ValueError)  # ValueError: a missing input


ENGINE = OrtEngine()
