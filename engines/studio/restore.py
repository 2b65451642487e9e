"""
Restoring a photo: find the faces, restore each on its own crop, put the change back, then the controls for all of it.
The order of things for one Enhance or Inspect request.

Knows a loaded bundle with a restorer, a detector, and a folder; no queue, no page, no engine by name. The whole
picture never goes through a network, and where nobody asked for a change, not a level changes.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from engines import faces, images
from engines.errors import FacesTurned, NoFaceError
from engines.faces import Floats, Matrix, Picture, Points, identity, quality, retouch
from engines.faces.detection import Face
from engines.images import Photo, infotext
from engines.images.decoder import SHARED, Decoder
from engines.messages import Advice, Enhance, Event, Final, Inspect, Preview, Progress
from engines.messages.cautions import cut_off
from engines.messages.faces import (
    NO_FACE_THERE,
    NOT_CENTRAL,
    NOT_CHOSEN,
    SHARP,
    TOO_SMALL,
    Box,
    FaceReport,
    FaceState,
    face_at,
)
from engines.roles import Detector
from engines.roles.loaded import LoadedBundle

BEFORE_PX = 2560  # to what pages make photos smaller: a face that is looked at closely is as fine as it came
LOOK_PX = 1600  # of a look at a photo
LOOKED_AT = 4  # faces, for advice
ADVICE_PX = 256  # the side of a face that is looked at
DETAIL = 0.5  # what more_detail adds, of retouch.local_contrast
CLEAN = (20, 15)  # denoise and sharpen, for a whole picture for which nobody chose
MARGIN_PX = 16  # how far the controls look
TURNS = (90, 270, 180)  # in which faces are looked for where there are none; of equals, the first
SURE = 0.7  # the score, 0 to 1, of a face for which a photo is turned: what is none may look like one upside down
Report = tuple[FaceState, int, str]  # state, strength, why


@dataclass(frozen=True, kw_only=True)
class Restoration:
    """`reason`: why this engine. `started`: time.perf_counter() of the job's start."""

    request: Enhance
    loaded: LoadedBundle
    detector: Detector
    reason: str
    folder: Path
    started: float
    decoder: Decoder = SHARED

    def events(self) -> Generator[Event, None, list[Event]]:
        """
        Yield the photo as it came, progress, and Final; return what to show of it another time. NoFaceError,
        ImageError, EngineError, StorageError.
        """
        photo = self._read()
        before = self._shown(photo)
        yield before
        lying = 0
        if self.request.auto:
            advice = advice_on(photo.pixels, self.detector)
            lying = 0 if advice.boxes else advice.turn  # those that are found as they lie are restored so
            photo = turned(photo, lying)
            self = replace(self, request=self._automatic(advice))
        photo = replace(photo, pixels=self._mended(photo.pixels))  # nobody holds what it was: 150 MB
        detected = from_the_left(self.detector.find(photo.pixels))
        if not detected and not self.request.whole_picture:
            raise self._without_faces(photo.pixels)
        shape, canvas, reports = photo.pixels.shape, photo.pixels.copy(), []
        boxes = [share(face, shape) for face in detected]
        chosen = {face_at(boxes, point) for point in self.request.faces}
        for k, face in enumerate(detected):
            yield Progress("restore", k, len(detected), self._eta_s(k, len(detected)))
            why = self._passed_over(face, k in chosen, k == most_central(detected, shape))
            report: Report = ("skipped", 0, why) if why else self._face(canvas, face, k in chosen, photo.grey)
            reports.append(FaceReport(boxes[k], *report))
        missed = [point for point in self.request.faces if face_at(boxes, point) is None]
        reports += [FaceReport((point.x, point.y, 0.0, 0.0), "skipped", 0, NO_FACE_THERE) for point in missed]
        photo = replace(photo, pixels=self._controls(photo.pixels, canvas))
        del canvas  # 150 MB of a photo of 50 megapixels, which writing it would come on top of
        if lying:
            photo = turned(photo, -lying)
            reports = [replace(report, box=turned_box(report.box, -lying)) for report in reports]
            reports.sort(key=lambda report: report.box[0])
        final = self._written(photo, tuple(reports))
        yield final
        return [before, final]

    def _read(self) -> Photo:
        return turned(self.decoder.read_photo(Path(self.request.image)), self.request.turn)

    def _automatic(self, advice: Advice) -> Enhance:
        """Return the request with what a look at the photo advises."""
        whole = self.request.whole_picture or not advice.faces
        return replace(self.request, **advice.settings, whole_picture=whole)  # type: ignore[arg-type]

    def _without_faces(self, pixels: Picture) -> NoFaceError:
        turn = turn_to_faces(pixels, self.detector)
        return FacesTurned((self.request.turn + turn) % 360) if turn else NoFaceError("no face was found")

    def before(self) -> Preview:
        """The photo as it came. ImageError, StorageError."""
        return self._shown(self._read())

    def _shown(self, photo: Photo) -> Preview:
        small = images.fit(photo.pixels, BEFORE_PX)
        return Preview(0, images.write_preview(self.folder, small, photo.profile), kind="before")

    def _eta_s(self, done: int, total: int) -> float | None:
        passed = time.perf_counter() - self.started
        return round(passed / done * (total - done), 1) if done else None

    def _mended(self, pixels: Picture) -> Picture:
        """Repairs come first: with a scratch across an eye no face can be restored."""
        pixels = retouch.mend_scratches(pixels, self.request.scratches / 100)
        return retouch.mend_fading(pixels, self.request.fading / 100)

    def _passed_over(self, face: Face, chosen: bool, central: bool) -> str:
        """Say why a face is not even looked at. A face that somebody names is, by whatever rule it would not be."""
        r = self.request
        if not r.strength:
            return "strength is 0"
        if r.faces:
            return "" if chosen else NOT_CHOSEN
        if r.only_center_face and not central:
            return NOT_CENTRAL
        return f"{TOO_SMALL} {r.min_face_px} px" if face.size_px < r.min_face_px else ""

    def _face(self, canvas: Picture, face: Face, chosen: bool, grey: bool) -> Report:
        """Restore a face. One that is `chosen` is, however sharp, but as the same person all the same."""
        size_px = self.loaded.bundle.need(self.loaded.bundle.face, "its face").size_px
        matrix = faces.similarity(face.landmarks, size_px)
        crop = faces.warp(canvas, matrix, size_px)
        if not chosen and quality.is_sharp(crop):
            return "skipped", 0, SHARP
        mask = faces.face_mask(faces.moved(face.landmarks, matrix), size_px)
        change = self._change(crop, mask)
        change = retouch.without_colour(change) if grey else change
        blend = partial(blended, crop, change)
        taken = identity.allowed(crop, blend, self.request.strength / 100, self._landmarks)
        if not taken.strength:
            return "skipped", 0, taken.why
        self._put(canvas, np.asarray(change * taken.strength, dtype=np.float32), matrix, mask)
        return "softened" if taken.why else "restored", round(100 * taken.strength), taken.why

    def _change(self, crop: Picture, mask: Floats) -> Floats:
        """In levels, at full strength."""
        after = self.loaded.restorer.restore(crop)
        change = faces.without_seam(retouch.change_of(crop, after, self.request.mode), mask)
        return change + retouch.local_contrast(after, DETAIL) if self.request.more_detail else change

    def _put(self, canvas: Picture, change: Floats, matrix: Matrix, mask: Floats) -> None:
        region = faces.region(matrix, mask.shape[0], canvas.shape)
        was = canvas[region].copy() if self.request.protect_skin else None
        faces.add(canvas, change, matrix, mask)
        if was is not None:
            retouch.hold_skin(was, canvas[region])

    def _landmarks(self, crop: Picture) -> Points | None:
        detected = self.detector.find(crop)
        return detected[0].landmarks if detected else None

    def _controls(self, source: Picture, canvas: Picture) -> Picture:
        """For all of the picture. Skin keeps the colour that it had before the faces were restored."""
        r = self.request
        chosen = (r.denoise, r.sharpen)
        soften, sharpen = CLEAN if r.whole_picture and not any(chosen) else chosen
        if not any((soften, sharpen, r.contrast != 50, r.brightness != 50)):
            return canvas

        def work(band: Picture) -> Picture:
            band = retouch.sharpen(retouch.denoise(band, soften / 100), sharpen / 100)
            return retouch.adjust(band, r.contrast / 100, r.brightness / 100)

        result = retouch.in_bands(canvas, work, MARGIN_PX)
        if r.protect_skin:
            retouch.hold_skin(source, result)
        return result

    def _written(self, photo: Photo, reports: tuple[FaceReport, ...]) -> Final:
        r, engine = self.request, self.loaded.engine.name
        dated = photo if r.keep_date else replace(photo, taken="")
        text = infotext.describe_restoration(r, engine, self.loaded.precision)
        name = images.write_photo(self.folder, dated, text, r.format, r.quality, r.name)
        seconds = round(time.perf_counter() - self.started, 3)
        return Final((name,), 0, seconds, engine, self.reason, faces=reports, warnings=cut_off(photo.missing))


