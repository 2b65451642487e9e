"""
A studio in which the networks are fakes, and whose detector sees the faces that a test says are there; with pictures to
restore. Masks are computed as the studio does, so that a test can look outside them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines import faces
from engines.bundle import Shelf
from engines.bundle.signatures import Array
from engines.messages import Enhance, Event, Failed, Final
from engines.messages.faces import FaceReport
from engines.studio import Studio
from tests.support.cancelling import cancelled_when
from tests.support.fakes import FakeEngine, Sees, write_detector, write_restorer

Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]
CROP_PX = 32  # of the fake restorer
SKIN = (196, 150, 128)


def person(x: float = 80, y: float = 66, size_px: float = 70) -> Points:
    """Landmarks of somebody whose nose is there, in a crop of this size."""
    return (faces.template(1) - faces.template(1)[2]) * size_px + np.array([x, y])


def seeing(*people: Points) -> Sees:
    """These faces in a photo; and in the crop of a face, that one."""

    def sees(picture: Array) -> list[Points]:
        return [faces.template(CROP_PX)] if picture.shape[:2] == (CROP_PX, CROP_PX) else list(people)

    return sees


@dataclass
class Darkroom:
    folder: Path
    engine: FakeEngine = field(default_factory=lambda: FakeEngine(sees=seeing(person())))
    cancel: Callable[[Event], bool] = lambda event: False  # somebody does, after an event of which it is true

    def __post_init__(self) -> None:
        write_restorer(self.folder / "shelf" / "restorer")
        write_detector(self.folder / "shelf" / "detector")
        self.reopen()

    def reopen(self) -> None:
        """As after a restart of the program."""
        self.studio = Studio(Shelf((self.folder / "shelf",)), self.folder / "state", self.engine.select)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def put(self, picture: Pixels, name: str = "photo.png", **how: Any) -> Path:
        Image.fromarray(picture).save(self.folder / name, **how)
        return self.folder / name

    def events(self, picture: Pixels | Path, **controls: Any) -> list[Event]:
        path = picture if isinstance(picture, Path) else self.put(picture)
        return cancelled_when(self.studio.run(Enhance(str(path), **controls), self.out), self.cancel)

    def final(self, picture: Pixels | Path, **controls: Any) -> Final:
        *_, last = self.events(picture, **controls)
        assert isinstance(last, Final), last
        return last

    def failed(self, picture: Pixels | Path, **controls: Any) -> Failed:
        *_, last = self.events(picture, **controls)
        assert isinstance(last, Failed), last
        assert not self.written(), "nothing is saved of what failed"
        return last

    def reports(self, picture: Pixels | Path, **controls: Any) -> tuple[FaceReport, ...]:
        return self.final(picture, **controls).faces

    def result(self, picture: Pixels | Path, **controls: Any) -> Pixels:
        (name,) = self.final(picture, **controls).images
        return self.opened(name)

    def opened(self, name: str) -> Pixels:
        with Image.open(self.out / name) as image:
            return np.array(image.convert("RGB"))

    def written(self) -> list[Path]:
        return sorted(self.out.glob("outputs_*"))


def scene(height: int = 120, width: int = 160) -> Pixels:
    """Soft, so that no face in it is sharp already."""
    y, x = np.mgrid[0:height, 0:width]
    waves = 130 + 70 * np.sin(x / 14), 128 + 60 * np.cos((x + y) / 17), 110 + 50 * np.sin(y / 11)
    return np.stack(waves, -1).astype(np.uint8)


def grainy(sigma: float = 10) -> Pixels:
    return np.asarray((scene() + np.random.default_rng(0).normal(0, sigma, (120, 160, 3))).clip(0, 255), dtype=np.uint8)


def noisy(height: int = 120, width: int = 160) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def skin(height: int = 120, width: int = 160) -> Pixels:
    """With eyes, nose and mouth where person() has them."""
    y, x = np.mgrid[0:height, 0:width]
    light = np.ones((height, width))
    for mark_x, mark_y in person():
        light -= 0.5 * np.exp(-((x - mark_x) ** 2 + (y - mark_y) ** 2) / 30)
    return np.asarray(np.array(SKIN) * light[..., None], dtype=np.uint8)


def reach(shape: tuple[int, ...], *people: Points, size_px: int = CROP_PX) -> NDArray[np.bool_]:
    """Which pixels the restoration of these faces may change at all. (H, W)"""
    touched = np.zeros((*shape[:2], 3), dtype=np.uint8)
    for landmarks in people:
        matrix = faces.similarity(landmarks, size_px)
        mask = faces.face_mask(faces.moved(landmarks, matrix), size_px)
        faces.add(touched, np.full((size_px, size_px, 3), 1e6, dtype=np.float32), matrix, mask)
    return np.asarray(touched.any(-1))


def chroma_shift(before: Pixels, after: Pixels) -> Any:
    """How far colour moved, in CIELAB's a, b. (H, W)"""
    was, now = (cv2.cvtColor(p.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 1:] for p in (before, after))
    return np.linalg.norm(now - was, axis=-1)


def tinted(where: slice = slice(8, 24), channel: int = 2, by: float = 0.5) -> Callable[[Array], Array]:
    """A restorer that paints the middle of the face."""

    def spoil(result: Array) -> Array:
        result = result.copy()
        result[:, channel, where, where] += np.float32(by)
        return result

    return spoil
