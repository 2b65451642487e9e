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

# Mean landmarks of FFHQ as GPEN, GFPGAN and facexlib align to them, as a share of the side (published for 512 px).
FFHQ_TEMPLATE: tuple[tuple[float, float], ...] = (
    (192.98138 / 512, 239.94708 / 512),
    (318.90277 / 512, 240.19360 / 512),
    (256.63416 / 512, 314.01935 / 512),
    (201.26117 / 512, 371.41043 / 512),
    (313.08905 / 512, 371.15118 / 512),
)
MOST_SUPERSAMPLING = 8  # bounds the memory of a crop from a huge face


def template(size_px: int) -> Points:
    """Where the five landmarks belong in a crop of this size. (5, 2)"""
    return np.array(FFHQ_TEMPLATE, dtype=np.float64) * size_px


def umeyama(source: Points, target: Points) -> Matrix:
    """
    The similarity (rotation, scale, shift; no mirror) with the least squared error. (N, 2), (N, 2) -> (2, 3)

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
    """The matrix that brings a face's landmarks closest to the template of a crop of this size. (5, 2) -> (2, 3)"""
    return umeyama(np.asarray(landmarks, dtype=np.float64), template(size_px))


def scale_of(matrix: Matrix) -> float:
    """How many crop pixels one picture pixel becomes, along one side."""
    return math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))


def magnified(matrix: Matrix, times: int) -> Matrix:
    """The same crop with `times` x `times` finer pixels. Areas stay in place: a centre lies half a pixel inside."""
    finer = matrix * times
    finer[:, 2] += (times - 1) / 2
    return finer


def warp(image: Picture, matrix: Matrix, size_px: int) -> Picture:
    """The crop a matrix describes; beyond the border the picture is mirrored. Shrinking averages: no aliasing."""
    times = min(MOST_SUPERSAMPLING, max(1, math.ceil(1 / scale_of(matrix))))
    side, finer = size_px * times, magnified(matrix, times)
    fine = cv2.warpAffine(image, finer, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    crop = fine if times == 1 else cv2.resize(fine, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return np.asarray(crop, dtype=np.uint8)


def align(image: Picture, landmarks: Points, size_px: int) -> Picture:
    """The face upright, on the FFHQ template. (H, W, 3) -> (size_px, size_px, 3)"""
    return warp(image, similarity(landmarks, size_px), size_px)


def soft_mask(size_px: int, margin: float = 0.08) -> NDArray[np.float32]:
    """One inside, falling smoothly to zero at the border of the crop. (size_px, size_px)"""
    inside = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px
    ramp = np.clip(np.minimum(inside, 1 - inside) / margin, 0, 1)
    smooth = ramp * ramp * (3 - 2 * ramp)
    return np.asarray(np.outer(smooth, smooth), dtype=np.float32)


def paste(image: Picture, face: Picture, matrix: Matrix, mask: NDArray[np.float32]) -> Picture:
    """Put a crop back where the matrix took it from, mixed by the mask. Outside the mask nothing is touched."""
    height, width = image.shape[:2]
    times = min(MOST_SUPERSAMPLING, max(1, math.ceil(scale_of(matrix))))  # a big crop in a small picture is averaged
    finer = magnified(np.asarray(cv2.invertAffineTransform(matrix), dtype=np.float64), times)
    size = (width * times, height * times)
    back = cv2.warpAffine(face, finer, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    weight = cv2.warpAffine(mask, finer, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    if times > 1:
        back = cv2.resize(back, (width, height), interpolation=cv2.INTER_AREA)
        weight = cv2.resize(weight, (width, height), interpolation=cv2.INTER_AREA)
    share = weight[:, :, None]
    mixed = image * (1 - share) + back * share
    return np.asarray(np.where(share > 0, np.rint(mixed).clip(0, 255), image), dtype=np.uint8)
