"""
How far a drawing has come, so that it goes on from there after a crash or a restart, to the same picture. What a step
adds of noise is a stream of its own, and no step remembers those before it: the latents and their step are all there is
to keep.
"""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from zipfile import BadZipFile

import numpy as np

from engines import backends, files
from engines.bundle.signatures import Array
from engines.roles.loaded import LoadedBundle

log = logging.getLogger(__name__)
EVERY_S = 2.0  # at most so often: memory cards wear out
SHARE = 0.02  # of the time may go into it


class Snapshots(Protocol):
    """Where the latest snapshot of one job is kept. `attempt`: which of the job's this is."""

    @property
    def attempt(self) -> int: ...

    def load(self) -> bytes | None: ...

    def save(self, body: bytes, pictures: Sequence[str]) -> None:
        """Keep it in the place of the last, if that can be done. `pictures`: names of those that it counts on."""
        ...


class NoSnapshots:
    """For who draws without a queue, and would not come back."""

    attempt = 1

    def load(self) -> None:
        return None

    def save(self, body: bytes, pictures: Sequence[str]) -> None: ...


@dataclass(frozen=True)
class Snapshot:
    """
    `drawing` says of what it is: another one does not go on from it. `names`: the pictures that are done; after them
    come those whose latents are `denoised`, then the one that is at `latents` after `step` steps. `seconds`: worked so
    far.
    """

    drawing: str
    seed: int
    seconds: float = 0.0
    names: tuple[str, ...] = ()
    denoised: tuple[Array, ...] = ()  # each (1, C, h, w)
    latents: Array | None = None  # (1, C, h, w)
    step: int = 0

    def pack(self) -> bytes:
        data = io.BytesIO()
        note = json.dumps([self.drawing, self.seed, self.seconds, self.names, self.step])
        arrays = [*self.denoised, *([] if self.latents is None else [self.latents])]
        named = {f"latents_{k}": array for k, array in enumerate(arrays)}
        np.savez(data, allow_pickle=False, note=np.array(note), **named)
        return data.getvalue()

    @classmethod
    def unpack(cls, body: bytes) -> Snapshot:
        """ValueError: these bytes are none."""
        try:
            with np.load(io.BytesIO(body), allow_pickle=False) as stored:
                drawing, seed, seconds, names, step = files.parse_json(str(stored["note"]))
                arrays = [stored[f"latents_{k}"] for k in range(len(stored.files) - 1)]
        except (KeyError, TypeError, EOFError, BadZipFile) as exc:
            raise ValueError("no snapshot") from exc
        latents = arrays.pop() if step else None
        return cls(drawing, seed, seconds, tuple(names), tuple(arrays), latents, step)


def latest(snapshots: Snapshots) -> Snapshot | None:
    """Return the job's snapshot, if it has one that can be read: of a damaged one only time is lost."""
    body = snapshots.load()
    if body is None:
        return None
    try:
        return Snapshot.unpack(body)
    except ValueError as exc:
        log.warning("a job begins anew: %s", exc)
        return None


def drawing(loaded: LoadedBundle, *what: object) -> str:
    """Name a drawing by what decides its numbers: the engine with its runtime and processor, the parts, and `what`."""
    return f"{backends.candidate(loaded.bundle, loaded.engine).key} {what!r}"


class Saver:
    """Saves now and then: at most every `every_s`, and so rarely that it takes no more than its SHARE of the time."""

    def __init__(self, snapshots: Snapshots, every_s: float = EVERY_S) -> None:
        self.snapshots, self.every_s = snapshots, every_s
        self._last, self._cost_s = time.perf_counter(), 0.0

    @property
    def due(self) -> bool:
        return time.perf_counter() - self._last >= max(self.every_s, self._cost_s / SHARE)

    def save(self, snapshot: Snapshot) -> None:
        begun = time.perf_counter()
        self.snapshots.save(snapshot.pack(), snapshot.names)
        self._last = time.perf_counter()
        self._cost_s = self._last - begun
