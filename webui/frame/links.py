"""
Links that a phone takes from a frame's screen: to send a photo there, and to take a picture away. Each is for the first
browser that opens it, for ten minutes, and what goes over it lies in a folder of its own until then, whatever becomes
of the visit. In memory: after a restart a frame shows new ones.
"""

from __future__ import annotations

import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

from engines.errors import LinkEnded, StorageError
from webui import uploads

Direction = Literal["send", "take"]
LINK_S = 600.0
CODE_BYTES = 12  # 96 bits, which nobody guesses in ten minutes; more would make a code that cameras read worse
MOST_LINKS = 200  # the oldest go first


@dataclass(frozen=True, slots=True)
class Link:
    """
    `picture`: the file that is taken away, or that has been sent; None: nothing yet. `name`: what its owner calls it.
    `browser`: the first that has opened the link; "": none has. `until`: by the clock of Links.
    """

    direction: Direction
    visitor: str
    until: float
    picture: Path | None = None
    name: str = ""
    browser: str = ""


class Links:
    """`folder`: where pictures are on their way. Any thread may ask."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = folder
        self._clock = clock
        self._links: dict[str, Link] = {}
        self._lock = threading.Lock()

    def make(self, direction: Direction, visitor: str, picture: Path | None = None) -> str:
        """Return the code of a new link."""
        code = secrets.token_urlsafe(CODE_BYTES)
        with self._lock:
            now = self._clock()
            for other, link in [*self._links.items()]:
                if link.until < now:
                    self._drop(other)
            while len(self._links) >= MOST_LINKS:
                self._drop(next(iter(self._links)))
            self._links[code] = Link(direction, visitor, now + LINK_S, picture)
        return code

    def look(self, direction: Direction, code: str) -> Link:
        """LinkEnded: there is no such link, or not any more."""
        with self._lock:
            return self._here(direction, code)

    def open(self, direction: Direction, code: str, browser: str) -> tuple[Link, str]:
        """
        Return the link, and what the browser that may use it is to carry from now on. `browser`: what it carries.
        LinkEnded: another one was first, or as `look`. StorageError: the disk refuses.
        """
        with self._lock:
            link = self._here(direction, code)
            if not link.browser:
                link = replace(link, browser=secrets.token_urlsafe(CODE_BYTES), picture=self._lent(code, link.picture))
                self._links[code] = link
            elif not secrets.compare_digest(link.browser.encode(), browser.encode()):
                raise LinkEnded()
            return link, link.browser

    def receive(self, code: str, source: BinaryIO, name: str) -> None:
        """
        Take what a phone sends, in the place of what it sent before. ImageError: nothing. StorageError. LinkEnded, as
        `look`, also while it comes.
        """
        self.look("send", code)
        try:
            picture = uploads.keep(source, self.folder / code)
            with self._lock:
                self._links[code] = replace(self._here("send", code), picture=picture, name=uploads.own_name(name))
        except StorageError:
            self.look("send", code)  # its folder may have gone with it
            raise
        except LinkEnded:
            shutil.rmtree(self.folder / code, ignore_errors=True)
            raise

    def forget(self, visitor: str) -> None:
        """End a visitor's links, but for pictures that a phone is taking away."""
        with self._lock:
            for code, link in [*self._links.items()]:
                if link.visitor == visitor and not (link.direction == "take" and link.browser):
                    self._drop(code)

    def _here(self, direction: Direction, code: str) -> Link:
        link = self._links.get(code)
        if link is None or link.direction != direction or link.until < self._clock():
            raise LinkEnded()
        return link

    def _lent(self, code: str, picture: Path | None) -> Path | None:
        """Return where a copy of the picture lies, which stays when the visit is over."""
        if picture is None:
            return None
        try:
            (self.folder / code).mkdir(parents=True, exist_ok=True)
            return Path(shutil.copyfile(picture, self.folder / code / picture.name))
        except OSError as exc:
            raise StorageError(f"{self.folder}: {exc.strerror}", why=exc.strerror or "?") from exc

    def _drop(self, code: str) -> None:
        del self._links[code]
        shutil.rmtree(self.folder / code, ignore_errors=True)
