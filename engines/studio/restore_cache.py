"""
Photos that were restored before: the same file with the same settings and weights is answered at once, as long as its
picture is still there. Losing the folder costs time, nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from engines import files
from engines.bundle import digest
from engines.errors import StudioError
from engines.messages import RESTORED_BEFORE, Enhance, Event, Final, Preview, pack, unpack
from engines.roles.loaded import LoadedBundle

METHOD = 1  # of restoring: to be raised when the same photo would come out differently


class Work(Protocol):
    """What makes a picture of a photo."""

    def before(self) -> Preview: ...
    def events(self) -> Generator[Event, None, Sequence[Event]]: ...  # returned: those to remember


@dataclass(frozen=True)
class RestoreCache:
    """`limit` restorations, the oldest leaving first."""

    folder: Path
    limit: int

    def events(self, r: Enhance, loaded_bundles: Sequence[LoadedBundle], outputs: Path, work: Work) -> Iterator[Event]:
        """What was remembered, or what `work` yields, which is then remembered."""
        started, path = time.perf_counter(), self.folder / f"{key(r, loaded_bundles)}.jsonl"
        if remembered := self._remembered(path, outputs):
            for event in remembered:
                if isinstance(event, Preview) and not (outputs / event.image).is_file():
                    event = work.before()  # previews are tidied away sooner than pictures
                took = round(time.perf_counter() - started, 3)
                yield replace(event, seconds=took, reason=RESTORED_BEFORE) if isinstance(event, Final) else event
            return
        self._remember(path, (yield from work.events()))

    def _remembered(self, path: Path, outputs: Path) -> list[Event]:
        """Empty if anything of it is gone or damaged."""
        try:
            events: list[Event] = [unpack(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError, StudioError):
            return []
        last = events[-1] if events else None
        whole = isinstance(last, Final) and all((outputs / name).is_file() for name in last.images)
        return events if whole else []

    def _remember(self, path: Path, events: Sequence[Event]) -> None:
        with contextlib.suppress(OSError):  # a full disk must not cost the picture
            files.write_atomic(path, "\n".join(map(pack, events)).encode())
            entries = sorted(self.folder.glob("*.jsonl"), key=lambda p: p.stat().st_mtime, reverse=True)
            for old in entries[self.limit :]:
                old.unlink(missing_ok=True)


def key(r: Enhance, loaded_bundles: Sequence[LoadedBundle]) -> str:
    """Name a restoration by the photo's bytes, every setting, and the weights and arithmetic that would be used."""
    used = [(loaded.engine.name, loaded.part(role)) for loaded in loaded_bundles for role in loaded.bundle.roles]
    parts = sorted((name, part.role, part.sha256, part.precision) for name, part in used)
    facts = [METHOD, _digest(Path(r.image)), asdict(replace(r, image="", backend="")), parts]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _digest(photo: Path) -> str:
    """Empty for what cannot be read; who opens it says why."""
    try:
        return digest(photo)
    except OSError:
        return ""
