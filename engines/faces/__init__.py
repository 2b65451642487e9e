"""
Faces in a photograph: from five landmarks to an upright crop, and back.

Knows the FFHQ template, similarity transforms and resampling; numpy and OpenCV only. Does not know how landmarks are
found, what a restorer does to the crop, or how pictures are decoded: it takes and gives uint8 RGB arrays.

Points are (x, y) in pixels, and the centre of the first pixel is (0, 0), as OpenCV has it. A face matrix maps picture
points to crop points: crop = matrix @ (x, y, 1).
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
Points = NDArray[np.float64]  # (5, 2): eye on the picture's left, the other eye, nose tip, mouth corners left and right
Matrix = NDArray[np.float64]  # (2, 3)
Floats = NDArray[np.float32]
Region = tuple[slice, slice]  # rows, columns

# Mean landmarks of FFHQ as GPEN, GFPGAN and facexlib align to them, as a share of the side (published for 512 px).
FFHQ_TEMPLATE: tuple[tuple[float, float], ...] = (
    (192.98138 / 512, 239.94708 / 512),
    (318.90277 / 512, 240.19360 / 512),
    (256.63416 / 512, 314.01935 / 512),
    (201.26117 / 512, 371.41043 / 512),
    (313.08905 / 512, 371.15118 / 512),
)
# The oval of a face, in lengths from the eyes to the mouth, measured on the template: its centre lies so far below the
# eyes, its half axes are so long, and so much of them its edge is feathered.
OVAL_DOWN, OVAL_ACROSS, OVAL_ALONG, FEATHER = 0.42, 1.55, 1.85, 0.35
RIM = 0.35  # of the mask: what weighs less is the rim
BAND_PX = 256
MOST_SUPERSAMPLING = 8  # bounds the memory of a crop from a huge face


def template(size_px: int) -> Points:
    """Return where the five landmarks belong in a crop of this size. (5, 2)"""
    return np.array(FFHQ_TEMPLATE, dtype=np.float64) * size_px


def umeyama(source: Points, target: Points) -> Matrix:
    """
    Return the similarity (rotation, scale, shift; no mirror) with the least squared error. (N, 2), (N, 2) -> (2, 3)
    ValueError: the points coincide, or are no numbers.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991, eq. 38-43.
    """
    source_mean, target_mean = source.mean(0), target.mean(0)
    centred = source - source_mean
    spread = float(np.square(centred).sum(1).mean())
    if not np.isfinite(spread) or spread <= 0:
        raise ValueError("landmarks must be finite and must not all coincide")
    u, singular, vt = np.linalg.svd((target - target_mean).T @ centred / len(source))
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0])
    linear = (u * sign) @ vt * (float(singular @ sign) / spread)  # (2, 2)
    return np.column_stack((linear, target_mean - linear @ source_mean))


def similarity(landmarks: Points, size_px: int) -> Matrix:
    """Return the matrix that brings landmarks (5, 2) closest to the template of a crop of this size. (2, 3)"""
    return umeyama(np.asarray(landmarks, dtype=np.float64), template(size_px))


def moved(points: Points, matrix: Matrix) -> Points:
    """Return points (N, 2) of the picture as points of the crop."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], dtype=np.float64)


def scale_of(matrix: Matrix) -> float:
    """Return how many crop pixels one picture pixel becomes, along one side."""
    return math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))


def magnified(matrix: Matrix, times: int) -> Matrix:
    """
    Return the matrix of the same crop with `times` x `times` finer pixels. Areas stay in place: a centre lies half a
    pixel inside.
    """
    finer = matrix * times
    finer[:, 2] += (times - 1) / 2
    return finer


