"""
What TensorRT compiles of a part, for one GPU: its name, the sizes it takes, how it is made, and where it is kept.

A plan fits one GPU, one version of TensorRT, one graph and one range of sizes; all of them are in its name. It is a
program: what was not signed here is never given to TensorRT (signed_files.py). The timing cache, in which TensorRT
remembers how fast each kernel was, is shared by all bundles and signed likewise.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engines.backends.device_buffers import Gpu
from engines.backends.signed_files import Refused, SignedFiles
from engines.backends.tensorrt_types import Builder, IBuilderConfig, INetworkDefinition, Library, OnnxParser
from engines.bundle import Bundle, Part
from engines.bundle.signatures import SIGNATURES
from engines.errors import EngineError

log = logging.getLogger(__name__)
OURS = ".tensorrt"  # beside the bundles' caches: the key and the timing cache. No bundle's name begins with a dot
USUAL_TOKENS = 128  # of a prompt
LEAST_CELLS, LEAST_PX = 2, 32  # what denoisers and detectors take at the least
Range = tuple[int, int, int]  # least, usual, most
Ranges = Mapping[str, Range]
SerializedPlan = bytes | memoryview


class TensorRtLog:
    """What TensorRT says: errors are kept for the exception, warnings go to the log."""

    def __init__(self, library: Library) -> None:
        self.errors: deque[str] = deque(maxlen=4)
        self.logger = type(
            "Logger", (library.ILogger,), {"log": lambda _, severity, text: self._hear(severity, text)}
        )()

    def _hear(self, severity: object, text: str) -> None:
        name = getattr(severity, "name", "")
        if name in ("INTERNAL_ERROR", "ERROR"):
            self.errors.append(" ".join(text.split()))
        elif name == "WARNING":
            log.debug("%s", text)

    def why(self) -> str:
        """Return the errors since the last call."""
        errors = "; ".join(self.errors) or "it did not say why"
        self.errors.clear()
        return errors


def ranges(bundle: Bundle) -> dict[str, Range]:
    """
    Return how large each axis of engines/bundle/signatures.py may be that varies: from next to nothing to the largest
    that the bundle draws well. Kernels are chosen for the usual size, memory is taken for the largest.
    """
    axes: dict[str, Range] = {}
    if bundle.text is not None:
        most = bundle.text.max_tokens
        axes["T"] = (1, most if bundle.text.pad else min(most, USUAL_TOKENS), most)
    if bundle.sampling is not None and bundle.sizes:
        stride, (width, height) = bundle.sampling.latent_stride, bundle.sizes[0]
        most = max(map(max, bundle.sizes)) // stride
        axes.update(h=(LEAST_CELLS, height // stride, most), w=(LEAST_CELLS, width // stride, most))
        least, largest = LEAST_CELLS * stride, most * stride
        axes.update(H=(least, height, largest), W=(least, width, largest))  # of a photo
    if bundle.face is not None:
        side = bundle.face.size_px
        axes.update({axis: (min(LEAST_PX, side), side, side) for axis in "HW"})
    return axes


@dataclass(frozen=True)
class PlanCompiler:
    """Makes or finds the plan of one part."""

    library: Library
    said: TensorRtLog
    gpu: Gpu
    bundle: Bundle
    part: Part

    @property
    def file_name(self) -> str:
        """The plan's name: role, GPU, TensorRT, precision, and a digest of the graph and its sizes."""
        facts = [self.part.sha256, self.part.file, sorted(ranges(self.bundle).items())]
        digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        return f"{self.part.role}-{self._machine}-{self.part.precision}-{digest}.plan"

    @property
    def _machine(self) -> str:
        gpu = re.sub("[^a-z0-9]+", "-", self.gpu.name.lower()).strip("-")
        return f"{gpu}-sm{self.gpu.capability}-trt{self.library.__version__}"

    def plan(self) -> SerializedPlan:
        """Return the plan from the cache, or compile and keep a new one. EngineError: TensorRT refuses the graph."""
        if self.bundle.cache is None:
            return self._compile(SignedFiles(Path()), None)
        folder = self.bundle.cache.parent / OURS
        safe, path = SignedFiles(folder / "key"), self.bundle.cache / "tensorrt" / self.file_name
        try:
            return safe.read(path)
        except Refused as exc:
            log.warning("refused: %s. It is made anew", exc)
        except OSError:  # none is kept yet
            pass
        plan = self._compile(safe, folder / f"{self._machine}.timing")
        _write(safe, path, plan)
        return plan

    def _compile(self, safe: SignedFiles, timing: Path | None) -> SerializedPlan:
        label, started = f"{self.bundle.name}/{self.part.file}", time.perf_counter()
        log.info("TensorRT compiles %s for %s: this takes minutes, once", label, self.gpu.name)
        builder: Builder = self.library.Builder(self.said.logger)
        network = builder.create_network(1 << int(self.library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = self._parse(network)  # owns the weights: it must live until the plan is made
        config = builder.create_builder_config()
        if self.part.precision == "fp32":
            config.clear_flag(self.library.BuilderFlag.TF32)
        self._set_sizes(builder, network, config)
        if timing is not None:
            self._remember_timings(config, safe, timing)
        plan = builder.build_serialized_network(network, config)
        del parser
        if plan is None:
            raise EngineError(f"it cannot be compiled: {self.said.why()}", engine="tensorrt")
        if timing is not None and (cache := config.get_timing_cache()) is not None:
            _write(safe, timing, memoryview(cache.serialize()))
        log.info("TensorRT compiled %s in %.0f s", label, time.perf_counter() - started)
        return memoryview(plan)

    def _parse(self, network: INetworkDefinition) -> OnnxParser:
        parser = self.library.OnnxParser(network, self.said.logger)
        if not parser.parse_from_file(str(graph_of(self.bundle, self.part))):
            errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
            raise EngineError(f"it cannot be read: {errors or self.said.why()}", engine="tensorrt")
        return parser

    def _set_sizes(self, builder: Builder, network: INetworkDefinition, config: IBuilderConfig) -> None:
        profile, varies = builder.create_optimization_profile(), False
        for i in range(network.num_inputs):
            tensor = network.get_input(i)
            shape = tuple(tensor.shape)
            if min(shape) < 0:
                varies = True
                profile.set_shape(tensor.name, *self._sizes(tensor.name, shape))
        if varies and config.add_optimization_profile(profile) < 0:
            raise EngineError(f"its sizes are refused: {self.said.why()}", engine="tensorrt")

    def _sizes(self, name: str, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Return the least, the usual and the largest shape of one input. EngineError: an axis has no range."""
        signature, limits = SIGNATURES[self.part.role], ranges(self.bundle)
        axes = {**signature.inputs, **signature.optional}.get(name, ())
        sides = [
            (side, side, side) if side >= 0 else limits.get(str(axis)) for side, axis in zip(shape, axes, strict=False)
        ]
        if len(shape) != len(axes) or None in sides:
            raise EngineError(f"nothing is known about the sizes of {name} {shape}", engine="tensorrt")
        return [tuple(side[k] for side in sides if side is not None) for k in range(3)]

    def _remember_timings(self, config: IBuilderConfig, safe: SignedFiles, path: Path) -> None:
        timings = b""
        try:
            timings = safe.read(path)
        except Refused as exc:
            log.warning("refused: %s. It is made anew", exc)
        except OSError:  # there are none yet
            pass
        config.set_timing_cache(config.create_timing_cache(timings), False)


def graph_of(bundle: Bundle, part: Part) -> Path:
    """Return the part's graph; in a folder, one in the part's own arithmetic goes before the float32 of the others."""
    own = bundle.root / part.file / f"model.{part.precision}.onnx"
    return own if own.is_file() else bundle.graph(part)


def _write(safe: SignedFiles, path: Path, data: SerializedPlan) -> None:
    """Write a signed file; a full or read-only disk costs minutes at the next start, nothing else."""
    with contextlib.suppress(OSError):
        safe.write(path, data)
