"""Contact sheets: many pictures on one; the file name decides between PNG and WebP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from training.portrait.renderer.draw import Picture


def save_sheet(pictures: Sequence[Picture], columns: int, path: Path, cell_px: int = 256) -> None:
    rows = -(-len(pictures) // columns)
    sheet = np.zeros((rows * cell_px, columns * cell_px, 3), np.uint8)
    for i, picture in enumerate(pictures):
        small = np.asarray(Image.fromarray(picture).resize((cell_px, cell_px), Image.Resampling.LANCZOS))
        top, left = i // columns * cell_px, i % columns * cell_px
        sheet[top : top + cell_px, left : left + cell_px] = small
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path)
