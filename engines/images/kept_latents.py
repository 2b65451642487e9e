"""
What is kept of a picture that only the tiny decoder has drawn: its latents, in a file beside it, so that the full
decoder can draw it later.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from engines import files, images
from engines.errors import ImageError, NotFoundError
from engines.images import causes

KEPT_SUFFIX = ".negative.npz"


@dataclass(frozen=True)
class KeptLatents:
    """What is kept of a picture that only the tiny decoder has seen, so that the full one can draw it later."""

    latents: NDArray[np.float32]
    bundle: str
    seed: int
    text: str


def write(picture: Path, negative: KeptLatents) -> None:
    """Save it beside its picture, whole or not at all."""
    data = io.BytesIO()
    note = json.dumps([negative.bundle, negative.seed, negative.text])
    np.savez(data, allow_pickle=False, latents=negative.latents, note=np.array(note))
    path = picture.with_suffix(KEPT_SUFFIX)
    with images.mapped_storage(path.parent):
        files.write_atomic(path, data.getvalue(), durable=True)


def read(folder: Path, name: str) -> KeptLatents:
    """Read what was kept of a picture. NotFoundError: no picture, or nothing kept of it. ImageError: it is damaged."""
    if not images.PICTURE_NAME.fullmatch(name):
        raise NotFoundError("kept latent", name)
    try:
        data = (folder / name).with_suffix(KEPT_SUFFIX).read_bytes()
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            return KeptLatents(stored["latents"], *files.parse_json(str(stored["note"])))
    except OSError as exc:
        raise NotFoundError("kept latent", name) from exc
    except (ValueError, KeyError, TypeError, EOFError, BadZipFile) as exc:
        raise ImageError(f"what was kept of {name} is damaged", why=causes.NEGATIVE) from exc
