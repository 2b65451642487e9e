"""
The bars of the built-in restorer: `python -m training.restorer.bars --portraits DIR --weights FILE` prints them.

Knows the measures and the limits. They are taken on the aligned faces of DIR/val under the three fixed degradations
of degrade.py (the seed is the face's number). "Gain" is against the degraded input brought to size by bicubic
interpolation.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from engines import faces
from engines.images.metrics import luma, psnr_db, ssim
from training.restorer import dataset, degrade, sheet, weights

Picture = NDArray[np.uint8]  # (N, N, 3) RGB
Pictures = list[Picture]
BARS = (
    "middle: PSNR gain >= 1.80 dB (goal 2.30), SSIM gain >= 0.060, texture 0.60-1.20, skin <= 2.00; clean >= 30.00 dB"
)


def laplacian_energy(picture: Picture) -> float:
    return float(np.square(cv2.Laplacian(luma(picture), cv2.CV_64F, ksize=1)).mean())


def texture(restored: Picture, truth: Picture) -> float:
    """How much fine texture there is, as a share of the truth's: 0.02 is a blur, 1 is right, 2 is noise."""
    return laplacian_energy(restored) / laplacian_energy(truth)


def face_psnr_db(restored: Picture, truth: Picture) -> float:
    """Where a restored crop is put back at more than half of its weight: the part of it that people get to see."""
    size_px = truth.shape[0]
    face = faces.face_mask(faces.template(size_px), size_px) > 0.5
    return psnr_db(restored[face][None], truth[face][None])


def skin_mask(size_px: int) -> NDArray[np.bool_]:
    """Brows to chin on the FFHQ template, well inside the outline of the face."""
    centre, axes = (size_px // 2, round(0.58 * size_px)), (round(0.19 * size_px), round(0.24 * size_px))
    drawn = cv2.ellipse(np.zeros((size_px, size_px), dtype=np.uint8), centre, axes, 0, 0, 360, 1, -1)
    return np.asarray(drawn > 0)


def skin_shift(restored: Picture, truth: Picture) -> float:
    """Distance in CIELAB (D65) between the mean colours of the two faces' skin."""
    mask = skin_mask(truth.shape[0])
    means = [cv2.cvtColor(face.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[mask].mean(0) for face in (restored, truth)]
    return float(np.linalg.norm(means[0] - means[1]))


@dataclass(frozen=True)
class Row:
    level: str
    psnr_in: float
    psnr_out: float
    ssim_in: float
    ssim_out: float
    texture: float
    skin: float
    skin_worst: float
    face_gain: float

    def __str__(self) -> str:
        psnr = f"{self.psnr_in:.2f} | {self.psnr_out:.2f} | {self.psnr_out - self.psnr_in:+.2f} | {self.face_gain:+.2f}"
        ssim = f"{self.ssim_in:.3f} | {self.ssim_out:.3f} | {self.ssim_out - self.ssim_in:+.3f}"
        return f"| {self.level} | {psnr} | {ssim} | {self.texture:.2f} | {self.skin:.2f} | {self.skin_worst:.2f} |"


COLUMNS = (
    "| level | PSNR in | PSNR out | gain | on the face | SSIM in | SSIM out | gain | texture | skin mean | skin worst |"
)
HEADER = COLUMNS + "\n" + "|---" * 11 + "|"


def mean(measure: Callable[[Picture, Picture], float], pictures: Pictures, truth: Pictures) -> float:
    return float(np.mean([measure(a, b) for a, b in zip(pictures, truth, strict=True)]))


def degraded(truth: Pictures, level: str) -> Pictures:
    return [degrade.fixed(face, degrade.LEVELS[level], seed) for seed, face in enumerate(truth)]


def measure_level(level: str, restore: Callable[[Pictures], Pictures], truth: Pictures) -> Row:
    bad = truth if level == "clean" else degraded(truth, level)
    good = restore(bad)
    shifts = [skin_shift(a, b) for a, b in zip(good, truth, strict=True)]
    return Row(
        level,
        mean(psnr_db, bad, truth),
        mean(psnr_db, good, truth),
        mean(ssim, bad, truth),
        mean(ssim, good, truth),
        mean(texture, good, truth),
        float(np.mean(shifts)),
        max(shifts),
        mean(face_psnr_db, good, truth) - mean(face_psnr_db, bad, truth),
    )


def table(restore: Callable[[Pictures], Pictures], truth: Pictures) -> list[Row]:
    return [measure_level(level, restore, truth) for level in (*degrade.LEVELS, "clean")]


def failures(rows: list[Row]) -> list[str]:
    """The bars not reached, in words; empty when all are."""
    by_level = {row.level: row for row in rows}
    middle, clean = by_level["middle"], by_level["clean"]
    checks = {
        f"PSNR gain {middle.psnr_out - middle.psnr_in:+.2f} dB": middle.psnr_out - middle.psnr_in >= 1.8,
        f"SSIM gain {middle.ssim_out - middle.ssim_in:+.3f}": middle.ssim_out - middle.ssim_in >= 0.06,
        f"texture {middle.texture:.2f}": 0.6 <= middle.texture <= 1.2,
        f"skin shift {middle.skin:.2f}": middle.skin <= 2,
        f"clean {clean.psnr_out:.2f} dB": clean.psnr_out >= 30,
    }
    return [words for words, reached in checks.items() if not reached]


def main() -> None:
    parser = argparse.ArgumentParser(description="measure a restorer against the bars")
    parser.add_argument("--portraits", type=Path, required=True, help="folder with val/ and val-landmarks.json")
    parser.add_argument("--weights", type=Path, required=True, help="restorer.safetensors")
    parser.add_argument("--sheet", type=Path, help="also write eight faces here: degraded, restored, truth (PNG)")
    arguments = parser.parse_args()
    model = weights.load(arguments.weights)
    truth = dataset.aligned(dataset.read_portraits(arguments.portraits, "val"), model.network.spec.size_px)
    rows = table(lambda bad: weights.restore(model, bad), truth)
    print(f"{len(truth)} faces, {arguments.weights.name}, {arguments.weights.stat().st_size / 1e6:.2f} MB")
    print("\n".join([HEADER, *map(str, rows)]))
    print("bars:", BARS)
    if arguments.sheet is not None:
        bad = degraded(truth, "middle")[:8]
        sheet.write(arguments.sheet, [bad, weights.restore(model, bad), truth[:8]])
    print("not reached: " + "; ".join(failures(rows)) if failures(rows) else "all bars reached")


if __name__ == "__main__":
    main()
