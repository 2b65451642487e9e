"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from engines.backends import Probe, Session, cores
from engines.bundle import Bundle, Format, Part
from engines.errors import EngineError
from engines.signatures import Array

if TYPE_CHECKING:
    import onnxruntime


class OrtSession:
    def __init__(self, session: onnxruntime.InferenceSession, label: str) -> None:
        self.session, self.label = session, label
        self.outputs = [output.name for output in session.get_outputs()]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        try:
            return dict(zip(self.outputs, self.session.run(None, dict(feeds)), strict=True))
        except _failures() as exc:
            raise EngineError(f"ort: {self.label}: {exc}", engine="ort") from exc

    def close(self) -> None:
        del self.session


class OrtEngine:
    name = "ort"
    formats: frozenset[Format] = frozenset({"onnx"})

    def probe(self) -> Probe:
        if find_spec("onnxruntime") is None:
            return Probe(False, "", "onnxruntime is not installed")
        return Probe(True, "CPU", f"{cores()} threads")

    def load(self, bundle: Bundle, part: Part) -> Session:
        """EngineError: ONNX Runtime refuses the model."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores()
        path = bundle.root / part.file
        path = path / "model.onnx" if path.is_dir() else path
        label = f"{bundle.name}/{part.file}"
        try:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except _failures() as exc:
            raise EngineError(f"ort: {label}: {exc}", engine="ort") from exc
        return OrtSession(session, label)


def _failures() -> tuple[type[Exception], ...]:
    """ONNX Runtime's own exceptions, which have no common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as native

    kinds = (value for value in vars(native).values() if isinstance(value, type))
    return (*(kind for kind in kinds if issubclass(kind, Exception)), ValueError)  # ValueError: a missing input


ENGINE = OrtEngine()
