"""A job that is broken off, without a queue, and one that goes on from what it has left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from engines.messages import Event, Generate
from engines.studio import Studio


@dataclass
class Kept:
    """The latest snapshot of a job."""

    body: bytes | None = None
    pictures: list[str] = field(default_factory=list)
    attempt: int = 1

    def load(self) -> bytes | None:
        return self.body

    def save(self, body: bytes, pictures: Sequence[str]) -> None:
        self.body, self.pictures = body, list(pictures)


def attempt(studio: Studio, request: Generate, folder: Path, kept: Kept, events: int = 10**9) -> list[Event]:
    """Draw until so many events have been heard, or to the end."""
    studio.snapshots = kept
    drawing = studio.run(request, folder)
    heard = list(islice(drawing, events))
    drawing.close()
    return heard
