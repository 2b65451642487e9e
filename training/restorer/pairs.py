"""
Eight before/after pairs of one face for docs/restore.md:
`python -m training.restorer.pairs --photo FILE --weights FILE --out FILE`.

The face that is shown is Eileen Collins, photographed by NASA: public domain, never trained on, and in scikit-image's
package as `data/astronaut.png`; the portraits that the numbers are measured on stay out of the repository.
Every kind of damage has a fixed seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from engines import faces
from training.restorer import degrade, weights
from training.restorer.sheet import compose

Picture = degrade.Picture
COLLINS = [(204.0, 101.5), (247.5, 103.5), (223.5, 127.0), (206.5, 142.0), (243.0, 143.5)]  # in astronaut.png


def small(face: Picture) -> Picture:
    """A face of 40 px, as in the back row of a group photo."""
    return degrade.resize(degrade.resize(face, 40, cv2.INTER_AREA), face.shape[0], cv2.INTER_CUBIC)


def moved(face: Picture) -> Picture:
    kernel = degrade.gaussian_kernel(4.0, 0.6, 0.4)
    return degrade.jpeg(np.asarray(cv2.filter2D(face, -1, kernel), dtype=np.uint8), 70)


def messenger(face: Picture) -> Picture:
    """Sent on and on: small, and compressed hard each time."""
    sent = degrade.resize(face, face.shape[0] // 2, cv2.INTER_AREA)
    return degrade.resize(degrade.jpeg(degrade.jpeg(sent, 40), 25), face.shape[0], cv2.INTER_CUBIC)


def dim(face: Picture) -> Picture:
    """High ISO: coarse coloured noise."""
    return degrade.add_noise(face, 20, np.random.default_rng(3))


def old_print(face: Picture) -> Picture:
    return degrade.random_print(degrade.grey(face), np.random.default_rng(12))


DAMAGES: Mapping[str, Callable[[Picture], Picture]] = {
    **{name: partial(degrade.fixed, level=level, seed=0) for name, level in degrade.LEVELS.items()},
    "small": small,
    "moved": moved,
    "messenger": messenger,
    "dim": dim,
    "old print": old_print,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, required=True, help="astronaut.png")
    parser.add_argument("--weights", type=Path, required=True, help="restorer.safetensors")
    parser.add_argument("--out", type=Path, required=True, help="sheet: PNG, or WebP")
    args = parser.parse_args()
    model = weights.load(args.weights)
    photo = np.asarray(Image.open(args.photo).convert("RGB"))
    face = faces.align(photo, np.array(COLLINS), model.network.spec.size_px)
    before = [damage(face) for damage in DAMAGES.values()]
    shown = compose([before, weights.restore(model, before)], faces_across=4)
    Image.fromarray(shown).save(args.out, quality=85, method=6)


if __name__ == "__main__":
    main()
