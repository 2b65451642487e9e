"""
The README's group photograph, before and after. No photograph of a group that is certainly in the public domain comes
with a package, so this is two official portraits on one print: Eileen Collins (NASA; scikit-image's
`data/astronaut.png`) and Grace Hopper (US Navy; matplotlib's `sample_data/grace_hopper.jpg`), both public domain, never
trained on. The print is damaged with a fixed seed and restored as a whole, as *Automatic* restores it.

`python -m training.restorer.group --collins astronaut.png --hopper grace_hopper.jpg --out docs/group.webp`
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

PAPER = (250, 250, 248)
PORTRAIT_PX = (300, 360)
MARGIN_PX, GAP_PX = 20, 8
# Left, top, right, bottom of what is printed of each file: heads of about the same size, in the shape of PORTRAIT_PX.
COLLINS = (90, 0, 340, 300)
HOPPER = (6, 0, 506, 600)
BLUR_PX, SHRINK, GRAIN, JPEG = 1.2, 3.0, 6.0, 60
SEED = 12  # of the grain and of how it has faded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collins", type=Path, required=True, help="astronaut.png")
    parser.add_argument("--hopper", type=Path, required=True, help="grace_hopper.jpg")
    parser.add_argument("--out", type=Path, required=True, help="WebP")
    args = parser.parse_args()
    damaged = aged(printed([(args.collins, COLLINS), (args.hopper, HOPPER)]), np.random.default_rng(SEED))
    with tempfile.TemporaryDirectory() as folder:
        after = restored(damaged, Path(folder))
    gap = np.full((damaged.shape[0], GAP_PX, 3), 255, dtype=np.uint8)
    Image.fromarray(np.hstack([damaged, gap, after])).save(args.out, quality=88, method=6)


def printed(portraits: list[tuple[Path, tuple[int, int, int, int]]]) -> Picture:
    """Side by side on paper."""
    width, height = PORTRAIT_PX
    sheet = Image.new("RGB", (MARGIN_PX + len(portraits) * (width + MARGIN_PX), height + 2 * MARGIN_PX), PAPER)
    for k, (path, box) in enumerate(portraits):
        with Image.open(path) as portrait:
            part = portrait.convert("RGB").resize(PORTRAIT_PX, Image.Resampling.LANCZOS, box)
        sheet.paste(part, (MARGIN_PX + k * (width + MARGIN_PX), MARGIN_PX))
    return np.asarray(sheet)


def aged(sheet: Picture, rng: np.random.Generator) -> Picture:
    """A soft lens, grain, faded colours, and a small scan that was compressed."""
    height, width = sheet.shape[:2]
    soft = np.asarray(cv2.GaussianBlur(sheet, (0, 0), BLUR_PX), dtype=np.uint8)
    small = cv2.resize(soft, (round(width / SHRINK), round(height / SHRINK)), interpolation=cv2.INTER_AREA)
    grainy = degrade.add_noise(np.asarray(small, dtype=np.uint8), GRAIN, rng)
    scan = degrade.jpeg(degrade.fade(grainy, rng), JPEG)
    return np.asarray(cv2.resize(scan, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def restored(photo: Picture, folder: Path) -> Picture:
    path = folder / "photo.png"
    images.write_png(path, photo)
    studio = Studio(Shelf((BUILT_IN,)), folder / "state")
    *_, last = studio.run(Enhance(str(path), auto=True), folder)
    assert isinstance(last, Final), last
    return images.read(folder / last.images[0])


if __name__ == "__main__":
    main()
