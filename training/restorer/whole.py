"""
The comparison of docs/restore.md for whole photos: as it came, as the article does it (the whole picture shrunk to
256 px, through the network, and enlarged again), and ours. Knows one photograph (as pairs.py) and the built-in bundles.

`python -m training.restorer.whole --photo astronaut.png --out docs/whole.webp`
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from engines import images
from engines.bundle import BUILT_IN, Shelf
from engines.faces import Picture
from engines.messages import Enhance, Final
from engines.studio import Studio
from training.restorer import degrade

NETWORK_PX = 256
SHOWN = (slice(20, 240), slice(110, 330))  # of astronaut.png: rows, columns
ENLARGED = 2
GAP_PX = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photo", type=Path, required=True, help="512 x 512 px, with a face")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    damaged = degrade.fixed(images.read(args.photo), degrade.LEVELS["middle"], 0)
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(Shelf((BUILT_IN,)), Path(folder) / "state")
        row = [damaged, through_the_network(studio, damaged), restored(studio, damaged, Path(folder))]
    gap = np.full((row[0][SHOWN].shape[0] * ENLARGED, GAP_PX, 3), 255, dtype=np.uint8)
    shown = [part for picture in row for part in (_large(picture[SHOWN]), gap)][:-1]
    Image.fromarray(np.hstack(shown)).save(args.out, quality=88)


def _large(picture: Picture) -> Picture:
    size = (picture.shape[1] * ENLARGED, picture.shape[0] * ENLARGED)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def through_the_network(studio: Studio, photo: Picture) -> Picture:
    """Resize to 256 and back."""
    loaded, _ = studio.loaded_bundles.get("restorer", "auto")
    small = cv2.resize(photo, (NETWORK_PX, NETWORK_PX), interpolation=cv2.INTER_AREA)
    after = loaded.restorer.restore(np.asarray(small, dtype=np.uint8))
    return np.asarray(cv2.resize(after, photo.shape[1::-1], interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def restored(studio: Studio, photo: Picture, folder: Path) -> Picture:
    path = folder / "photo.png"
    images.write_png(path, photo)
    *_, last = studio.run(Enhance(str(path), strength=100), folder)
    assert isinstance(last, Final), last
    return images.read(folder / last.images[0])


if __name__ == "__main__":
    main()
