"""The names of pictures that come from elsewhere: as they were called there, if nothing here is called so."""

from __future__ import annotations

import re
from itertools import chain, count
from pathlib import Path

from engines import images
from engines.images import PICTURE_NAME, PREVIEW_PREFIX
from engines.images.kept_latents import KEPT_SUFFIX

PREVIEW_NAME = re.compile(rf"{PREVIEW_PREFIX}[0-9a-f]{{32}}\.webp")
PARTS = re.compile(r"(outputs_\d{14})(?:_\d{3,})?(.*)")  # what tells one from others within its second is in between


def adopt(beside: Path, folder: Path, name: str) -> str:
    """
    Give a finished file of `folder` its name, or, as `write_output`, one like it that is not taken; return which. The
    file may then have two names. ValueError: no picture is called so, nor anything that is kept beside one. OSError.
    """
    if PREVIEW_NAME.fullmatch(name):  # which nothing else ever has
        beside.replace(folder / name)
        return name
    if name.endswith(KEPT_SUFFIX) and PICTURE_NAME.fullmatch(name.removesuffix(KEPT_SUFFIX) + ".png"):
        beside.replace(folder / name)
        return name
    if not PICTURE_NAME.fullmatch(name) or (parts := PARTS.fullmatch(name)) is None:
        raise ValueError(f"no picture is called {name[:80]!r}")
    others = (f"{parts[1]}_{i:03}{parts[2]}" for i in count(1))
    return next(name for name in chain([name], others) if images.claim(beside, folder / name))
