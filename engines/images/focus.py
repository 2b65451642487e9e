"""Where the people in a picture are, when nobody has said it: what a screen should not cut off."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np

from engines.faces import Picture, detection

# The detector that is shipped, run by OpenCV: half the memory of a runtime for engines, in a process that has this one
# network to run now and then. Whose faces are restored, an engine says.
MODEL = Path(__file__).parents[1] / "builtin" / "detector" / "face_detector" / "model.onnx"
LONGEST_PX = 640  # of what is looked at: faces of 3 % of its side and larger, within 50 ms on a desktop


def middle_of_faces(picture: Picture) -> tuple[float, float] | None:
    """Return the middle of the box about all faces, in shares of the picture's sides, or None: there are none."""
    height, width = picture.shape[:2]
    small, scale = detection.shown(picture, LONGEST_PX)
    network = _network()
    network.setInput(np.ascontiguousarray(small.transpose(2, 0, 1)[None], dtype=np.float32))
    faces = detection.decode("centerface", network.forward()[0], *small.shape[:2])
    if not faces:
        return None
    lefts, tops, rights, bottoms = zip(*(face.enlarged(1 / scale, height, width).box for face in faces), strict=True)
    return float(min(lefts) + max(rights)) / 2 / width, float(min(tops) + max(bottoms)) / 2 / height


@cache
def _network() -> cv2.dnn.Net:
    cv2.setNumThreads(1)  # each thread's stack counts as memory of a process that may have little
    return cv2.dnn.readNetFromONNX(str(MODEL))
