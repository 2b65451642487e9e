"""Sheets to look at: faces in rows, each with the stages of its life side by side. Knows pictures and PNG only."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (N, N, 3) RGB


def compose(columns: list[list[Picture]], faces_across: int = 2) -> Picture:
    """columns[stage][face] -> one picture; a face's stages stand side by side. An incomplete last row is left out."""
    strips = [np.concatenate(stages, axis=1) for stages in zip(*columns, strict=True)]
    starts = range(0, len(strips) - faces_across + 1, faces_across)
    rows = [np.concatenate(strips[start : start + faces_across], axis=1) for start in starts]
    return np.concatenate(rows, axis=0)


def write(path: Path, columns: list[list[Picture]]) -> None:
    if not cv2.imwrite(str(path), cv2.cvtColor(compose(columns), cv2.COLOR_RGB2BGR)):
        raise OSError(f"cannot write {path}")
