"""
Restoring photos as people have them: 48 portraits (those of STUDIO_TEST_SHARED), damaged at the middle level and placed
into larger scenes; and a 12-megapixel group of eight, timed in a process of its own.

The levels of damage are defined for a face that fills 256 px, so portraits are brought to that scale first; and once
more they are taken as they are, 512 px, where the same damage is finer than the face.

Gain: PSNR over the damaged photo, in the region of the face, against the undamaged one. Seam: mean absolute step across
the edge of the mask, beyond what the damaged photo has there. Outside: the largest change where no face is.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.timing import head
from engines import faces, images
from engines.bundle import BUILT_IN, Shelf
from engines.faces import Picture
from engines.images.metrics import psnr_db
from engines.messages import Enhance, Failed, Final
from engines.studio import DETECTOR, Studio
from engines.studio.proof import peak_mb
from training.restorer import dataset, degrade

REPOSITORY = Path(__file__).parents[1]
SCENE_PX = (960, 1280)
GROUP_PX, GROUP = (3000, 4000), 8
FACE_PX = 256  # of the aligned crop that training/restorer/degrade.py has its levels for
SETTINGS: dict[str, dict[str, object]] = {
    "as offered: natural, 70": {},
    "natural, 100": {"strength": 100},
    "natural, 100, colour of skin let go": {"strength": 100, "protect_skin": False},
    "strong, 100, colour of skin let go": {"strength": 100, "mode": "strong", "protect_skin": False},
}


@dataclass(frozen=True)
class Scene:
    truth: Picture
    damaged: Picture


def main() -> None:
    folder = Path(os.environ.get("STUDIO_TEST_SHARED", REPOSITORY.parent / "shared")) / "portraits"
    if not folder.is_dir():
        print(f"\nno photographs at {folder} (STUDIO_TEST_SHARED): nothing was measured")
        return
    portraits = dataset.read_portraits(folder, "val")[:48]
    sizes = {
        f"faces of {FACE_PX} px": [at_scale(portrait) for portrait in portraits],
        "portraits of 512 px": [portrait.image for portrait in portraits],
    }
    with tempfile.TemporaryDirectory() as scratch:
        for title, pictures in sizes.items():
            _quality(title, [scene(picture, k) for k, picture in enumerate(pictures)], Path(scratch))
        _group([portrait.image for portrait in portraits[:GROUP]], Path(scratch))


def at_scale(portrait: dataset.Portrait) -> Picture:
    """The portrait at the size at which its aligned face fills FACE_PX."""
    side = round(portrait.image.shape[0] * faces.scale_of(faces.similarity(portrait.landmarks, FACE_PX)))
    return np.asarray(cv2.resize(portrait.image, (side, side), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def waves(shape_px: tuple[int, int]) -> Picture:
    """A backdrop in which nobody sees a face. (height, width) -> (height, width, 3)"""
    y, x = np.mgrid[0 : shape_px[0], 0 : shape_px[1]].astype(np.float32)
    planes = (120 + 60 * np.sin(x / 900), 130 + 50 * np.cos(y / 700), 140 + 40 * np.sin((x + y) / 1100))
    return np.stack(planes, -1).astype(np.uint8)


def scene(portrait: Picture, seed: int) -> Scene:
    """The portrait, and the same one damaged, somewhere in a larger picture."""
    rng, side = np.random.default_rng(seed), portrait.shape[0]
    top, left = (int(rng.integers(0, whole - side)) for whole in SCENE_PX)
    pictures = []
    for inner in (portrait, degrade.fixed(portrait, degrade.LEVELS["middle"], seed)):
        picture = waves(SCENE_PX)
        picture[top : top + side, left : left + side] = inner
        pictures.append(picture)
    return Scene(*pictures)


def _quality(title: str, scenes: list[Scene], scratch: Path) -> None:
    studio = Studio(Shelf((BUILT_IN,)), scratch / "state")
    title = f"{len(scenes)} photos, {title}, damaged at the middle level"
    head(title, "settings", "gain", "lowest", "seam", "outside", "faces")
    for name, settings in SETTINGS.items():
        rows = [_measured(studio, scene, settings, scratch) for scene in scenes]
        gains, seams, outside, restored = zip(*rows, strict=True)
        means = f"{statistics.mean(gains):+.2f} dB | {min(gains):+.2f} dB | {statistics.mean(seams):.2f}"
        print(f"| {name} | {means} | {max(outside)} | {sum(restored)} |")


def _measured(
    studio: Studio, scene: Scene, settings: dict[str, object], scratch: Path
) -> tuple[float, float, int, int]:
    path = scratch / "photo.png"
    images.write_png(path, scene.damaged)
    final = _final(studio, Enhance(str(path), **settings), scratch)  # type: ignore[arg-type]
    result = images.read(scratch / final.images[0])
    weight = _weight(studio, scene.damaged)
    region = weight > 0.5
    gain = _db(result, scene.truth, region) - _db(scene.damaged, scene.truth, region)
    outside = int(np.abs(result.astype(int) - scene.damaged)[weight == 0].max())
    restored = sum(face.state != "skipped" for face in final.faces)
    return gain, _seam(scene.damaged, result, weight), outside, restored


def _final(studio: Studio, request: Enhance, folder: Path) -> Final:
    *_, last = studio.run(request, folder)
    if isinstance(last, Failed):
        raise SystemExit(last.detail)
    assert isinstance(last, Final)
    return last


def _weight(studio: Studio, picture: Picture) -> faces.Floats:
    """How much of the change each pixel gets: the masks of all faces, as they were put back."""
    weight = np.zeros((*picture.shape[:2], 3), dtype=np.uint8)
    for face in studio.loaded_bundles.get(DETECTOR, "auto")[0].face_detector.find(picture):
        matrix = faces.similarity(face.landmarks, 256)
        mask = faces.face_mask(faces.moved(face.landmarks, matrix), 256)
        faces.add(weight, np.full((256, 256, 3), 255, dtype=np.float32), matrix, mask)
    return np.asarray(weight[..., 0] / 255, dtype=np.float32)


def _db(a: Picture, b: Picture, region: NDArray[np.bool_]) -> float:
    return psnr_db(a[region][None], b[region][None])


def _seam(before: Picture, after: Picture, weight: faces.Floats) -> float:
    """Mean absolute step of the change over the line where the mask ends, in levels."""
    change = after.astype(np.float32) - before
    inside = weight > 0
    ring = inside & (cv2.erode(inside.astype(np.uint8), np.ones((3, 3), dtype=np.uint8)) == 0)
    return float(np.abs(change[ring]).mean()) if ring.any() else 0.0


def _group(portraits: list[Picture], scratch: Path) -> None:
    path = scratch / "group.jpg"
    path.write_bytes(_jpeg(group(portraits)))
    command = [sys.executable, "-m", "benchmarks.photos", str(path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout
    head(f"12 megapixels, {GROUP} faces", "", "seconds", "faces restored", "peak memory")
    for row in json.loads(told.splitlines()[-1]):
        print(f"| {row['title']} | {row['seconds']:.2f} | {row['restored']} | {row['peak_mb']:.0f} MB |")


def group(portraits: list[Picture]) -> Picture:
    (height, width), picture = GROUP_PX, waves(GROUP_PX)
    for k, portrait in enumerate(portraits):
        bad = degrade.fixed(portrait, degrade.LEVELS["middle"], k)
        side = 420 + 50 * k
        top, left = (k // 4) * height // 2 + 300, (k % 4) * width // 4 + 80
        picture[top : top + side, left : left + side] = cv2.resize(bad, (side, side), interpolation=cv2.INTER_CUBIC)
    return picture


def _jpeg(picture: Picture) -> bytes:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert done
    return data.tobytes()


def timed(path: Path) -> None:
    """In a process of its own, whose memory can be told: the first time with loading, then again, then remembered."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        studio = Studio(Shelf((BUILT_IN,)), Path(folder) / "state")
        orders = {"first, with loading": 70, "again": 71, "the same photo again": 71}
        for title, strength in orders.items():
            started = time.perf_counter()
            final = _final(studio, Enhance(str(path), strength=strength, backend="edge"), Path(folder))
            restored = sum(face.state != "skipped" for face in final.faces)
            seconds = time.perf_counter() - started
            rows.append({"title": title, "seconds": seconds, "restored": restored, "peak_mb": peak_mb()})
    print(json.dumps(rows))


if __name__ == "__main__":
    timed(Path(sys.argv[1]))
