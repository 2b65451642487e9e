"""
Copies of pictures in the size of a screen, made in a process of its own (engines/images/decoder.py) and stored, as a
wall shows the same ones again and again. The oldest go when they take too much room. What lies on another machine is
fetched when there is no copy of it, and not kept itself.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from engines import files
from engines.errors import ImageError, NotFoundError, StudioError
from webui import outgoing
from webui.albums.folders import Shown
from webui.outgoing import Resource, Unanswered

if TYPE_CHECKING:  # with libraries that whoever shows none of them need not wait for
    from engines.images.decoder import Decoder
    from engines.images.scaling import Scaling

log = logging.getLogger(__name__)
MOST_BYTES, SWEPT_TO = 300_000_000, 0.8  # of all copies; and what share of it is left after a sweep
SWEEP_EVERY = 50  # copies
IDLE_S = 120.0  # after which the process that makes them ends: it takes 100 MB
FETCH_S = 15.0  # less than a frame waits
REST_S = 20.0  # for a server that does not answer, until it is asked again
MB = 1_000_000
SUFFIX = {"avif": ".avif", "webp": ".webp", "jpeg": ".jpg", "png": ".png"}
MEDIA = {"avif": "image/avif", "webp": "image/webp", "jpeg": "image/jpeg", "png": "image/png"}


class Copies:
    """Any thread may ask; one copy at a time is made."""

    def __init__(
        self, folder: Path, decode_s: float, fetch_mb: int = 30, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`fetch_mb`: what may be fetched of a picture that lies elsewhere."""
        self.folder, self.decode_s, self.fetch_mb = folder, decode_s, fetch_mb
        self._clock = clock
        self._decoder: Decoder | None = None
        self._idle: threading.Timer | None = None
        self._lock = threading.Lock()
        self._unreadable: dict[str, StudioError] = {}
        self._resting: dict[str, float] = {}  # servers that did not answer, and until when they are left alone
        self._count = 0

    def get(self, shown: Shown, how: Scaling) -> bytes:
        """
        NotFoundError: the picture went, or is elsewhere and cannot be had now. ImageError: it cannot be read, which is
        logged once for each version.
        """
        how = replace(how, focus=shown.focus)
        if shown.remote is not None:  # its path is another when it is
            return self.of(str(shown.path), shown.name, how, partial(self._fetched, shown, shown.remote))
        try:
            stat = shown.path.stat()
        except OSError as exc:
            raise NotFoundError("picture", shown.name) from exc
        version = f"{shown.path} {stat.st_mtime_ns} {stat.st_size}"
        return self.of(version, shown.name, how, lambda: nullcontext(shown.path))

    def of(self, version: str, name: str, how: Scaling, lent: Callable[[], AbstractContextManager[Path]]) -> bytes:
        """
        Return the copy of a file, for which `version` stands, and which is asked for only if there is none yet.
        `name`: for the log. ImageError as `get`; and whatever `lent` raises.
        """
        if refusal := self._unreadable.get(version):
            raise refusal
        key = hashlib.sha256(f"{version} {how}".encode("utf-8", "surrogatepass")).hexdigest()[:32]
        place = self.folder / (key + SUFFIX[how.format])
        with suppress(OSError):
            data = place.read_bytes()
            place.touch()  # what is shown again stays
            return data
        with lent() as path:
            try:
                data = self._scaled(path, how)
            except ImageError as exc:
                log.warning("a picture is left out: %s: %s", name, exc)
                self._unreadable[version] = exc
                raise
        self._store(place, data)
        return data

    @contextmanager
    def _fetched(self, shown: Shown, remote: Resource) -> Iterator[Path]:
        """Give the body the file of a picture that lies elsewhere. NotFoundError."""
        if self._resting.get(remote.host, 0.0) > self._clock():
            raise NotFoundError("picture", shown.name)
        with files.temporary(self.folder) as path:
            try:
                outgoing.download(remote, path, self.fetch_mb * MB, FETCH_S)
            except Unanswered as exc:
                log.warning("a picture cannot be fetched: %s", exc)
                if not exc.status:
                    self._resting[remote.host] = self._clock() + REST_S
                raise NotFoundError("picture", shown.name) from exc
            except OSError as exc:
                log.warning("a picture cannot be stored: %s", exc.strerror)
                raise NotFoundError("picture", shown.name) from exc
            yield path

    def _scaled(self, path: Path, how: Scaling) -> bytes:
        with self._lock:
            try:
                return self._process().scaled(path, how)
            finally:
                self._end_when_idle()

    def _process(self) -> Decoder:
        from engines.images.decoder import Decoder

        if self._decoder is None:
            self._decoder = Decoder(self.decode_s)
        return self._decoder

    def _end_when_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        assert self._decoder is not None  # it was asked just now
        self._idle = threading.Timer(IDLE_S, self._decoder.close)
        self._idle.daemon = True
        self._idle.start()

    def _store(self, place: Path, data: bytes) -> None:
        try:
            files.write_atomic(place, data)
            self._count += 1
            if self._count % SWEEP_EVERY == 1:
                self.sweep()
        except OSError as exc:  # a full disk is no reason to show nothing
            log.warning("a copy of a picture cannot be stored: %s", exc.strerror)

    def sweep(self) -> None:
        """Delete the copies that were not shown for longest, if they take too much room. OSError."""
        stats = [(path, path.stat()) for path in self.folder.iterdir() if not path.name.startswith(".")]  # half-written
        size = sum(stat.st_size for _, stat in stats)
        if size <= MOST_BYTES:
            return
        for path, stat in sorted(stats, key=lambda each: each[1].st_mtime):
            path.unlink(missing_ok=True)
            size -= stat.st_size
            if size <= MOST_BYTES * SWEPT_TO:
                return