def blended(crop: Picture, change: Floats, strength: float) -> Picture:
    return np.asarray(np.rint(crop + change * np.float32(strength)).clip(0, 255), dtype=np.uint8)


def turned(photo: Photo, degrees: int) -> Photo:
    """Return the photo turned clockwise, by a multiple of 90 degrees; what is missing of it is still what it was."""
    if not degrees % 360:
        return photo
    alpha = None if photo.alpha is None else _clockwise(photo.alpha, degrees)
    return replace(photo, pixels=_clockwise(photo.pixels, degrees), alpha=alpha)


def _clockwise(pixels: Picture, degrees: int) -> Picture:
    return np.ascontiguousarray(np.rot90(pixels, -degrees // 90))


def turned_box(box: Box, degrees: int) -> Box:
    """Return where a box (left, top, width, height as shares) lies in its picture turned clockwise."""
    for _ in range(degrees // 90 % 4):
        left, top, width, height = box
        box = (round(1 - top - height, 4), left, height, width)
    return box


def turn_to_faces(pixels: Picture, detector: Detector) -> int:
    """Return by how many degrees clockwise a picture is turned in which the surest face is found; 0: in none."""
    small = images.fit(pixels, LOOK_PX)
    seen_at = {turn: detector.find(_clockwise(small, turn)) for turn in TURNS}
    sure = {turn: max((face.score for face in detected), default=0.0) for turn, detected in seen_at.items()}
    best = max(TURNS, key=lambda turn: sure[turn])
    return best if sure[best] >= SURE else 0


def tilt_of(detected: list[Face]) -> int:
    """Return by how many degrees clockwise a picture is turned for most of its faces to be upright, by their size."""
    size: dict[int, float] = defaultdict(float)
    for face in detected:
        down = face.landmarks[3:].mean(0) - face.landmarks[:2].mean(0)  # from the eyes to the mouth
        size[round(math.degrees(math.atan2(down[0], down[1])) / 90) * 90 % 360] += face.size_px
    return max(size, key=lambda turn: size[turn])


def from_the_left(detected: list[Face]) -> list[Face]:
    return sorted(detected, key=lambda face: face.box[0])


def share(face: Face, shape: tuple[int, ...]) -> Box:
    """Left, top, width, height of a face as shares of the picture."""
    left, top, right, bottom = face.box
    height, width = shape[:2]
    sides = (left / width, top / height, (right - left) / width, (bottom - top) / height)
    return tuple(round(float(side), 4) for side in sides)  # type: ignore[return-value]


def most_central(detected: list[Face], shape: tuple[int, ...]) -> int:
    """Which face is meant by the one in the centre: the nearest, though a larger one may lie somewhat further away."""
    middle = np.array([shape[1] / 2, shape[0] / 2])

    def away(face: Face) -> float:
        return float(np.linalg.norm(face.landmarks.mean(0) - middle)) / max(math.sqrt(face.size_px), 1.0)

    return min(range(len(detected)), key=lambda k: away(detected[k]))


def advise(request: Inspect, detector: Detector, folder: Path, decoder: Decoder = SHARED) -> Iterator[Advice | Preview]:
    """
    Yield what a look at the photo says; before it, where there are faces to choose from and browsers cannot show the
    file, the photo. ImageError, EngineError, StorageError.
    """
    photo = decoder.read_photo(Path(request.image))
    advice = replace(advice_on(photo.pixels, detector), warnings=cut_off(photo.missing))
    if advice.faces > 1 and not images.shown_by_browsers(Path(request.image)):
        small = images.fit(photo.pixels, LOOK_PX)
        yield Preview(0, images.write_preview(folder, small, photo.profile), kind="before")
    yield advice


def advice_on(pixels: Picture, detector: Detector) -> Advice:
    """
    What a look at a photo says. Where faces are found only when it is turned, it is said of what is then seen, without
    boxes.
    """
    detected = detector.find(pixels)
    boxes = tuple(share(face, pixels.shape) for face in from_the_left(detected))
    turn = tilt_of(detected) if detected else turn_to_faces(pixels, detector)
    if turn and not detected:
        pixels = _clockwise(pixels, turn)
        detected = detector.find(pixels)
    largest = sorted(detected, key=lambda face: face.size_px, reverse=True)[:LOOKED_AT]
    blurs = [quality.blur(faces.align(pixels, face.landmarks, ADVICE_PX)) for face in largest]
    noisy, faded = quality.noise(images.fit(pixels, LOOK_PX)), retouch.fading_of(pixels)
    height, width = pixels.shape[:2]
    settings = quality.suggestion(blurs, noisy, faded)
    blur = round(max(blurs, default=0.0), 2)
    return Advice(len(detected), width, height, blur, round(noisy, 2), settings, boxes, turn)
