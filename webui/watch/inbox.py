"""
An inbox as it was seen last: which photos are in it, which may be taken, and which cannot be. One that cannot be read,
or is suddenly empty, is taken for a share that is away, and then nothing is concluded. Knows no queue and no outbox.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.errors import Fact
from engines.images import endings
from webui.watch import scan
from webui.watch.report import Failure
from webui.watch.scan import Settling, Stamp

log = logging.getLogger(__name__)
MB = 1_000_000


@dataclass(frozen=True)
class Pace:
    """
    `poll_s`: between two looks. `settle_s`: for how long a file has not changed before it is opened; `patient_s`: one
    that does not end as its format says. `look_s`: between two looks at jobs. `jobs`: most that wait or run at one
    time, as others have the queue too. `again_s`: until what this machine was to blame for is tried again.
    """

    poll_s: float = 5.0
    settle_s: float = 10.0
    patient_s: float = 300.0
    look_s: float = 1.0
    jobs: int = 16
    again_s: float = 60.0


class Notices:
    """What the log was told last of each thing, so that it is told once."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def tell(self, topic: str, text: str, over: str = "") -> None:
        """Log it, if it is new; empty: it is over, which is logged in these words, if any."""
        before, self._said[topic] = self._said.get(topic, ""), text
        if text and text != before:
            log.warning("%s", text)
        elif before and not text and over:
            log.info("%s", over)


class Inbox:
    """
    `left_out`: folders that are no part of it. `stamps`: of the files whose bytes are written down. `clock`: seconds,
    from anywhere.
    """

    def __init__(
        self,
        folder: Path,
        left_out: Sequence[Path],
        stamps: Mapping[str, Stamp],
        limit_mb: int,
        pace: Pace,
        clock: Callable[[], float],
    ) -> None:
        self.folder, self.left_out, self.stamps = folder, left_out, stamps
        self.limit_mb, self.pace, self.clock = limit_mb, pace, clock
        self.is_there = False
        self._settled: deque[tuple[str, Stamp, bool]] = deque()  # and whether patience with it is over
        self.refused: dict[str, Failure] = {}
        self._present: Mapping[str, Stamp] = {}
        self._fresh: Mapping[str, Stamp] = {}  # those whose bytes are not written down yet
        self._put_off: dict[str, float] = {}  # until when
        self._settling, self._notices = Settling(), Notices()

    def look(self) -> None:
        """See what is there now, and what of it has settled."""
        try:
            listing = scan.listing(self.folder, self.left_out)
        except OSError as exc:
            self.go_away(exc.strerror or str(exc))
            return
        if not listing.photos and (self.stamps or self._present):
            self.go_away("it is empty, and was not")
            return
        self.is_there = True
        self._notices.tell("inbox", "", "the inbox is there again")
        trouble = f"a part of the inbox cannot be read: {listing.trouble}" if listing.trouble else ""
        self._notices.tell("part", trouble, "all of the inbox can be read again")
        self._present = {**(self._present if trouble else {}), **listing.photos}
        self._fresh = {path: stamp for path, stamp in listing.photos.items() if self.stamps.get(path) != stamp}
        self.refused = {path: why for path, why in self.refused.items() if path in self._fresh}
        self._settled.clear()
        for path, stamp, for_s in self._settling.unchanged(self._fresh, self.clock()):
            if self._has_settled(path, stamp, for_s):
                self._settled.append((path, stamp, for_s >= self.pace.patient_s))

    def next(self) -> tuple[str, Stamp] | None:
        """
        Return the next file that may be taken; None: there is none until the next look. Ends of files are looked at
        here, one by one, and not of all that wait at every look.
        """
        while self._settled:
            path, stamp, is_over = self._settled.popleft()
            if is_over or self._is_whole(path):
                return path, stamp
        return None

    def go_away(self, why: str) -> None:
        """Conclude nothing any more, until the next look sees it."""
        self.is_there = False
        self._settled.clear()
        self._notices.tell("inbox", f"the inbox is away, and nothing is forgotten meanwhile: {why}")

    def has(self, path: str) -> bool:
        """Return whether a file was there at the last look."""
        return path in self._present

    def is_elsewhere(self, stamp: Stamp) -> bool:
        """Return whether a file of another name, whose bytes are not written down yet, looks just like this."""
        return stamp in self._fresh.values()

    def refuse(self, path: str, key: str, **facts: Fact) -> None:
        """Note why there is no result of a file, as long as it is there and does not change."""
        self.refused[path] = Failure(path, key=key, facts=facts)

    def put_off(self, path: str, why: str) -> None:
        """Note that a file could not be read, and let a while pass until it is tried again."""
        self.refuse(path, "watch_unreadable", why=why)
        self._put_off[path] = self.clock() + self.pace.again_s

    def _has_settled(self, path: str, stamp: Stamp, for_s: float) -> bool:
        """Return whether a file that has not changed for so long may be opened; of one that may never be, note why."""
        size_bytes = stamp[0]
        if for_s < self.pace.settle_s:
            self.refused.pop(path, None)  # it is another than the one of which something was noted
            self._put_off.pop(path, None)
        elif self._put_off.get(path, 0.0) > self.clock():
            return False
        elif size_bytes > self.limit_mb * MB:
            self.refuse(path, "watch_too_large", size_mb=round(size_bytes / MB), limit_mb=self.limit_mb)
        elif not size_bytes:
            if for_s >= self.pace.patient_s:
                self.refuse(path, "watch_empty")
        else:
            return True
        return False

    def _is_whole(self, path: str) -> bool:
        try:
            return endings.is_whole(self.folder / path)
        except OSError:  # whoever takes it, when patience is over, says why it cannot be read
            return False
