"""Which files are photos that are read here: what choosers offer, and what a watch folder takes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

# Media types, and how files of each may be called.
FORMATS: Mapping[str, tuple[str, ...]] = {
    "image/jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "image/png": (".png", ".apng"),
    "image/webp": (".webp",),
    "image/heic": (".heic", ".heif", ".hif"),
    "image/tiff": (".tif", ".tiff"),
    "image/avif": (".avif",),
    "image/bmp": (".bmp",),
    "image/gif": (".gif",),
}
SUFFIXES = tuple(chain.from_iterable(FORMATS.values()))
ACCEPT = ",".join((*FORMATS, *SUFFIXES))  # of <input type="file">; browsers do not know all of these by their type