def warp(image: Picture, matrix: Matrix, size_px: int) -> Picture:
    """
    Cut out the crop a matrix describes; beyond the border the picture is mirrored. Shrinking averages: no aliasing.
    """
    times = min(MOST_SUPERSAMPLING, max(1, math.ceil(1 / scale_of(matrix))))
    side, finer = size_px * times, magnified(matrix, times)
    fine = cv2.warpAffine(image, finer, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    crop = fine if times == 1 else cv2.resize(fine, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return np.asarray(crop, dtype=np.uint8)


def align(image: Picture, landmarks: Points, size_px: int) -> Picture:
    """Cut out the face upright, on the FFHQ template. (H, W, 3) -> (size_px, size_px, 3)"""
    return warp(image, similarity(landmarks, size_px), size_px)


def face_mask(landmarks: Points, size_px: int) -> Floats:
    """
    Return a mask that is one on the face, falling smoothly to zero before the border of the crop: an oval round the
    landmarks of an aligned face, from the hair's edge to the chin. (size_px, size_px)
    """
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    down = mouth - eyes  # from eyes to mouth
    centre = eyes + OVAL_DOWN * down
    length = max(float(np.linalg.norm(down)), 0.15 * size_px)
    angle = math.atan2(-down[0], down[1])
    x, y = np.meshgrid(np.arange(size_px) - centre[0], np.arange(size_px) - centre[1])
    across = (x * math.cos(angle) + y * math.sin(angle)) / (OVAL_ACROSS * length)
    along = (y * math.cos(angle) - x * math.sin(angle)) / (OVAL_ALONG * length)
    inside = np.clip((1 - np.sqrt(np.square(across) + np.square(along))) / FEATHER, 0, 1)
    return np.asarray(inside * inside * (3 - 2 * inside) * _border(size_px), dtype=np.float32)


def _border(size_px: int, margin: float = 0.08) -> Floats:
    """Return a mask that is one inside and falls smoothly to zero at the crop's border. (size_px, size_px)"""
    inside = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px
    ramp = np.clip(np.minimum(inside, 1 - inside) / margin, 0, 1)
    smooth = ramp * ramp * (3 - 2 * ramp)
    return np.asarray(np.outer(smooth, smooth), dtype=np.float32)


def without_seam(change: Floats, mask: Floats) -> Floats:
    """Return the change less what its rim has in common: a network that shifts all colours would show where it ends."""
    rim = ((mask > 0) & (mask < RIM)).astype(np.float32)
    shift = (change * rim[..., None]).sum((0, 1)) / max(float(rim.sum()), 1.0)
    return np.asarray(change - shift, dtype=np.float32)


def region(matrix: Matrix, size_px: int, shape: tuple[int, ...]) -> Region:
    """Return the rows and columns of a picture of this shape that a crop covers, a pixel more than less."""
    back = cv2.invertAffineTransform(matrix)
    corners = np.array([[0, 0, 1], [size_px, 0, 1], [0, size_px, 1], [size_px, size_px, 1]]) @ back.T
    (left, top), (right, bottom) = np.floor(corners.min(0)).astype(int) - 1, np.ceil(corners.max(0)).astype(int) + 1
    height, width = shape[:2]
    top, left = min(max(0, top), height), min(max(0, left), width)
    return slice(top, max(top, min(height, bottom))), slice(left, max(left, min(width, right)))


def add(picture: Picture, change: Floats, matrix: Matrix, mask: Floats) -> None:
    """
    Add a change of levels in a crop (N, N, 3), weighed by a mask (N, N), where the matrix took the crop from. Alters
    `picture`; where the mask is zero nothing is touched.
    """
    back = np.asarray(cv2.invertAffineTransform(matrix), dtype=np.float64)
    rows, columns = region(matrix, mask.shape[0], picture.shape)
    if columns.start < columns.stop:
        for start in range(rows.start, rows.stop, BAND_PX):
            band = picture[start : min(start + BAND_PX, rows.stop), columns]
            _add_band(band, change, back, mask, (columns.start, start))


def _add_band(part: Picture, change: Floats, back: Matrix, mask: Floats, corner: tuple[int, int]) -> None:
    """Add to a part of the picture, in place. `corner`: x and y in the picture of the part's first pixel."""
    height, width = part.shape[:2]
    shifted = back.copy()
    shifted[:, 2] -= corner
    times = min(MOST_SUPERSAMPLING, max(1, math.ceil(1 / scale_of(back))))  # a fine crop on coarse pixels is averaged
    finer, size = magnified(shifted, times), (width * times, height * times)
    moved = cv2.warpAffine(change, finer, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    weight = cv2.warpAffine(mask, finer, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    if times > 1:
        moved = cv2.resize(moved, (width, height), interpolation=cv2.INTER_AREA)
        weight = cv2.resize(weight, (width, height), interpolation=cv2.INTER_AREA)
    part[...] = np.rint(part + moved * weight[:, :, None]).clip(0, 255).astype(np.uint8)
